"""What a display says, where it says it, and that nothing about it can end or hold up a run."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import select
import struct
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from unicodedata import east_asian_width

import attrs
import pytest

from rusty_agent.progress import show
from rusty_agent.progress.price import Price
from rusty_agent.progress.show import Display, say
from rusty_agent.progress.tally import Progress, Tally
from rusty_agent.types import Usage
from tests.simulation import virtual

Mode = Literal["auto", "plain", "json", "off"]


def test_a_word_goes_below_what_is_drawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for in_place, written in ((True, "\nhear\n"), (False, "hear\n")):
        stderr = io.StringIO()
        monkeypatch.setattr(stderr, "isatty", lambda in_place=in_place: in_place)
        monkeypatch.setattr(sys, "stderr", stderr)
        say("hear")
        assert stderr.getvalue() == written


# -- on a terminal


class Terminal:
    """A terminal 60 columns wide."""

    def __init__(self) -> None:
        pytest.importorskip("termios")
        self._master, self.slave = os.openpty()
        self.resize(60)
        self.stream = os.fdopen(self.slave, "w", encoding="utf-8")

    def resize(self, columns: int) -> None:
        fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def display(self, tally: Tally) -> Display:
        """A display of a run that has this terminal for its standard error."""
        with contextlib.redirect_stderr(self.stream):
            return Display(True, tally)

    def said(self) -> str:
        """What it was told, to the newline that must be its end."""
        text = ""
        while not text.endswith("\n") and select.select([self._master], [], [], 2)[0]:  # a terminal takes its time
            text += os.read(self._master, 2**16).decode()
        return text

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture(params=["tqdm", "own"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tqdm":
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(show, "_REDRAW_SECONDS", 0.02)
    return str(request.param)


def rows(tally: Tally, number: int) -> None:
    for _ in range(number):
        tally.succeeded(latency=0.5, ttft=None, usage=Usage(100, 50), attempts=1)


async def test_a_terminal_is_written_in_place_and_left_clean(
    terminal: Terminal, both: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(total=100, price=Price(1000, 1000))
    async with terminal.display(tally):
        for _ in range(4):
            rows(tally, 10)
            await asyncio.sleep(0.05)
    said = terminal.said()
    assert said.endswith("\r\n")
    assert said.count("\n") == 1
    drawn = said.rstrip().split("\r")
    assert len(drawn) >= 4
    assert all(len(text) < 60 for text in drawn[:-1])  # cut to the terminal's width
    assert "10/100 done" in said
    assert "40/100 done, " in drawn[-1]
    assert "$6.00 of ~$15.00" in drawn[-1]  # the last line is whole
    assert ("40%|" in drawn[-1]) == (both == "tqdm")
    assert capsys.readouterr().out == ""


async def test_words_of_wide_characters_do_not_break_the_line(
    terminal: Terminal, both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is wider than the terminal goes on in the next one, and is not overwritten."""
    monkeypatch.setattr("rusty_agent.progress.tally._STILL_SECONDS", 0.0)
    tally = Tally(total=100, reason=lambda: "请求过于频繁" * 8)
    async with terminal.display(tally):
        await asyncio.sleep(0.1)
    drawn = [text for text in terminal.said().split("\r") if "频" in text]
    assert drawn
    assert all(sum(1 + (east_asian_width(each) == "W") for each in text) < 60 for text in drawn)
    assert "nothing" not in terminal.said().rstrip().split("\r")[-1]


async def test_a_dumb_terminal_gets_lines(terminal: Terminal, both: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot go back to the beginning of a line, be it in an editor's window."""
    monkeypatch.setenv("TERM", "dumb")
    tally = Tally(total=100)
    async with terminal.display(tally):
        rows(tally, 10)
    assert terminal.said().replace("\r\n", "\n").count("\r") == 0


async def test_a_terminal_is_redrawn_only_if_something_changed(terminal: Terminal, both: str) -> None:
    async with terminal.display(Tally(total=100)):
        await asyncio.sleep(0.2)
    assert terminal.said().count("0/100 done") == 2  # the first time and the last


async def test_the_narrowest_terminal(terminal: Terminal, both: str) -> None:
    terminal.resize(1)
    tally = Tally(total=100)
    rows(tally, 50)
    async with terminal.display(tally):
        await asyncio.sleep(0.05)
    drawn = terminal.said().rstrip().split("\r")
    assert len(drawn) > 1
    assert max(map(len, drawn[:-1])) <= 1


async def test_what_a_longer_line_left_is_wiped_out(terminal: Terminal, both: str) -> None:
    flying = 1_000_000
    tally = Tally(gauges=lambda: (flying, None, 0))
    async with terminal.display(tally):
        await asyncio.sleep(0.05)
        flying = 1
        await asyncio.sleep(0.05)
    last = terminal.said().rstrip("\r\n").split("\r")
    assert "0 done, 1 in flight" + " " * 8 in "".join(last)


async def test_a_terminal_that_becomes_narrow_is_not_filled_beyond_its_width(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)  # which fills it once
    monkeypatch.setattr(show, "_REDRAW_SECONDS", 0.02)
    flying = 1_000_000
    tally = Tally(gauges=lambda: (flying, None, 0))
    async with terminal.display(tally):
        await asyncio.sleep(0.05)
        terminal.resize(20)
        flying = 1
        await asyncio.sleep(0.05)
    drawn = terminal.said().rstrip("\r\n").split("\r")
    assert max(len(text) for text in drawn if "1 in flight" in text) < 20


async def test_a_bar_is_drawn_with_what_the_terminal_can_show(terminal: Terminal, both: str) -> None:
    terminal.stream.reconfigure(encoding="ascii")
    tally = Tally(total=10)
    rows(tally, 5)
    async with terminal.display(tally):
        await asyncio.sleep(0.05)
    assert (" 50%|#####     | 5/10 done" in terminal.said()) == (both == "tqdm")


@pytest.mark.parametrize("error", [RuntimeError("the run failed"), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_a_terminal_is_left_clean_after_a_failure_too(
    terminal: Terminal, both: str, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        async with terminal.display(Tally(total=5)):
            await asyncio.sleep(0.05)
            raise error
    assert terminal.said().endswith("0/5 done\r\n")


async def test_a_terminal_is_left_clean_when_everything_is_cancelled(terminal: Terminal, both: str) -> None:
    async def run() -> None:
        async with terminal.display(Tally(total=5)):
            await asyncio.sleep(10)

    task = asyncio.create_task(run())
    await asyncio.sleep(0.05)
    for each in asyncio.all_tasks() - {asyncio.current_task()}:  # as asyncio.run does at its end
        each.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert terminal.said().endswith("0/5 done\r\n")


async def test_a_stopped_terminal_does_not_hold_up_the_run(terminal: Terminal, both: str) -> None:
    termios: Any = pytest.importorskip("termios")
    termios.tcflow(terminal.slave, termios.TCOOFF)  # as by Ctrl-S
    tally = Tally(total=100)
    began = time.perf_counter()
    async with terminal.display(tally):
        for _ in range(4):
            rows(tally, 1)
            await asyncio.sleep(0.03)
    assert time.perf_counter() - began < 10
    termios.tcflow(terminal.slave, termios.TCOON)


async def test_a_total_that_is_not_known_needs_no_percentage(terminal: Terminal, both: str) -> None:
    tally = Tally()
    async with terminal.display(tally):
        rows(tally, 3)
        await asyncio.sleep(0.05)
    said = terminal.said()
    assert "3 done" in said
    assert "%" not in said


# -- elsewhere


@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_a_log_gets_lines(mode: Mode, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        tally = Tally(total=4)
        async with Display(mode, tally):
            rows(tally, 2)
            await asyncio.sleep(25)
            rows(tally, 2)

    virtual.run(main())
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 3
    assert lines[0].startswith("2/4 done, ")
    assert lines[-1].startswith("4/4 done, ")


async def test_a_short_run_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with Display(True, Tally(total=0)):
        pass
    assert capsys.readouterr().err == "0/0 done\n"


def test_a_program_gets_json(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        tally = Tally(total=4)
        async with Display("json", tally):
            await asyncio.sleep(2.5)
            rows(tally, 4)

    virtual.run(main())
    out, err = capsys.readouterr()
    objects = [json.loads(text) for text in err.splitlines()]
    assert out == ""
    assert all(list(each) == [field.name for field in attrs.fields(Progress)] for each in objects)
    assert [each["done"] for each in objects] == [0, 0, 4]


@pytest.mark.parametrize("mode", ["off", False])
async def test_off_says_nothing_and_samples_all_the_same(
    mode: Literal["off", False], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "SAMPLE_SECONDS", 0.02)
    now = 0.0
    tally = Tally(clock=lambda: now)
    async with Display(mode, tally):
        for _ in range(3):
            now += 1
            await asyncio.sleep(0.05)
    assert [sample.elapsed for sample in tally.series] == [0, 1, 2, 3, 3]
    assert capsys.readouterr() == ("", "")


# -- an error stream that fails


class Failing(io.StringIO):
    """A stand-in of somebody's, which fails as they do."""

    def write(self, text: str) -> int:
        raise RuntimeError("not today")


@pytest.mark.parametrize("mode", ["auto", "plain", "json"])
@pytest.mark.parametrize("stream", ["none", "closed", "failing", "bare", "pretending"])
async def test_a_broken_error_stream_ends_the_display_and_not_the_run(
    mode: Mode, stream: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = (tmp_path / "closed").open("w")
    closed.close()
    streams: dict[str, Any] = {"none": None, "closed": closed, "failing": Failing(), "bare": object()}
    streams["pretending"] = types.SimpleNamespace(isatty=lambda: True, write=len)
    monkeypatch.setattr(sys, "stderr", streams[stream])
    for name in ("_LINE_SECONDS", "_REPORT_SECONDS", "_REDRAW_SECONDS"):
        monkeypatch.setattr(show, name, 0.01)
    tally = Tally(total=1)
    async with Display(mode, tally):
        await asyncio.sleep(0.03)
        rows(tally, 1)
    assert tally.snapshot().done == 1


async def test_a_terminal_that_is_closed_ends_the_display(terminal: Terminal, both: str) -> None:
    tally = Tally(total=100)
    async with terminal.display(tally):
        await asyncio.sleep(0.04)
        terminal.stream.close()
        rows(tally, 1)
        await asyncio.sleep(0.04)


CHILD = """
import asyncio
from rusty_agent.progress import show
from rusty_agent.progress.tally import Tally
show._LINE_SECONDS = 0.01
async def main():
    tally = Tally(total=100)
    async with show.Display("plain", tally):
        for _ in range(5):
            tally.succeeded(latency=1, ttft=None, usage=None, attempts=1)
            await asyncio.sleep(0.02)
asyncio.run(main())
print("the end")
"""


def test_nobody_reads_the_error_stream_and_the_program_ends_well() -> None:
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=write, timeout=30, check=False)
    os.close(write)
    assert (child.returncode, child.stdout.split()) == (0, [b"the", b"end"])


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe cannot be asked there whether it is full")
async def test_a_full_pipe_does_not_hold_up_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_REPORT_SECONDS", 0.01)
    read, write = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "w") as stream:
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(write, True)
        monkeypatch.setattr(sys, "stderr", stream)
        began = time.perf_counter()
        async with Display("json", Tally()):
            await asyncio.sleep(0.1)
        assert time.perf_counter() - began < 10


# -- a function


def test_a_function_is_called_now_and_then_and_at_the_end() -> None:
    told: list[Progress] = []

    async def main() -> None:
        tally = Tally(total=2)
        async with Display(told.append, tally):
            rows(tally, 1)
            await asyncio.sleep(2.5)
            rows(tally, 1)

    virtual.run(main())
    assert [each.done for each in told] == [1, 1, 2]


def refuse(progress: Progress) -> None:
    raise LookupError("enough")


async def test_what_a_function_raises_is_found_before_the_end_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_REPORT_SECONDS", 0.02)
    told: list[Progress] = []

    def refuse_once(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 1:
            raise LookupError("enough")

    heard = asyncio.Event()
    with pytest.raises(LookupError, match="enough"):
        async with Display(refuse_once, Tally(), on_error=heard.set):
            assert not heard.is_set()
            await asyncio.wait_for(heard.wait(), 5)
            await asyncio.sleep(0.05)
    assert len(told) == 1  # it has said what it had to say


async def test_what_a_function_raises_at_the_end_is_raised() -> None:
    with pytest.raises(LookupError, match="enough"):
        async with Display(refuse, Tally()):
            pass


async def test_what_a_function_raises_does_not_hide_why_the_run_failed() -> None:
    with pytest.raises(RuntimeError, match="the run failed"):
        async with Display(refuse, Tally()):
            raise RuntimeError("the run failed")


async def coroutine_function(progress: Progress) -> None: ...


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        ("rich", "progress must be True, False, 'auto', 'plain', 'json', 'off' or a function, not 'rich'"),
        (None, "not None"),
        (["auto"], r"not \['auto'\]"),
        (2, "not 2"),
        (coroutine_function, "progress must be a plain function"),
    ],
)
def test_what_cannot_be_shown_to_is_refused(progress: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Display(progress, Tally())
