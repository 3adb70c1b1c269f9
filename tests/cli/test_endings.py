"""Ctrl-C, readers that leave, terminals: how the program ends, and that the server sees it end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rusty_agent.testing import Answer, FaultServer, Hang, answer, events, stream

from ..processes import Ended, finish
from .process import KEY, PROGRAM, run, start

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals, shells and terminals are POSIX ones here")

SSE = "text/event-stream"
FULL = "error: standard output cannot be written: No space left on device. Free some space there.\n"
FIRST_THEN_SILENCE = answer([*events("first")[:2], Hang()], content_type=SSE, framing="cut")
ENDLESS = answer([*events("line\n")[:1], *events("line\n")[1:2] * 100_000], content_type=SSE, framing="cut")


def interrupt(child: subprocess.Popen[bytes]) -> Ended:
    child.send_signal(signal.SIGINT)
    return finish(child)


@pytest.mark.parametrize("options", [[], ["--no-stream"], ["--debug"]])
def test_interrupt_before_the_first_token(server: FaultServer, options: list[str]) -> None:
    server.answer(Answer((Hang(),)))
    child = start("--base-url", server.url, *options, "hi")
    [request] = server.wait_for(1, 40)
    assert interrupt(child) == (130, "", "")
    assert request.gone.wait(5)


@pytest.mark.usefixtures("unmeasured")
def test_interrupt_mid_stream(server: FaultServer) -> None:
    server.answer(FIRST_THEN_SILENCE)
    child = start("--base-url", server.url, "--usage", "hi")
    assert child.stdout is not None
    assert os.read(child.stdout.fileno(), 100) == b"first"
    time.sleep(0.2)  # it has left the write, and waits for the next piece
    assert interrupt(child) == (130, "\n", "")
    assert server.requests[0].gone.wait(5)


@pytest.mark.usefixtures("unmeasured")
def test_interrupt_while_the_reader_of_stdout_sleeps(server: FaultServer) -> None:
    server.answer(ENDLESS)
    child = start("--base-url", server.url, "hi")
    [request] = server.wait_for(1, 40)
    time.sleep(0.5)  # the pipe is full now, and the program stuck in a write
    child.send_signal(signal.SIGINT)
    assert child.wait(40) == 130
    assert request.gone.wait(5)
    assert finish(child).err == ""


@pytest.mark.parametrize("moment", ["reading its input", "importing"])
@pytest.mark.usefixtures("unmeasured")
def test_interrupt_before_the_request(tmp_path: Path, moment: str) -> None:
    strike = "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"
    script = tmp_path / "struck.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "from rusty_agent.cli import main\n"
        "class Input:\n"
        "    buffer = property(lambda self: self)\n"
        "    isatty = lambda self: False\n"
        f"    def read(self): {strike}\n"
        "class Importer:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == 'aiohttp': {strike}\n"
        f"{'sys.stdin = Input()' if 'input' in moment else 'sys.meta_path.insert(0, Importer())'}\n"
        "sys.exit(main())\n"
    )
    assert run(program=(sys.executable, str(script))) == (130, "", "")


def test_interrupts_that_are_ignored_stay_ignored(server: FaultServer) -> None:
    """As in the background of a shell script."""
    server.answer(stream("Hello", gap=0.15))
    shell = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", *PROGRAM)
    child = start("--base-url", server.url, "hi", program=shell)
    server.wait_for(1, 40)
    child.send_signal(signal.SIGINT)
    assert finish(child) == (0, "Hello\n", "")


def test_the_reader_leaves(server: FaultServer) -> None:
    server.answer(ENDLESS)
    child = start("--base-url", server.url, "hi")
    assert child.stdout is not None
    assert os.read(child.stdout.fileno(), 4) == b"line"
    child.stdout.close()
    assert child.wait(40) == 141
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    assert server.requests[0].gone.wait(5)


@pytest.mark.usefixtures("unmeasured")
def test_a_slow_reader_behind_a_pipe_that_is_not_blocking(server: FaultServer) -> None:
    """A parent may have left it so; Python's text streams lose what such a pipe does not take at once."""
    text = "".join(f"line {number}\n" for number in range(20_000))
    server.answer(stream(*text.splitlines(keepends=True)))
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with os.fdopen(ours, "rb") as reading:
        with os.fdopen(theirs, "wb") as stdout:
            child = start("--base-url", server.url, "hi", stdout=stdout)
        server.wait_for(1, 40)
        time.sleep(0.5)  # the pipe is full now
        assert reading.read().decode() == text
    assert finish(child) == (0, "", "")


@pytest.mark.usefixtures("unmeasured")
def test_head(server: FaultServer) -> None:
    server.answer(ENDLESS)
    shell = ("sh", "-c", '"$@" | head -n 2', "sh", *PROGRAM)
    assert run("--base-url", server.url, "hi", program=shell) == (0, "line\nline\n", "")
    assert server.requests[0].gone.wait(5)


def test_nobody_reads_the_help() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        assert run("--help", stdout=stdout).err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.usefixtures("unmeasured")
def test_a_full_disk(server: FaultServer) -> None:
    with open("/dev/full", "wb") as full:
        ended = run("--base-url", server.url, "hi", stdout=full)
    assert ended == (1, "", f"rusty-agent: {FULL}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["batch", "--help"], ["batch", "{rows}", "--dry-run"]])
@pytest.mark.parametrize("env", [KEY, {**KEY, "PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_full_disk_for_what_is_no_answer(tmp_path: Path, words: list[str], env: dict[str, str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('"hi"\n')
    output = ["-o", str(tmp_path / "out.jsonl")] if "--dry-run" in words else []
    with open("/dev/full", "wb") as full:
        ended = run(*(word.format(rows=rows) for word in words), *output, stdout=full, env=env)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert ended.err.endswith(FULL)


def test_closed_standard_output_and_error(server: FaultServer) -> None:
    closed = ("sh", "-c", '"$@" >&-', "sh", *PROGRAM)
    ended = run("--base-url", server.url, "hi", program=closed)
    assert ended == (1, "", "rusty-agent: error: standard output is closed\n")
    assert not server.requests
    server.answer(answer(b"", status=500))
    silent = ("sh", "-c", '"$@" 2>&-', "sh", *PROGRAM)
    assert run("--base-url", server.url, "--usage", "--debug", "hi", program=silent) == (1, "", "")


def shown(terminal: int, end: bytes) -> bytes:
    """What a terminal was told up to this end: it takes its time."""
    told = b""
    while not told.endswith(end):
        told += os.read(terminal, 1000)
    return told


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.mark.usefixtures("unmeasured")
def test_a_model_cannot_steer_the_terminal(server: FaultServer, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    server.answer(stream("a\tb\x1b]0;title\x07", "c\r\x9b2J\x7f", "d\u00e9\r", "\ne\r\n"))
    ended = run("--base-url", server.url, "hi", stdin=theirs, stdout=theirs)
    assert (ended.code, ended.err) == (0, "")
    assert shown(ours, b"e\r\n").decode() == "a\tb\\x1b]0;title\\x07c\\x9b2J\\x7fd\u00e9\r\ne\r\n"


@pytest.mark.usefixtures("unmeasured")
def test_interrupt_at_a_terminal_ends_the_line(server: FaultServer, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    server.answer(Answer((Hang(),)))
    child = start("--base-url", server.url, "hi", stdin=theirs, stdout=theirs)
    server.wait_for(1, 40)
    ended = interrupt(child)
    assert (ended.code, ended.err) == (130, "")
    assert shown(ours, b"\n") == b"\r\n"


@pytest.mark.usefixtures("unmeasured")
def test_no_prompt_at_a_terminal(terminal: tuple[int, int]) -> None:
    _, theirs = terminal
    for env in ({}, KEY):
        ended = run(stdin=theirs, env=env)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert ended.err.startswith("rusty-agent: error: no prompt: ")
