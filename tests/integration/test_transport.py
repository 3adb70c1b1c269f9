"""Connections: pools, given sessions, proxies, and what may go wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from rusty_agent import APIConnectionError, AsyncProvider, Provider
from rusty_agent.testing import Answer, FaultServer, Received, answer, completion, stream
from rusty_agent.wire.codec import dumps

from .faces import KEY, Face

Serve = Callable[..., FaultServer]


async def test_no_more_connections_than_allowed(serve: Serve) -> None:
    server = serve(stream("a", "b", gap=0.03))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, max_connections=3) as llm:
        texts = await asyncio.gather(*(llm.generate_text("hi", stream=True) for _ in range(12)))
    assert texts == ["ab"] * 12
    assert server.connections <= 3


async def test_many_connections_by_default(serve: Serve) -> None:
    server = serve(stream("a", "b", gap=0.3))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        await asyncio.gather(*(llm.generate_text("hi", stream=True) for _ in range(150)))
    assert server.connections == 150  # aiohttp's own limit is 100


async def test_a_given_session_is_used_and_not_closed(serve: Serve) -> None:
    server = serve()
    async with aiohttp.ClientSession(headers={"x-own": "1"}) as session:
        async with AsyncProvider("m", api_key=KEY, base_url=server.url, session=session) as llm:
            assert await llm.generate_text("hi") == "Hello world"
            assert [piece async for piece in llm.stream_text("hi")] == ["Hello", " world"]
        assert not session.closed
    assert server.requests[0].headers["x-own"] == "1"
    late = AsyncProvider("m", api_key=KEY, base_url=server.url, session=session)
    with pytest.raises(APIConnectionError, match="session"):
        await late.generate_text("hi")


@pytest.mark.parametrize("how", ["argument", "environment", "excluded"])
def test_proxies(face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def script(request: Received) -> Answer:
        return answer(dumps(completion(f"asked for {request.path}")))

    proxy, server = serve(script), serve(script)
    address = proxy.url.removesuffix("/v1")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1" if how == "excluded" else "")
    options: dict[str, dict[str, Any]] = {
        "argument": {"proxy": address},
        "environment": {"trust_env": True},
        "excluded": {"trust_env": True},
    }
    text = face.generate(face.provider(server, **options[how]))
    if how == "excluded":
        assert text == "asked for /v1/chat/completions"
    else:
        assert text == f"asked for {server.url}/chat/completions"
    assert face.generate(face.provider(server)) == "asked for /v1/chat/completions"  # only when asked


def test_a_query_in_the_base_url_stays_behind_the_path(face: Face, serve: Serve) -> None:
    server = serve()
    face.generate(face.provider(f"{server.url}/deployments/d?api-version=2024-06-01"))
    assert server.requests[0].path == "/v1/deployments/d/chat/completions?api-version=2024-06-01"


def test_a_script_for_rusty_agent_sdk(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every example of the seed's documentation, with only its import line changed."""
    server = serve()
    monkeypatch.setenv("OPENROUTER_API_KEY", "your-key")
    provider = Provider("openai/gpt-4o-mini", base_url=server.url)
    text = provider.generate_text("Say hello in one sentence.")
    print(text)  # noqa: T201
    for chunk in provider.stream_text("Count to 3."):
        print(chunk, end="", flush=True)  # noqa: T201
    assert capsys.readouterr().out == "Hello world\nHello world"
    assert repr(provider) == f"<Provider 'openai/gpt-4o-mini' at {server.url.removesuffix('/v1')}, key ***>"
    result = provider.generate_text("Hi", include_usage=True)
    assert (str(result), result.prompt_tokens, result.total_tokens) == ("Hello world", 3, 8)
    messages = [{"role": "user", "content": "Hi"}]
    opened = provider.stream_text(messages=messages, system_prompt="Be brief.", temperature=0.2, stop="\n", seed=1)
    assert opened.finish_reason is None or "".join(opened) == "Hello world"
    with pytest.raises(RuntimeError):
        Provider("m", api_key="k", base_url=serve(answer(b"", status=400)).url).generate_text("Hi")
    with pytest.raises(ConnectionError):
        list(Provider("m", api_key="k", base_url="http://127.0.0.1:1/v1").stream_text("Hi"))
    monkeypatch.delenv("OPENROUTER_API_KEY")
    with pytest.raises(ValueError, match="OPENROUTER_API_KEY"):
        Provider("m")
