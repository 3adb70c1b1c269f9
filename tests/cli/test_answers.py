"""What comes out: the answer, and what is said about it."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

import pytest

from rusty_agent.testing import FaultServer, Hang, answer, completion, error, events, stream

from ..events import held
from ..processes import finish
from .process import KEY, run, start

SSE = "text/event-stream"


@pytest.mark.usefixtures("unmeasured")
def test_pieces_are_visible_as_they_come(server: FaultServer) -> None:
    seen = threading.Event()
    server.answer(held(stream("first ", "second"), seen.is_set, 3))
    child = start("--base-url", server.url, "hi")
    assert child.stdout is not None
    assert os.read(child.stdout.fileno(), 100) == b"first "
    assert child.poll() is None
    seen.set()
    assert finish(child) == (0, "second\n", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one\n\n", "one\n\n"), ("\x1b[2Jraw\r", "\x1b[2Jraw\r\n")],
)
@pytest.mark.usefixtures("unmeasured")
def test_a_pipe_gets_the_text_and_one_newline_at_least(server: FaultServer, text: str, expected: str) -> None:
    server.answer(stream(*text))
    assert run("--base-url", server.url, "hi") == (0, expected, "")


@pytest.mark.usefixtures("unmeasured")
def test_utf_8_whatever_the_locale(server: FaultServer) -> None:
    server.answer(stream("na\u00efve \u20ac \U0001f980 \ud800"))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    ended = run("--base-url", server.url, "hi", env={**KEY, **plain})
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("na\u00efve \u20ac \U0001f980 ")


@pytest.mark.usefixtures("unmeasured")
def test_without_streaming_the_answer_is_whole_at_once(server: FaultServer) -> None:
    ended = run("--base-url", server.url, "--no-stream", "--usage", "hi")
    assert (ended.code, ended.out) == (0, "Hello world\n")
    assert re.fullmatch(r"tokens: prompt 3, completion 5, total 8; duration \d+\.\d\d s; \d+\.\d tokens/s\n", ended.err)
    assert "stream" not in server.requests[0].json


def test_usage_tells_tokens_and_times_on_stderr(server: FaultServer) -> None:
    server.answer(stream("a", "b", gap=0.05), stream("a", usage=False, finish_reason="length"))
    ended = run("--base-url", server.url, "--usage", "hi")
    assert (ended.code, ended.out) == (0, "ab\n")
    pattern = (
        r"tokens: prompt 3, completion 2, total 5; first token \d\.\d\d s; duration \d\.\d\d s; \d+\.\d tokens/s\n"
    )
    assert re.fullmatch(pattern, ended.err)
    ended = run("--base-url", server.url, "--usage", "--max-tokens", "1", "hi")
    assert re.fullmatch(r"tokens: prompt unknown, .*; duration \d\.\d\d s; finish length\n", ended.err)


def test_what_the_text_does_not_show_is_warned_of(server: FaultServer) -> None:
    """What the text alone does not show: it was cut, it is empty, the endpoint ignores what was asked for."""
    server.answer(
        stream("cut", finish_reason="length"),
        stream("cut", finish_reason="length"),
        stream(finish_reason="stop"),
        stream("{}"),
    )
    base = ("--base-url", server.url)
    warning = "rusty-agent: warning: "
    assert run(*base, "hi") == (0, "cut\n", f"{warning}the answer was cut short (finish_reason length)\n")
    assert run(*base, "--max-tokens", "1", "hi") == (0, "cut\n", "")
    assert run(*base, "hi") == (0, "", f"{warning}the answer is empty (finish_reason stop)\n")
    ended = run(*base, "--preset", "anthropic", "--json", "hi", env={**KEY, "ANTHROPIC_API_KEY": "test-key"})
    assert ended == (0, "{}\n", f"{warning}anthropic accepts response_format and ignores it\n")


@pytest.mark.usefixtures("unmeasured")
def test_a_refusal_is_an_error(server: FaultServer) -> None:
    body = completion("")
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I\x1b[2J\nwon't."}
    server.answer(answer(body))
    ended = run("--base-url", server.url, "--no-stream", "hi")
    assert ended == (1, "", "rusty-agent: error: the model refused: I\\x1b[2J won't.\n")


@pytest.mark.parametrize(("text", "shown"), [(None, ""), ("Let me look.", "Let me look.\n")])
@pytest.mark.parametrize("options", [[], ["--no-stream"]])
def test_a_tool_call_is_an_error(server: FaultServer, text: str | None, shown: str, options: list[str]) -> None:
    function = {"name": "weather", "arguments": '{"city":\n "Oslo\x1b"}'}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    body = completion("")
    body["choices"] = [
        {"index": 0, "message": {"content": text, "tool_calls": [call, call]}, "finish_reason": "tool_calls"}
    ]
    server.answer(answer(body))
    ended = run("--base-url", server.url, *options, "hi")
    assert (ended.code, ended.out) == (1, shown)
    said = r'weather({"city": "Oslo\x1b"})'
    assert ended.err == (f"rusty-agent: error: the model called tools, which are not run here: {said}, {said}\n")


@pytest.mark.usefixtures("unmeasured")
def test_an_error_is_one_line(server: FaultServer) -> None:
    server.answer(error(401, "wrong key test-key-12345\nin two lines"))
    ended = run("--base-url", server.url, "hi")
    advice = "Check the API key. It came from OPENROUTER_API_KEY."
    assert ended == (1, "", f"rusty-agent: error: HTTP 401: wrong key *** in two lines. {advice}\n")


@pytest.mark.usefixtures("unmeasured")
def test_debug_shows_the_traceback_and_the_retries(server: FaultServer) -> None:
    server.answer(error(503, "busy"), error(400, "no such thing"))
    retries = {"RUSTY_AGENT_MAX_RETRIES": "1", "RUSTY_AGENT_RETRY_BACKOFF_MS": "1"}
    ended = run("--base-url", server.url, "--debug", "hi", env={**KEY, **retries})
    assert (ended.code, ended.out) == (1, "")
    assert "rusty_agent: attempt 1 failed" in ended.err
    assert "Traceback (most recent call last)" in ended.err
    assert "rusty_agent.errors.BadRequestError: HTTP 400: no such thing." in ended.err
    assert ended.err.splitlines()[-1] == "rusty-agent: error: HTTP 400: no such thing."
    assert KEY["OPENROUTER_API_KEY"] not in ended.err


@pytest.mark.usefixtures("unmeasured")
def test_an_interrupted_stream_keeps_what_arrived(server: FaultServer) -> None:
    server.answer(answer(events("Hel", "lo")[:3], content_type=SSE, framing="cut"))
    ended = run("--base-url", server.url, "hi")
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "Hello\n", 1)
    assert ended.err.startswith("rusty-agent: error: ")
    assert "what arrived is above" in ended.err


@pytest.mark.usefixtures("unmeasured")
def test_nobody_listens() -> None:
    ended = run("--base-url", "http://127.0.0.1:9/v1", "hi")
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith("rusty-agent: error: Cannot connect to 127.0.0.1:9: ")


@pytest.mark.parametrize("words", [["hi"], ["batch", "{0}/in.jsonl", "-o", "{0}/out.jsonl"]])
@pytest.mark.usefixtures("unmeasured")
def test_the_environment_names_a_proxy(server: FaultServer, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "in.jsonl").write_text('"hi"\n')
    env = {**KEY, "http_proxy": server.url.removesuffix("/v1")}
    words = [word.format(tmp_path) for word in words]
    ended = run(*words, "--base-url", "http://llm.invalid/v1", "--trust-env", env=env)
    assert (ended.code, len(server.requests)) == (0, 1), ended.err
    assert server.requests[0].headers["host"] == "llm.invalid"


def test_what_nobody_foresaw_is_one_line_too(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys, rusty_agent.cli.ask as ask\n"
        "from rusty_agent.cli import main\n"
        "def prepare(arguments): raise KeyError('oops')\n"
        "ask.prepare = prepare\n"
        "sys.exit(main())\n"
    )
    ended = run("hi", program=(sys.executable, str(script)))
    assert ended == (1, "", "rusty-agent: error: unexpected KeyError: 'oops' (--debug shows where)\n")


def test_an_answer_that_never_comes_times_out(server: FaultServer) -> None:
    server.answer(answer([Hang()], content_type=SSE, framing="chunked"))
    for how in ([], ["--no-stream"]):
        ended = run("--base-url", server.url, "hi", "--timeout", "0.2", *how)
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert "did not arrive within 0.2 s" in ended.err
        assert "--timeout" in ended.err
