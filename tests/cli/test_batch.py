"""`rusty-agent batch`: options, exit codes, signals, full disks; each command is the real program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rusty_agent.testing import Answer, FaultServer, Hang, answer, completion, error
from rusty_agent.wire.codec import dumps
from tests.batch.runs import asked, by_prompt, ids, read, said, simple, write_rows

from ..events import held
from ..processes import Ended, finish
from .process import KEY, PROGRAM, environment, run, start

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits are POSIX ones here")


class Command:
    """A batch's command line in a folder."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.input = folder / "in.jsonl"
        self.output = folder / "out.jsonl"
        self.errors = folder / "out.errors.jsonl"
        self.arguments = ["batch", str(self.input), "-o", str(self.output), "--base-url", server.url]
        self.arguments += ["--max-retries", "0", "--concurrency", "4"]

    def run(self, *more: str, **options: Any) -> Ended:
        return run(*self.arguments, *more, **options)

    def start(self, *more: str, **options: Any) -> subprocess.Popen[bytes]:
        return start(*self.arguments, *more, **options)


@pytest.fixture
def command(tmp_path: Path, server: FaultServer) -> Command:
    write_rows(tmp_path / "in.jsonl", simple(20))
    return Command(tmp_path, server)


def test_exit_0_when_all_is_answered_and_again_when_nothing_is_left(command: Command, server: FaultServer) -> None:
    ended = command.run("--progress", "off")
    assert ended == (0, "", "rusty-agent batch: 20 answered\n")
    ended = command.run("--progress", "plain")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "20/20 done (20 earlier)\nrusty-agent batch: 0 answered, 20 were answered earlier\n"
    assert len(server.requests) == 20


def test_an_input_without_rows_is_told(command: Command, server: FaultServer) -> None:
    command.input.write_text("\n")
    ended = command.run("--progress", "off")
    assert ended == (0, "", "rusty-agent batch: the input has no rows, so nothing was sent\n")


@pytest.mark.parametrize("text", ["Hi there\nHello\n", '[\n  {"prompt": "Hi"}\n]\n'])
def test_an_input_of_another_form_is_told_how_to_become_lines(command: Command, text: str) -> None:
    command.input.write_text(text)
    assert "\n  To make such lines, use `jq -R .` on plain text, or `jq -c '.[]'` on an array.\n" in command.run().err
    command.input.write_text('"Hi"\n' + text)  # where other lines are right, this one is only damaged
    assert "jq" not in command.run().err


@pytest.mark.usefixtures("unmeasured")
def test_exit_1_on_bad_lines_which_are_listed(command: Command, server: FaultServer) -> None:
    write_rows(command.input, ["a", 7, {"prompt": "x\x1b[2J", "stop": 3}])
    ended = command.run()
    assert (ended.code, ended.out) == (1, "")
    first, second, third, last = ended.err.splitlines()
    assert first == "rusty-agent batch: error: 2 lines of the input are not requests; nothing was sent."
    assert second.startswith("  line 2: a line must hold an object")
    assert third.startswith("  line 3: stop must be")
    assert last.startswith("  Correct them")
    assert not server.requests
    ended = command.run("--on-bad-line", "skip", "--progress", "off")
    assert ended.code == 2
    assert ended.err == f"rusty-agent batch: 1 answered, 2 bad lines left out; see {command.errors}\n"


def test_an_input_of_nothing_but_bad_lines_is_not_called_empty(command: Command, server: FaultServer) -> None:
    write_rows(command.input, [7])
    ended = command.run("--on-bad-line", "skip", "--progress", "off")
    said = f"rusty-agent batch: 0 answered, 1 bad line left out; see {command.errors}\n"
    assert (ended, server.requests) == ((2, "", said), [])


def test_exit_2_when_rows_failed(command: Command, server: FaultServer) -> None:
    server.answer(by_prompt({"r3": error(400), "r5": error(500)}))
    ended = command.run("--progress", "off")
    assert ended == (
        2,
        "",
        f"rusty-agent batch: 18 answered, 2 failed (most: BadRequestError 400); see {command.errors}. "
        "The last one: HTTP 400: scripted.\n",
    )
    server.answer(said())
    ended = command.run("--progress", "off")
    assert ended.code == 2
    assert "1 answered, 1 failed for good earlier (--retry-permanent retries it), 18 were answered" in ended.err
    assert command.run("--retry-permanent", "--progress", "off").code == 0
    assert command.run("--limit", "1", "--progress", "off").err.endswith(" 0 answered, 1 was answered earlier\n")


@pytest.mark.parametrize(
    ("options", "script", "says"),
    [
        (["--price", "0,100000", "--budget-usd", "3"], said(), "will use up the budget of $3.00."),
        (["--max-error-rate", "0"], error(500), "100% of the latest"),
        (["--max-failures", "1"], error(500), "more than 1 failed"),
        ([], error(401), "the endpoint refuses the key"),
    ],
)
def test_exit_3_when_the_run_was_stopped(
    command: Command, server: FaultServer, options: list[str], script: Answer, says: str
) -> None:
    write_rows(command.input, simple(60))
    server.answer(script)
    ended = command.run(*options, "--progress", "off")
    assert ended.code == 3
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert len(server.requests) < 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "seed=3"], "the output is named twice"),
        (["-o", "-"], "named twice"),
        (["more.jsonl"], "expected one INPUT, not 2"),
    ],
)
def test_another_file_is_refused(command: Command, options: list[str], said: str) -> None:
    ended = command.run(*options)
    assert ended.code == 1
    assert said in ended.err


@pytest.mark.parametrize(("output", "said"), [("-", "must be a file"), ("a.jsonl.gz", "cannot be compressed")])
def test_an_output_that_cannot_be_appended_to(command: Command, output: str, said: str) -> None:
    command.arguments[command.arguments.index("-o") + 1] = output
    ended = command.run()
    assert ended.code == 1
    assert said in ended.err


@pytest.mark.usefixtures("unmeasured")
def test_a_run_with_nothing_to_do_leaves_the_report_as_it_is(command: Command) -> None:
    report = command.output.with_name("report.html")
    assert command.run("--report", str(report)).code == 0
    before = report.read_bytes(), command.output.with_name("out.summary.json").read_bytes()
    assert command.run("--report", str(report)).code == 0
    assert (report.read_bytes(), command.output.with_name("out.summary.json").read_bytes()) == before


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exit_130_a_signal_lets_what_is_under_way_end(
    command: Command, server: FaultServer, number: signal.Signals
) -> None:
    struck = threading.Event()
    server.answer(held(said(), struck.is_set))
    child = command.start("--progress", "off")
    server.wait_for(4, 40)
    child.send_signal(number)
    assert child.stderr is not None
    told = child.stderr.readline()
    struck.set()
    ended = finish(child)
    assert told == b"interrupted: waiting for 4 rows under way, at most 30 s; interrupt again to stop at once\n"
    assert ended == (
        130,
        "",
        "rusty-agent batch: 4 answered. Interrupted: the same command continues from here.\n",
    )
    assert (len(server.requests), len(ids(command.output))) == (4, 4)
    server.answer(said())
    assert command.run("--progress", "off").err == "rusty-agent batch: 16 answered, 4 were answered earlier\n"
    assert sorted(ids(command.output)) == sorted(f"r{n}" for n in range(20))


@posix
@pytest.mark.usefixtures("unmeasured")
def test_an_interrupt_says_nothing_between_lines_of_json(command: Command, server: FaultServer, tmp_path: Path) -> None:
    struck, script = tmp_path / "struck", tmp_path / "telling.py"
    script.write_text(
        "import pathlib, sys\n"
        "from rusty_agent.batch.job import Job\n"
        "from rusty_agent.cli import main\n"
        "interrupt = Job.interrupt\n"
        f"Job.interrupt = lambda job: (interrupt(job), pathlib.Path({str(struck)!r}).touch())\n"
        "sys.exit(main())\n"
    )
    server.answer(held(said(), struck.exists))
    child = command.start("--progress", "json", program=(sys.executable, str(script)))
    server.wait_for(4, 40)
    child.send_signal(signal.SIGTERM)
    ended = finish(child)
    *shown, last = ended.err.splitlines()
    assert (ended.code, last) == (
        130,
        "rusty-agent batch: 4 answered. Interrupted: the same command continues from here.",
    )
    assert all(json.loads(line) for line in shown)


@posix
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("words", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.usefixtures("unmeasured")
def test_exit_130_a_signal_ends_the_check_at_once(
    command: Command, tmp_path: Path, number: str, words: list[str]
) -> None:
    script = tmp_path / "struck.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "from rusty_agent.batch.source import FileSource\n"
        "from rusty_agent.cli import main\n"
        "def check(*_, **__):\n"
        f"    os.kill(os.getpid(), signal.{number})\n"
        "    time.sleep(5)\n"
        "FileSource.check = check\n"
        "sys.exit(main())\n"
    )
    said = "rusty-agent batch: interrupted while nothing was under way; run the same command again\n"
    assert command.run(*words, program=(sys.executable, str(script))) == (130, "", said)
    assert command.run("--progress", "off").code == 0


@posix
@pytest.mark.usefixtures("unmeasured")
def test_a_second_signal_waits_for_nothing(command: Command, server: FaultServer) -> None:
    hang = Answer((Hang(),))
    server.answer(by_prompt({f"r{number}": hang for number in range(2, 20)}))
    child = command.start("--progress", "off")
    server.wait_for(6, 40)
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    assert child.stderr.readline().startswith(b"interrupted: waiting for 4 rows")
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    ended = finish(child)
    assert ended.code == 130
    assert time.monotonic() - began < 25  # what is under way would have 30
    assert sorted(ids(command.output)) == ["r0", "r1"]
    assert len(server.requests) == 6
    server.answer(said())
    assert command.run("--progress", "off").code == 0
    assert len(server.requests) == 6 + 18


@posix
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.usefixtures("unmeasured")
def test_no_signal_takes_the_exit_code_of_a_batch_that_is_over(command: Command, tmp_path: Path, number: str) -> None:
    script = tmp_path / "ending.py"
    script.write_text(
        "import atexit, os, signal, sys\n"
        "from rusty_agent.cli import main\n"
        f"atexit.register(os.kill, os.getpid(), signal.{number})\n"
        "sys.exit(main())\n"
    )
    ended = command.run("--progress", "off", program=(sys.executable, str(script)))
    assert ended == (0, "", "rusty-agent batch: 20 answered\n")


@posix
def test_a_signal_that_is_ignored_stays_ignored(command: Command, server: FaultServer) -> None:
    struck = threading.Event()
    server.answer(held(said(), struck.is_set))
    shell = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", *PROGRAM)
    child = command.start("--progress", "off", program=shell)
    server.wait_for(1, 40)
    child.send_signal(signal.SIGINT)
    struck.set()
    assert finish(child) == (0, "", "rusty-agent batch: 20 answered\n")


@posix
@pytest.mark.usefixtures("unmeasured")
def test_a_second_process_is_told_of_the_first(command: Command, server: FaultServer) -> None:
    server.answer(Answer((Hang(),)))
    child = command.start("--progress", "off")
    server.wait_for(1, 40)
    ended = command.run()
    assert ended.code == 1
    assert f"Another batch is writing here: process {child.pid} holds" in ended.err
    child.kill()
    finish(child)


@pytest.mark.usefixtures("unmeasured")
def test_standard_input_goes_on_too(command: Command, server: FaultServer) -> None:
    command.arguments[1] = "-"
    lines = b"".join(dumps(row) + b"\n" for row in simple(5))
    server.answer(by_prompt({"r1": error(500)}))
    assert command.run("--progress", "off", sent=lines).code == 2
    server.answer(said())
    assert command.run("--progress", "off", sent=lines) == (
        0,
        "",
        "rusty-agent batch: 1 answered, 4 were answered earlier\n",
    )
    assert "the input changed" in command.run(sent=lines + b'"more"\n').err


@pytest.mark.usefixtures("unmeasured")
def test_a_table_with_a_template(command: Command, server: FaultServer) -> None:
    command.input = command.input.with_suffix(".csv")
    command.input.write_text("word\nsea\nsky\n")
    command.arguments[1] = str(command.input)
    assert command.run("--template", "Translate {word}", "--progress", "off", "--sort").code == 0
    assert asked(server) == ["Translate sea", "Translate sky"]
    assert [line["x_rusty"]["line"] for line in read(command.output)] == [2, 3]


def test_a_dry_run_sends_and_writes_nothing(command: Command, server: FaultServer) -> None:
    write_rows(command.input, [{"prompt": "x" * 4000, "max_tokens": 10}, {"prompt": "y" * 4000}])
    ended = command.run("--dry-run", "--price", "1000,2000", "--max-tokens", "20")
    assert ended == (
        0,
        "rows: 2\nbad lines: 0\nprompt tokens: about 2,000 (one token per four characters)\n"
        "answer tokens: at most 30\ncost: $2.00 for the prompts, $2.06 at most with the answers\n",
        "",
    )
    assert "cost: $0.0020 for the prompts" in command.run("--dry-run", "--price", "1,1").out
    write_rows(command.input, [{"prompt": "a"}, {"prompt": "b", "extra_body": {"n": 2}}])
    ended = command.run("--dry-run", "--system", "s" * 4000, "--option", "max_completion_tokens=50")
    assert "prompt tokens: about 2,000 " in ended.out
    assert "answer tokens: at most 150\n" in ended.out
    write_rows(command.input, [{"prompt": "a"}, 7])
    ended = command.run("--dry-run", "--price", "1,1")
    assert ended.code == 1
    assert "answer tokens: those of 1 row without max_tokens\n" in ended.out
    assert ended.out.endswith(" for the prompts, plus the answers of rows without max_tokens\n")
    said = "rusty-agent batch: error: 1 line of the input is not a request; nothing was sent.\n  line 2: "
    assert ended.err.startswith(said)
    assert ended.err.endswith("or skip them with --on-bad-line skip.\n")
    ended = command.run("--dry-run", "--on-bad-line", "skip")
    assert ended.code == 0
    assert "Correct them" not in ended.err
    write_rows(command.input, [{"prompt": "a"}, {"prompt": "b", "max_tokens": 3}, {"prompt": "c"}])
    ended = command.run("--dry-run", "--price", "1,1000000")
    assert "answer tokens: at most 3, plus those of 2 rows without max_tokens\n" in ended.out
    assert ended.out.endswith(", $3.00 at most with the answers, plus the answers of rows without max_tokens\n")
    write_rows(command.input, [])
    assert "answer tokens: 0\n" in command.run("--dry-run").out
    assert os.listdir(command.input.parent) == ["in.jsonl"]
    assert not server.requests


def test_nobody_reads_a_dry_run(command: Command) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        assert command.run("--dry-run", stdout=stdout) == (141, "", "")


@posix
def test_a_dry_run_without_standard_output_is_told(command: Command) -> None:
    shell = ("sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM)
    ended = command.run("--dry-run", program=shell)
    assert (ended.code, ended.err) == (1, "rusty-agent batch: error: standard output is closed\n")


@posix
def test_a_process_that_may_open_no_more_files_is_told_so(command: Command) -> None:
    shell = ("sh", "-c", 'ulimit -n 8; exec "$@"', "sh", *PROGRAM)
    said = (
        "rusty-agent batch: error: Too many open files. Close some files, or raise the limit on open files (ulimit -n)."
    )
    assert command.run(program=shell) == (1, "", f"{said}\n")


@pytest.mark.usefixtures("unmeasured")
def test_progress_may_be_json(command: Command) -> None:
    ended = command.run("--progress", "json", "--price", "1,1", "--sync", "row")
    *shown, last = ended.err.splitlines()
    assert last == "rusty-agent batch: 20 answered, $0.0002"
    progress = json.loads(shown[-1])
    assert (progress["done"], progress["total"], progress["cost"]) == (20, 20, 0.00016)
    assert command.run("--fresh", "--price", "0.01,0.01").err.endswith("20 answered, <$0.0001\n")


@pytest.mark.usefixtures("unmeasured")
def test_the_report_is_one_page(command: Command, tmp_path: Path) -> None:
    assert command.run("--report", str(tmp_path / "r.html"), "--stream", "--progress", "off").code == 0
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")


def test_the_model_may_stand_in_the_rows(command: Command, server: FaultServer) -> None:
    key = {"OPENROUTER_API_KEY": KEY["OPENROUTER_API_KEY"]}
    write_rows(command.input, [{"prompt": "a", "model": "one"}, {"prompt": "b", "model": "two"}])
    assert command.run("--progress", "off", env=key).code == 0
    assert sorted(request.json["model"] for request in server.requests) == ["one", "two"]
    write_rows(command.input, [{"prompt": "a", "model": "one"}, {"prompt": "b"}])
    ended = command.run(env=key)
    assert ended.code == 1
    assert "no model: name one with -m" in ended.err
    write_rows(command.input, [{"no": "request"}, {"prompt": "a", "model": "three"}])
    assert "line 1: " in command.run("--fresh", env=key).err
    assert "1 answered, 1 bad line left out" in command.run("--fresh", "--on-bad-line", "skip", env=key).err
    assert server.requests[-1].json["model"] == "three"
    assert "no API key: set OPENROUTER_API_KEY" in command.run(env={}).err


@posix
def test_what_can_be_read_only_once_is_not_read_for_its_models(command: Command, server: FaultServer) -> None:
    shell = ("sh", "-c", 'cat "$IN" | "$@"', "sh", *PROGRAM)
    command.arguments[1] = "/dev/stdin"
    key = {"OPENROUTER_API_KEY": KEY["OPENROUTER_API_KEY"], "IN": str(command.input), "PATH": os.environ["PATH"]}
    write_rows(command.input, [{"prompt": "a", "model": "one"}])
    ended = command.run(env=key, program=shell)
    assert ended.code == 1
    assert "no model: name one with -m" in ended.err
    assert command.run("-m", "some", "--progress", "off", env=key, program=shell).err.endswith(": 1 answered\n")
    assert [request.json["model"] for request in server.requests] == ["one"]
    command.arguments[1] = str(command.input.with_name("missing.jsonl"))
    assert "missing.jsonl cannot be read: No such file" in command.run(env=key).err


def test_debugging_shows_the_retries(command: Command, server: FaultServer) -> None:
    write_rows(command.input, ["a"])
    server.answer(error(503, "busy"), said())
    more = ("--max-retries", "1", "--progress", "off", "--debug")
    ended = command.run(*more, env={**KEY, "RUSTY_AGENT_RETRY_BACKOFF_MS": "1"})
    assert ended.code == 0
    assert "rusty_agent: attempt 1 failed" in ended.err


def test_debugging_shows_where(command: Command) -> None:
    command.arguments[3] = str(command.output.parent / "no" / "folder.jsonl")
    ended = command.run()
    assert (ended.code, ended.out) == (1, "")
    assert "cannot be locked: No such file or directory. Check the path, and that its folder exists. Or" in ended.err
    ended = command.run("--debug")
    assert ended.code == 1
    assert "Traceback" in ended.err


# Full disks.

BIG = answer(completion("x" * 2000))


@posix
@pytest.mark.usefixtures("unmeasured")
def test_a_file_that_may_not_grow_ends_with_1_and_the_same_command_goes_on(
    command: Command, server: FaultServer
) -> None:
    server.answer(BIG)
    limited = (sys.executable, "-c", LIMITED)
    ended = command.run("--progress", "off", program=limited)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert f"{command.output} can no longer be written: File too large." in ended.err
    assert "(ulimit -f), or choose another filesystem. Then run the batch again, without --fresh: " in ended.err
    written = len(ids(command.output))
    assert 0 < written < 20
    sent = len(server.requests)
    assert sent <= written + 2 * 4  # those of the write that failed, and those that took their places
    assert command.run("--progress", "off").code == 0
    assert sorted(ids(command.output)) == sorted(f"r{n}" for n in range(20))
    assert len(server.requests) == sent + 20 - written


LIMITED = """
import resource, runpy, sys
sys.dont_write_bytecode = True  # it would be cut, too, and broken for whoever imports it next
usual = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, usual[1]))
try:
    runpy.run_module("rusty_agent", run_name="__main__", alter_sys=True)
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, usual)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.name == "nt" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_with_1_and_the_same_command_goes_on(
    command: Command, server: FaultServer, small_disk: Path
) -> None:
    server.answer(BIG)
    command.output = small_disk / "out.jsonl"
    command.arguments[3] = str(command.output)
    write_rows(command.input, simple(40))
    ended = command.run("--progress", "off")
    assert ended.code == 1
    assert "can no longer be written: No space left on device" in ended.err
    assert "Free some space there. Then run the batch again, without --fresh: " in ended.err
    assert 0 < len(ids(command.output)) < 40
    again = command.run("--progress", "off")
    assert again.code == 1
    assert "No space left on device" in again.err
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert command.run("--progress", "off").code == 0
    assert sorted(ids(command.output)) == sorted(f"r{n}" for n in range(40))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_output(command: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command.arguments[3] = str(tmp_path / "pipe")
    ended = command.run()
    assert ended.code == 1
    assert "is not a regular file" in ended.err


def test_nobody_reads_standard_error(command: Command) -> None:
    """A supervisor that has closed it must not see a run that went well as one that failed."""
    reader, writer = os.pipe()
    os.close(reader)
    child = subprocess.Popen(
        [*PROGRAM, *command.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writer,
        env=environment(),
    )
    os.close(writer)
    assert child.wait(40) == 0
    assert len(read(command.output)) == 20
