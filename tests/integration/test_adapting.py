"""Refused parameters, the retry budget, thinking: what a provider keeps between calls, through both faces."""

from __future__ import annotations

import asyncio
import copy
import pickle
import ssl
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from rusty_agent import (
    AsyncProvider,
    AuthenticationError,
    BadRequestError,
    MissingAPIKeyError,
    Preset,
    Provider,
    RetryPolicy,
)
from rusty_agent.testing import Answer, Received, answer, completion, error, stream

from ..events import held
from .faces import KEY, Face, Serve

COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))]


def picky(request: Received, status: int = 400) -> Answer:
    """An endpoint that knows neither `max_tokens` nor `seed`, and says so one at a time."""
    body = request.json
    for name in ("max_tokens", "seed"):
        if name in body:
            told = f"Unsupported parameter: '{name}'"
            if status == 200:
                return answer({"error": {"message": told, "code": 400}})
            return error(status, told, param=name, code="unsupported_parameter")
    return stream("fine") if body.get("stream") else answer(completion("fine"))


def test_refused_parameters_are_adapted_once(face: Face, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(picky)
    provider = face.provider(server, retry=RetryPolicy(max_retries=0))
    with caplog.at_level("DEBUG", logger="rusty_agent"):
        result = face.generate(provider, include_usage=True, max_tokens=7, seed=1)
    assert result.text == "fine"
    assert result.warnings == [
        "the endpoint refuses max_tokens: it was sent as max_completion_tokens",
        "the endpoint refuses seed: it was left out",
    ]
    assert all(line in caplog.text for line in result.warnings)
    assert server.requests[-1].json["max_completion_tokens"] == 7
    assert len(server.requests) == 3
    outcome = face.stream(provider, max_tokens=8)
    assert outcome.pieces == ["fine"]
    assert outcome.stream.warnings == result.warnings[:1]
    assert len(server.requests) == 4  # remembered: the first request is right


def test_parameters_that_are_refused_inside_an_answer_are_adapted_too(face: Face, serve: Serve) -> None:
    """As gateways do that have sent their own status already."""
    server = serve(lambda request: picky(request, 200))
    provider = face.provider(server, retry=RetryPolicy(max_retries=0))
    assert face.generate(provider, seed=1) == "fine"
    outcome = face.stream(provider, max_tokens=8)
    assert (outcome.text, outcome.error) == ("fine", None)
    assert len(server.requests) == 4


async def test_an_error_behind_a_refusal_that_was_adapted_to_does_not_tell_of_that(serve: Serve) -> None:
    server = serve(lambda request: picky(request) if "seed" in request.json else error(401, "no such key"))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        with pytest.raises(AuthenticationError) as caught:
            await llm.generate_text("hi", seed=1)
    assert caught.value.__context__ is None


async def test_concurrent_calls_adapt_all(serve: Serve) -> None:
    server = serve(picky)
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, retry=RetryPolicy(max_retries=0)) as llm:
        assert (
            await asyncio.gather(*(llm.generate_text("hi", seed=1, max_tokens=3) for _ in range(10))) == ["fine"] * 10
        )


async def test_a_call_that_is_refused_what_others_have_learnt_meanwhile_adapts_too(serve: Serve) -> None:
    def script(request: Received) -> Answer:  # both are asked before the first is refused, and the second comes last
        number = len(server.requests)
        return held(picky(request), lambda: len(server.requests) > number) if number <= 2 else picky(request)

    server = serve(script)
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, retry=RetryPolicy(max_retries=0)) as llm:
        assert await asyncio.gather(*(llm.generate_text("hi", seed=1) for _ in range(2))) == ["fine"] * 2


async def test_a_call_that_comes_too_soon_waits_whatever_others_have_learnt_meanwhile(serve: Serve) -> None:
    def script(request: Received) -> Answer:
        number = len(server.requests)
        said = error(429, headers={"retry-after": "0.4"}) if number == 2 else picky(request)
        return held(said, lambda: len(server.requests) > number) if number <= 2 else said

    server = serve(script)
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        began = time.monotonic()
        assert await asyncio.gather(*(llm.generate_text("hi", seed=1) for _ in range(2))) == ["fine"] * 2
    assert time.monotonic() - began > 0.35
    assert len(server.requests) == 5


def test_a_name_that_was_learnt_is_forgotten_when_it_is_refused(face: Face, serve: Serve) -> None:
    refused = ["max_tokens", "max_completion_tokens"]

    def script(request: Received) -> Answer:
        name = refused[0]
        if name in request.json:
            return error(400, f"Unsupported parameter: '{name}'", param=name, code="unsupported_parameter")
        return answer(completion("fine"))

    server = serve(script)
    provider = face.provider(server)
    assert face.generate(provider, max_tokens=7) == "fine"
    refused.reverse()  # another server, or another version of it, answers now
    assert [face.generate(provider, max_tokens=7) for _ in range(2)] == ["fine"] * 2
    assert len(server.requests) == 5


def test_a_value_that_is_refused_teaches_nothing(face: Face, serve: Serve) -> None:
    def script(request: Received) -> Answer:
        body = request.json
        if "max_completion_tokens" in body:
            return error(422, "max_completion_tokens: Extra inputs are not permitted")
        if body["max_tokens"] > 4096:
            return error(400, "max_tokens=99999 is not allowed, at most 4096")
        return answer(completion("fine"))

    provider = face.provider(serve(script))
    with pytest.raises(BadRequestError, match="at most 4096"):
        face.generate(provider, max_tokens=99999)
    assert face.generate(provider, max_tokens=100) == "fine"


def test_adapting_can_be_switched_off(face: Face, serve: Serve) -> None:
    server = serve(picky)
    with pytest.raises(BadRequestError, match="max_tokens"):
        face.generate(face.provider(server, adapt=False), max_tokens=7)
    assert len(server.requests) == 1


def test_what_shapes_the_answer_is_never_left_out(face: Face, serve: Serve) -> None:
    server = serve(error(400, "Unsupported parameter: 'response_format'", param="response_format"))
    with pytest.raises(BadRequestError):
        face.generate(face.provider(server), response_format={"type": "json_object"}, seed=1)
    assert len(server.requests) == 1


def test_thinking_is_split_when_asked(face: Face, serve: Serve) -> None:
    server = serve(stream("<thi", "nk>Hm", "</think>", "Yes."))
    assert face.stream(face.provider(server)).text == "<think>Hm</think>Yes."
    outcome = face.stream(face.provider(server, split_thinking=True))
    assert (outcome.text, outcome.stream.reasoning) == ("Yes.", "Hm")


def test_text_that_each_chunk_tells_once_more_is_told_once(face: Face, serve: Serve) -> None:
    server = serve(stream("We", "We went", "We went home."))
    assert face.stream(face.provider(server), extra_body={"model": "qwen-mt-plus"}).text == "We went home."
    assert face.stream(face.provider(server)).text == "WeWe wentWe went home."


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies_of_a_provider_work_on_their_own(face: Face, serve: Serve, copied: Callable[[object], object]) -> None:
    server = serve()
    original = face.provider(server, headers={"x-own": "1"}, timeout=7)
    twin = copied(original)
    face.close(original)
    assert face.generate(twin) == "Hello world"
    assert server.requests[0].headers["x-own"] == "1"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


class Routed(AsyncProvider):
    @property
    def model(self) -> str:
        return f"shown/{super().model}"


@pytest.mark.parametrize("copied", COPIES)
async def test_copies_ask_for_the_same_model(serve: Serve, copied: Callable[[Routed], Routed]) -> None:
    server = serve()
    await copied(Routed("m", api_key=KEY, base_url=server.url, pickle_key=True)).generate_text("hi")
    assert server.requests[0].json["model"] == "m"


def test_pickles_hold_no_key(face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    data = pickle.dumps(face.provider(server))
    assert KEY.encode() not in data
    keyless = pickle.loads(data)
    for call in (face.generate, face.result):
        with pytest.raises(MissingAPIKeyError, match="pickle_key"):
            call(keyless)
    for copied in COPIES:
        twin = copied(keyless)
        assert "no key" in repr(twin)
        with pytest.raises(MissingAPIKeyError, match="pickle_key"):
            face.generate(twin)
    assert server.requests == []
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-from-the-environment")
    assert face.generate(pickle.loads(data)) == "Hello world"
    assert server.requests[0].headers["authorization"] == "Bearer sk-from-the-environment"


@pytest.mark.parametrize("unfit", ["Bearer sk-1", "sk-1\nsk-2"])
def test_a_variable_that_holds_no_key_is_no_key_for_a_pickle(
    face: Face, monkeypatch: pytest.MonkeyPatch, unfit: str
) -> None:
    """A worker that fails to unpickle its task would leave a pool of processes waiting for ever."""
    data = pickle.dumps(face.provider("http://127.0.0.1:1/v1"))
    monkeypatch.setenv("OPENROUTER_API_KEY", unfit)
    keyless = pickle.loads(data)
    with pytest.raises(MissingAPIKeyError, match=r"OPENROUTER_API_KEY .*[^.]\. Pickles .*pickle_key"):
        face.generate(keyless)


@pytest.mark.parametrize("key", [KEY, ""])
def test_a_setting_that_cannot_be_right_fails_the_calls_of_a_pickle(
    face: Face, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """As above: a pool would hang, or say no more than that a process ended."""
    data = pickle.dumps(face.provider("http://127.0.0.1:1/v1"))
    monkeypatch.setenv("OPENROUTER_API_KEY", key)
    monkeypatch.setenv("RUSTY_AGENT_MAX_RETRIES", "many")
    unfit = pickle.loads(data)
    for call in (face.generate, face.result):
        for twin in (unfit, copy.copy(unfit)):
            with pytest.raises(ValueError, match=r"RUSTY_AGENT_MAX_RETRIES must be .* not 'many'"):
                call(twin)
    with pytest.raises(ValueError, match="RUSTY_AGENT_MAX_RETRIES"):
        face.provider("http://127.0.0.1:1/v1")


def test_pickles_hold_the_key_on_request(face: Face, serve: Serve) -> None:
    server = serve()
    twin = pickle.loads(pickle.dumps(face.provider(server, pickle_key=True)))
    assert face.generate(twin) == "Hello world"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_pickles_hold_the_headers_that_are_sent(face: Face, serve: Serve) -> None:
    server, headers = serve(), {"x-title": "mine"}
    provider = face.provider(server, pickle_key=True, headers=MappingProxyType(headers))
    headers["x-title"] = "other"
    face.generate(pickle.loads(pickle.dumps(provider)))
    assert server.requests[0].headers["x-title"] == "mine"


def test_pickles_hold_no_other_secret(face: Face) -> None:
    options = {
        "headers": {"x-api-key": "secret-of-header", "x-title": "shown"},
        "proxy": "http://me:secret-of-proxy@127.0.0.1:1",
    }
    provider = face.provider("http://127.0.0.1:2/v1?key=secret-of-url&api-version=7", **options)
    data = pickle.dumps(provider)
    assert b"secret-of-" not in data
    assert all(part in data for part in (b"shown", b"http://127.0.0.1:1", b"http://127.0.0.1:2/v1?api-version=7"))
    own = Preset("own", "http://127.0.0.1:2/v1?key=secret-of-url&api-version=7", "OWN_KEY", key_required=False)
    for maker in (Provider, AsyncProvider):
        data = pickle.dumps(maker("m", preset=own))
        assert b"secret-of-" not in data
        assert b"/v1?api-version=7" in data
    data = pickle.dumps(face.provider("http://127.0.0.1:2/v1?key=secret-of-url", pickle_key=True, **options))
    assert data.count(b"secret-of-") == 3


def test_a_tls_context_does_not_pickle(face: Face) -> None:
    provider = face.provider("https://127.0.0.1:1/v1", ssl=ssl.create_default_context())
    with pytest.raises(TypeError, match="SSLContext cannot be pickled: contexts belong to a process"):
        pickle.dumps(provider)
    assert repr(copy.deepcopy(provider)) == repr(provider)


async def test_what_belongs_to_a_loop_does_not_pickle(serve: Serve) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        llm = AsyncProvider("m", api_key=KEY, base_url=serve().url, session=session)
        with pytest.raises(TypeError, match="session"):
            pickle.dumps(llm)


def test_results_and_outcomes_pickle(face: Face, serve: Serve) -> None:
    result = face.generate(face.provider(serve()), include_usage=True)
    assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == result


def test_a_pool_of_processes_tells_that_the_key_is_missing(serve: Serve) -> None:
    """A worker that fails to unpickle its task would leave the pool waiting for ever."""
    import multiprocessing

    provider = Provider("m", api_key=KEY, base_url=serve().url)
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(MissingAPIKeyError, match="pickle_key"):
        pool.map_async(provider.generate_text, ["hi"]).get(20)


def test_a_pool_of_processes_can_send_them(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    provider = Provider("m", base_url=serve(picky).url, adapt=False)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(provider.generate_text, ("hi",)) == "fine"
        with pytest.raises(BadRequestError) as raised:
            pool.apply(provider.generate_text, ("hi",), {"max_tokens": 3})
    assert (raised.value.status_code, raised.value.param) == (400, "max_tokens")
