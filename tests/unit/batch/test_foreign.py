"""What a batch refuses to write, and what it refuses to replace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rusty_agent.batch.files import Files
from rusty_agent.batch.foreign import refuse_foreign, refuse_overwriting
from rusty_agent.batch.index import scan
from rusty_agent.errors import BatchError

from .lines import HOLE


def test_links_in_a_circle_are_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    files = Files.of(tmp_path / "a.jsonl")
    assert files.output.parent == tmp_path
    refuse_overwriting(files, tmp_path / "in.jsonl", tmp_path / "r.html")
    with pytest.raises(BatchError, match="cannot be read: Too many levels of symbolic links"):
        scan(files)
    (tmp_path / "a.summary.json").symlink_to(tmp_path / "a.summary.json")
    with pytest.raises(BatchError, match=r"summary\.json cannot be read: Too many levels of symbolic links"):
        refuse_foreign(files)


WRITTEN = ["output", "errors", "manifest", "lock", "summary"]


@pytest.mark.parametrize("which", WRITTEN)
def test_a_folder_is_no_file_of_a_batch(tmp_path: Path, which: str) -> None:
    files = Files.of(tmp_path / "out.jsonl")
    getattr(files, which).mkdir()
    with pytest.raises(BatchError, match=rf"{getattr(files, which).name} is a folder, but a batch writes files"):
        refuse_overwriting(files, None, None)


@pytest.mark.skipif(os.name == "nt", reason="Windows counts the whole path")
@pytest.mark.parametrize("name", ["x" * 256, "é" * 125 + ".jsonl", "x" * 250, "x" * 240, "x" * 230 + ".jsonl"])
def test_a_name_that_leaves_no_room_for_those_beside_it(tmp_path: Path, name: str) -> None:
    files = Files.of(tmp_path / "out.jsonl")
    with pytest.raises(BatchError, match=rf"The name of .*{name}, or of .* beside it, is too long: shorten it"):
        refuse_overwriting(Files.of(tmp_path / name), None, None)
    refuse_overwriting(files, None, tmp_path / ("x" * 230))
    with pytest.raises(BatchError, match=r"The name of .*, or of .* beside it, is too long: shorten it"):
        refuse_overwriting(files, None, tmp_path / ("x" * 245))


@pytest.mark.parametrize("ending", ["", ".rusty-agent.tmp"])
@pytest.mark.parametrize("which", WRITTEN)
def test_the_input_and_the_report_are_no_files_of_the_batch(tmp_path: Path, which: str, ending: str) -> None:
    files = Files.of(tmp_path / "out.jsonl")
    taken = Path(f"{getattr(files, which)}{ending}")
    with pytest.raises(BatchError, match="where the report is to be written, is one of the batch's own files"):
        refuse_overwriting(files, tmp_path / "in.jsonl", taken)  # though it is not there yet
    taken.touch()
    link = tmp_path / "link"
    os.link(taken, link)
    for source in (taken, str(link), tmp_path / ".." / tmp_path.name / taken.name):
        with pytest.raises(BatchError, match="is the input, but the batch would write to it too"):
            refuse_overwriting(files, source, None)
        with pytest.raises(BatchError, match="is one of the batch's own files"):
            refuse_overwriting(files, None, Path(source))
    refuse_overwriting(files, None, None)


def test_the_report_is_not_the_input_and_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, source = Files.of(tmp_path / "out.jsonl"), tmp_path / "in.jsonl"
    source.touch()
    refuse_overwriting(files, source, tmp_path / "r.html")
    refuse_overwriting(files, source, Path("r.html"))
    beside = tmp_path / "in.json.rusty-agent.tmp"
    for report in (source, str(source).removesuffix("l")):
        beside.unlink(missing_ok=True)
        beside.hardlink_to(source)
        with pytest.raises(BatchError, match=r"is the input, but .* Name another output or report"):
            refuse_overwriting(files, source, Path(report))
    with pytest.raises(BatchError, match="is one of the batch's own files"):  # at the end it would replace the output
        refuse_overwriting(Files.of(tmp_path / "r.html.rusty-agent.tmp"), source, tmp_path / "r.html")
    for report in (tmp_path, "/", ""):
        with pytest.raises(BatchError, match="is not a regular file"):
            refuse_overwriting(files, source, Path(report))
    with pytest.raises(BatchError, match="its folder must exist, and you must be able to write there"):
        refuse_overwriting(files, source, tmp_path / "no" / "r.html")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for whoever is not root
    with pytest.raises(BatchError, match="its folder must exist, and you must be able to write there"):
        refuse_overwriting(files, source, tmp_path / "r.html")


def test_what_no_batch_has_written_is_not_replaced(tmp_path: Path) -> None:
    files = Files.of(tmp_path / "out.jsonl")
    refuse_foreign(files)
    for path in (files.manifest, files.summary):
        path.write_bytes(HOLE)  # as a loss of power may leave it
        refuse_foreign(files)
        path.write_bytes(b"{}")
        with pytest.raises(BatchError, match=path.name):
            refuse_foreign(files)
        path.unlink()
