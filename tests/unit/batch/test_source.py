"""Files → rows: every kind of file, twice; damage has a place; nothing is dropped without a word."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import threading
import tracemalloc
import zlib
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rusty_agent.batch import source as module
from rusty_agent.batch.rows import BadLine, Row
from rusty_agent.batch.source import MAX_LINE_BYTES, ListSource, open_source
from rusty_agent.batch.template import Template
from rusty_agent.errors import BatchError

from .sources import BOM, prompts_of, source_of

LINES = b'"one"\n\n{"prompt":"two","custom_id":"b"}\r\n \t\n[]\n5\n"last"'
ROWS = [(1, "one"), (3, "two"), (5, None), (6, None), (7, "last")]


# Lines of JSON.


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["in.jsonl", "in.ndjson", "in.json", "in", "in.jsonl.gz"])
def test_lines(tmp_path: Path, name: str, packed: bool) -> None:
    source = source_of(tmp_path, gzip.compress(LINES) if packed else LINES, name)
    assert prompts_of(source.rows(check=True)) == ROWS
    assert prompts_of(source.rows(check=True)) == ROWS
    assert prompts_of(source.rows(check=True, limit=3)) == ROWS[:3]
    assert next(iter(source.rows(limit=0)), None) is None


def test_it_is_found_again_though_the_working_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    source = source_of(Path(), LINES)
    monkeypatch.chdir("elsewhere")
    assert source.digest() == (hashlib.sha256(LINES).hexdigest(), len(LINES))
    assert prompts_of(source.rows(check=True)) == ROWS
    assert source.name == "in.jsonl"


def test_two_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    source = source_of(tmp_path, LINES)
    first, second = source.rows(), source.rows()
    assert next(first) == next(second)
    assert next(first) == next(second)


ODD_LINES = {
    "empty": (b"", []),
    "blank": (b"\n", []),
    "blanks": (b"\n\n  \n", []),
    "only-a-bom": (BOM, []),
    "bom": (BOM + b'"a"\n', [(1, "a")]),
    "bom-and-blank": (BOM + b'\n"a"\n', [(2, "a")]),
    "late-bom": (b'"a"\n' + BOM + b'"b"\n', [(1, "a"), (2, None)]),
    "windows": (b'"a"\r\n\r\n"b"\r\n', [(1, "a"), (3, "b")]),
    "not-utf-8": (b'"a\xff"\n"b"\n', [(1, None), (2, "b")]),
    "nul": (b'"a"\n\0\0\0\0\n"b"\n', [(1, "a"), (2, None), (3, "b")]),
    "two-members": (gzip.compress(b'"a"\n') + gzip.compress(b'"b"\n'), [(1, "a"), (2, "b")]),
    "empty-gzip": (gzip.compress(b""), []),
}


@pytest.mark.parametrize(("data", "expected"), ODD_LINES.values(), ids=ODD_LINES)
def test_odd_lines(tmp_path: Path, data: bytes, expected: list[tuple[int, Any]]) -> None:
    assert prompts_of(source_of(tmp_path, data).rows(check=True)) == expected


@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_cap_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 8)
    monkeypatch.setattr(module, "_BLOCK", 4)
    data = b'"' + b"x" * 6 + b'"\n"' + b"x" * 7 + b'"\n"a"\n"' + b"x" * 100 + b'"' + end
    rows = list(source_of(tmp_path, data).rows())
    assert prompts_of(rows) == [(1, "xxxxxx"), (2, None), (3, "a"), (4, None)]
    assert rows[1] == BadLine(2, "longer than 8 bytes")


def test_the_default_cap(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.truncate(MAX_LINE_BYTES + 2**20)  # a hole: all NUL
        file.seek(0, os.SEEK_END)
        file.write(b'\n"next"\n')
    assert prompts_of(open_source(path).rows()) == [(1, None), (2, "next")]


@pytest.mark.parametrize("damage", ["cut", "flipped", "overwritten", "followed"])
def test_damaged_gzip_says_where(tmp_path: Path, damage: str) -> None:
    lines = b"".join(b'"%d %s"\n' % (i, hashlib.sha256(b"%d" % i).hexdigest().encode()) for i in range(3000))
    packed = bytearray(gzip.compress(lines))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    elif damage == "overwritten":
        packer = zlib.compressobj(wbits=31)
        packed[:] = packer.compress(lines) + packer.flush(zlib.Z_SYNC_FLUSH) + b"\x07"  # no block begins so
    else:
        packed += b"more"
    source = source_of(tmp_path, bytes(packed))
    read = 0
    with pytest.raises(BatchError, match=r"in\.jsonl cannot be read past line \d+: ") as raised:
        for _ in source.rows():
            read += 1
    assert f"past line {read}: " in str(raised.value)
    assert read > 500
    with pytest.raises(BatchError, match="cannot be read past"):
        source.check()


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"missing\.jsonl cannot be read: No such file"):
        open_source(tmp_path / "missing.jsonl")
    with pytest.raises(BatchError, match="cannot be read: Is a directory"):
        open_source(tmp_path)
    source = source_of(tmp_path, LINES)
    (tmp_path / "in.jsonl").unlink()
    for look in (source.digest, source.check, lambda: next(source.rows())):
        with pytest.raises(BatchError, match="No such file"):
            look()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=100)
    | st.lists(
        st.sampled_from(
            [b'"a"', b"\n", b"\r", b" ", b"{}", b'{"prompt":"x"}', BOM, b"\xff", b"\0", b'"' * 30, b" " * 16]
        ),
        max_size=20,
    ).map(b"".join),
    packed=st.booleans(),
    templated=st.booleans(),
)
def test_every_line_is_a_row_or_bad_or_blank(data: bytes, packed: bool, templated: bool, tmp_path: Path) -> None:
    assume(packed or not data.startswith(b"\x1f\x8b"))  # it would be damaged gzip
    template = Template("{prompt}") if templated else None
    source = source_of(tmp_path, gzip.compress(data, 1) if packed else data, template=template)
    lines = enumerate(data.split(b"\n"), 1)
    start = {1: BOM}
    expected = [line for line, text in lines if len(text) > 20 or text.removeprefix(start.get(line, b"")).strip()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_LINE_BYTES", 20)
        assert [row.line for row in source.rows()] == expected
        checked = source.check()
    assert checked.rows + checked.bad_count == len(expected)


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.jsonl.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_what_begins_as_utf_16_is_to_be_saved_as_utf_8(tmp_path: Path, name: str, encoding: str) -> None:
    data = 'prompt\nHi\n"there"\n'.encode(encoding)
    source = source_of(tmp_path, gzip.compress(data) if name.endswith("gz") else data, name)
    for check in (source.check, lambda: list(source.rows())):
        with pytest.raises(BatchError, match=r"is UTF-16, which cannot be read: save it as UTF-8\.$"):
            check()


# What cannot be read twice.


def _redirect(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    data = gzip.compress(LINES) if packed else LINES
    _redirect(monkeypatch, data)
    source = open_source("-", spool_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert source.digest() == (hashlib.sha256(data).hexdigest(), len(data))
    first, second = source.rows(check=True), source.rows(check=True)
    assert next(first) == next(second)
    assert prompts_of(first) == prompts_of(second) == ROWS[1:]
    assert source.check().bad_count == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"prompt\nHi\n",))
    writer.start()
    source = open_source(path, spool_folder=tmp_path)
    writer.join()
    assert prompts_of(source.rows()) == prompts_of(source.rows()) == [(2, "Hi")]


def test_standard_input_of_a_process() -> None:
    code = (
        "from rusty_agent.batch.source import open_source; s = open_source('-'); print(s.check().rows, s.check().rows)"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], input=LINES, capture_output=True, check=True)
    assert (ran.stdout.split(), ran.stderr) == ([b"3", b"3"], b"")


@pytest.mark.skipif(os.name == "nt", reason="pipes cannot be waited for")
def test_standard_input_that_is_not_blocking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    with os.fdopen(ours, "rb") as stdin, os.fdopen(theirs, "wb", 0) as writing:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))

        def write_late() -> None:
            writing.write(LINES[7:])
            writing.close()

        writing.write(LINES[:7])
        late = threading.Timer(0.1, write_late)
        late.start()
        source = open_source("-", spool_folder=tmp_path)
        late.join()
    assert prompts_of(source.rows(check=True)) == ROWS


def test_standard_input_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(BatchError, match="standard input is closed"):
            open_source("-")


def test_no_room_for_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _redirect(monkeypatch, LINES)
    with pytest.raises(
        BatchError, match=r"standard input cannot be copied to .*: No such file or directory\. Check the .* Or save"
    ):
        open_source("-", spool_folder=tmp_path / "missing")


def test_an_interrupted_copy_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(closed=False, read1=interrupt, fileno=interrupt))
    )
    with pytest.raises(KeyboardInterrupt):  # a file left open would be a ResourceWarning, which is an error
        open_source("-", spool_folder=tmp_path)


# The look at the whole.


def test_the_digest_is_of_the_bytes_as_they_are(tmp_path: Path) -> None:
    data = gzip.compress(os.urandom(2**20))
    assert source_of(tmp_path, data).digest() == (hashlib.sha256(data).hexdigest(), len(data))


def test_memory(tmp_path: Path, untraced: None) -> None:
    count = 15_000
    lines = b"".join(b'{"custom_id":"row-%08d","prompt":"%s"}\n' % (i, b"x" * 200) for i in range(count))
    source = source_of(tmp_path, lines)
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.rows()) == count
        reading = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert source.check().rows == count
        after, checking = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reading < 2**20
    assert checking < 2**20 + 150 * count
    assert after < 2**18


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.jsonl", '"Hi"\n' * 5000),
        ("in.jsonl", '"Hi"\n\n' * 5000),  # no row stands in line 1000, 2000 …
        ("in.csv", "prompt\n" + '"1\n2\n3\n4"\n' * 5000),  # nor does a record begin there
    ],
)
def test_reading_ends_soon_when_it_is_given_up(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    rows = open_source(path, given_up=lambda: True).rows()
    with pytest.raises(BatchError, match=r"in\.(jsonl|csv) was given up before its end"):
        list(islice(rows, 1000))


@pytest.mark.parametrize("how", ["written over", "replaced"])
def test_no_row_is_made_of_what_was_not_digested(tmp_path: Path, how: str) -> None:
    long = b'"%s"\n' % (b"x" * 1000)
    source = source_of(tmp_path, long * 900)
    source.digest()
    rows = source.rows()
    seen = len(list(islice(rows, 500 if how == "written over" else 0)))
    other = tmp_path / ("in.jsonl" if how == "written over" else "other")
    with other.open("r+b" if other.exists() else "wb") as file:
        file.write(long.replace(b"x", b"y") * 901)
    other.replace(tmp_path / "in.jsonl")
    with pytest.raises(BatchError, match=r"in\.jsonl changed while it was being read"):
        for row in rows:
            assert isinstance(row, Row)
            assert row.parameters["prompt"][0] == "x"
            seen += 1
    assert (seen > 500) is (how == "written over")


def test_so_does_the_digest_of_a_file(tmp_path: Path) -> None:
    source = source_of(tmp_path, b'"Hi"\n', given_up=lambda: True)
    with pytest.raises(BatchError, match=r"in\.jsonl was given up before its end"):
        source.digest()


def test_so_does_whatever_reads_a_list() -> None:
    source = ListSource(["Hi"] * 1000, None, given_up=lambda: True)
    with pytest.raises(BatchError, match="the list of rows was given up before its end"):
        source.digest()
    assert len(list(islice(source.rows(), 999))) == 999
    with pytest.raises(BatchError, match="the list of rows was given up before its end"):
        source.check()
