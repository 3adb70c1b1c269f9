"""What a run sends for each of its prompts: the bytes that `generate_text` sends, though made in another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rusty_agent import AsyncProvider, RetryPolicy, Timeout, run_batch
from rusty_agent.call import Call
from rusty_agent.calls import Calls
from rusty_agent.net.attempt import Request
from rusty_agent.net.caller import Caller
from rusty_agent.requests import Requests
from rusty_agent.testing import Answer, FaultServer, Received, answer, completion, error, stream
from rusty_agent.wire.codec import dumps

from .faces import KEY, Serve

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


class Text(str):
    """A string of somebody's own kind."""

    __slots__ = ()


COMMON: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a system prompt": {"system_prompt": "Be kind."},
    "parameters": {"temperature": 0.5, "max_tokens": 7, "top_p": 1, "stop": ["x"], "seed": 1, "presence_penalty": None},
    "a format": {"response_format": {"type": "json_object"}, "frequency_penalty": 0},
    "headers": {"extra_headers": {"X-Trace": "1", "Authorization": "Bearer another-key-4567"}},
    "no headers": {"extra_headers": {}},
    "further fields": {"extra_body": {"tools": [TOOL], "model": "other", "user": "ü", "n": 2}, "temperature": 0},
    "fields taken out": {"extra_body": {"temperature": None, "model": None}, "temperature": 1},
    "messages in extra_body": {"extra_body": {"messages": HELLO, "top_k": 2}, "system_prompt": "Be kind."},
    "no messages": {"extra_body": {"messages": None, "input": "hello"}},
    "time": {"timeout": Timeout(total=30, idle=7), "retry": RetryPolicy(max_retries=1)},
    "seconds": {"timeout": 30},
    "streams": {"stream": True, "temperature": 0},
    "streams with time limits": {
        "stream": True,
        "timeout": Timeout(stall=9),
        "extra_headers": {"cookie": "a-secret-1"},
    },
    "streams and fields": {"stream": True, "extra_body": {"stream_options": None, "top_k": 1}},
}
ROWS: list[Any] = [
    "plain",
    "",
    "ünïcode «\ud83d»\n\x00",
    "plain",
    HELLO,
    [{"role": "system", "content": "s"}, *HELLO],
    {"prompt": "alone"},
    {"prompt": "own", "temperature": 0, "max_tokens": 9},
    {"prompt": "fields", "extra_body": {"top_k": 1, "user": None}},
    {"prompt": "system", "system_prompt": "Be brief."},
    {"messages": HELLO, "prompt": "unused", "stop": "."},
]
PROMPTS: list[Any] = [
    *ROWS,
    Text("mine"),
    tuple(HELLO),
    {"prompt": "headers", "extra_headers": {"X-Own": "2"}},
    {"prompt": "none", "temperature": None, "extra_headers": None, "timeout": None, "retry": None},
    {"prompt": "time", "timeout": 3, "retry": RetryPolicy(max_retries=2)},
    {"prompt": "streamed", "stream": True},
    {"prompt": "whole", "stream": False, "include_usage": False},
    "plain",
]


def arguments(common: dict[str, Any], prompt: Any) -> dict[str, Any]:
    """What one would give `generate_text` for the same request."""
    own = prompt if isinstance(prompt, dict) else {"prompt" if isinstance(prompt, str) else "messages": prompt}
    given = {**common, **own}
    if common.get("extra_body") and own.get("extra_body"):
        given["extra_body"] = common["extra_body"] | own["extra_body"]
    return {"include_usage": given.get("stream", False), **given}


def settled(request: Request) -> tuple[Any, ...]:
    """What does not show on the wire."""
    return (
        request.fields,
        list(request.fields),
        request.streamed,
        request.time_limits,
        sorted(request.mask._forms),
        request.policy,
        request.warnings,
    )


def yes(request: Received) -> Answer:
    return stream("yes") if request.json.get("stream") else answer(dumps(completion("yes")))


def sent(server: FaultServer, since: int = 0) -> list[tuple[bytes, list[tuple[str, str]]]]:
    return [(request.body, list(request.headers.items())) for request in server.requests[since:]]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that calls were begun with, so far."""
    seen: list[Request] = []
    start = Calls.start

    def note(calls: Calls, request: Request, caller: Caller | None = None) -> Call:
        seen.append(request)
        return start(calls, request, caller)

    monkeypatch.setattr(Calls, "start", note)
    return seen


@pytest.mark.parametrize("how", ["map", "batch"])
@pytest.mark.parametrize("common", COMMON.values(), ids=COMMON.keys())
async def test_a_run_sends_what_generate_text_sends(
    serve: Serve, begun: list[Request], tmp_path: Path, common: dict[str, Any], how: str
) -> None:
    server = serve(yes)
    prompts = PROMPTS if how == "map" else ROWS
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, preset="anthropic") as llm:
        if how == "map":
            errors = [item.error async for item in llm.map(prompts, concurrency=1, **common)]
            assert errors == [None] * len(prompts)
        else:
            result = await run_batch(prompts, tmp_path / "out.jsonl", llm, concurrency=1, **common)
            assert (result.done, result.failed) == (len(prompts), 0)
        for prompt in prompts:
            await llm.generate_text(**arguments(common, prompt))
    assert sent(server)[: len(prompts)] == sent(server, len(prompts))
    assert list(map(settled, begun))[: len(prompts)] == list(map(settled, begun))[len(prompts) :]


async def test_messages_for_all_are_sent_with_what_has_none(serve: Serve, begun: list[Request]) -> None:
    server = serve(yes)
    common: dict[str, Any] = {"messages": HELLO, "system_prompt": "Be kind."}
    prompts: list[Any] = [{"temperature": 0}, [{"role": "user", "content": "own"}], {"stop": "x", "messages": None}]
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        results = await llm.gather(prompts, concurrency=1, return_exceptions=True, **common)
        assert results[:2] == ["yes", "yes"]
        assert "prompt or messages is required" in str(results[2])
        for prompt in prompts[:2]:
            await llm.generate_text(**arguments(common, prompt))
    assert sent(server)[:2] == sent(server, 2)
    assert list(map(settled, begun))[:2] == list(map(settled, begun))[2:]


async def test_what_strings_have_in_common_is_prepared_once(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[Any] = []
    prepare = Requests.prepare

    def note(requests: Requests, prompt: str | None = None, **given: Any) -> Request:
        prepared.append(prompt)
        return prepare(requests, prompt, **given)

    monkeypatch.setattr(Requests, "prepare", note)
    common: dict[str, Any] = {"system_prompt": "Be kind.", "temperature": 0, "extra_headers": {"x-trace": "1"}}
    async with AsyncProvider("m", api_key=KEY, base_url=serve(yes).url) as llm:
        assert await llm.gather(["a", "b", "c"], **common) == ["yes"] * 3
        assert len(prepared) == 1
        assert (await run_batch(["a", "b", "c"], tmp_path / "out.jsonl", llm, **common)).done == 3
        assert len(prepared) == 2


async def test_each_prompt_has_warnings_of_its_own(serve: Serve) -> None:
    async with AsyncProvider("m", api_key=KEY, base_url=serve(yes).url, preset="anthropic") as llm:
        first, *others = await llm.gather(["a", "b", {"prompt": "c"}], include_usage=True, seed=1)
    assert first.warnings == ["anthropic accepts seed and ignores it"]
    first.warnings.append("mine")
    assert [one.warnings for one in others] == [["anthropic accepts seed and ignores it"]] * 2


async def test_a_refused_parameter_is_left_out_prompt_by_prompt(serve: Serve) -> None:
    def picky(request: Received) -> Answer:
        if "seed" in request.json:
            return error(400, "Unsupported parameter: 'seed'", param="seed", code="unsupported_parameter")
        return yes(request)

    server = serve(picky)
    prompts: list[Any] = ["a", {"prompt": "b", "seed": 1}, "c", {"prompt": "d", "seed": 2}, "e"]
    lines = ["the endpoint refuses seed: it was left out"]
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, retry=RetryPolicy(max_retries=0)) as llm:
        results = await llm.gather(prompts, concurrency=1, include_usage=True, temperature=0)
        assert [result.warnings for result in results] == [[], lines, [], lines, []]
        results = await llm.gather(["f", "g"], concurrency=1, include_usage=True, seed=3)
        assert [result.warnings for result in results] == [lines, lines]
        results = await llm.gather(["h"], include_usage=True, seed=3, extra_body={"model": "another"})
        assert [result.warnings for result in results] == [lines]  # learned anew
    assert [(request.json["messages"][0]["content"], "seed" in request.json) for request in server.requests] == [
        *[("a", False), ("b", True), ("b", False), ("c", False), ("d", False), ("e", False)],
        *[("f", False), ("g", False), ("h", True), ("h", False)],
    ]
