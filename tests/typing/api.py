"""The types that checkers must infer from the public API; checked by `mypy --strict`, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Unpack, assert_type

from aiohttp import ClientSession

from rusty_agent import (
    AsyncProvider,
    AsyncTextStream,
    BatchParameters,
    BatchResult,
    GenerateResult,
    MapItem,
    Parameters,
    Provider,
    RunParameters,
    StreamEvent,
    TextStream,
    Usage,
    run_batch,
)


def blocking(provider: Provider, wanted: bool) -> None:
    assert_type(provider.generate_text("hi"), str)
    assert_type(provider.generate_text("hi", include_usage=False), str)
    assert_type(provider.generate_text("hi", include_usage=True), GenerateResult)
    assert_type(provider.generate_text("hi", include_usage=wanted), str | GenerateResult)
    assert_type(provider.generate_text(messages=[{"role": "user", "content": "hi"}], stop=["a"]), str)
    stream = provider.stream_text("hi", temperature=0, include_usage=True)
    assert_type(stream, TextStream)
    for piece in stream:
        assert_type(piece, str)
    for event in stream.events():
        assert_type(event, StreamEvent)
    assert_type(next(stream), str)
    assert_type(stream.result(), GenerateResult)
    assert_type(stream.total_tokens, int | None)
    assert_type(stream.usage, Usage | None)
    with provider as entered, stream as opened:
        assert_type(entered, Provider)
        assert_type(opened, TextStream)
    assert_type(Provider.openai("m", max_connections=3), Provider)
    assert_type(Provider.from_preset("groq", "m", base_url=None), Provider)
    assert_type(Provider.local(), Provider)
    provider.generate_text("hi", temprature=1)  # type: ignore[call-overload]
    provider.generate_text("hi", max_tokens="many")  # type: ignore[call-overload]


async def on_a_loop(provider: AsyncProvider, wanted: bool) -> None:
    assert_type(await provider.generate_text("hi"), str)
    assert_type(await provider.generate_text("hi", include_usage=True), GenerateResult)
    assert_type(await provider.generate_text("hi", include_usage=wanted), str | GenerateResult)
    stream = provider.stream_text("hi")
    assert_type(stream, AsyncTextStream)
    async for piece in stream:
        assert_type(piece, str)
    async for event in stream.events():
        assert_type(event, StreamEvent)
    assert_type(await anext(stream), str)
    assert_type(await stream.result(), GenerateResult)
    async with provider as entered, stream as opened:
        assert_type(entered, AsyncProvider)
        assert_type(opened, AsyncTextStream)
    assert_type(AsyncProvider.anthropic("m", timeout=5), AsyncProvider)
    assert_type(AsyncProvider.local("model.gguf"), AsyncProvider)


def many(provider: Provider) -> None:
    assert_type(provider.gather(["a"]), list[str])
    assert_type(provider.gather(["a"], return_exceptions=True), list[str | Exception])
    assert_type(provider.gather(["a"], include_usage=True), list[GenerateResult])
    assert_type(provider.gather(["a"], include_usage=True, return_exceptions=True), list[GenerateResult | Exception])
    items = provider.map(iter(["a"]), concurrency="auto", ordered=False, temperature=0)
    assert_type(items, Generator[MapItem, None, None])
    items.close()


async def many_at_once(provider: AsyncProvider) -> None:
    assert_type(await provider.gather(["a"], progress=True), list[str])
    assert_type(await provider.gather(["a"], return_exceptions=True), list[str | Exception])
    assert_type(await provider.gather(["a"], include_usage=True), list[GenerateResult])
    assert_type(provider.map([[{"role": "user", "content": "a"}]]), AsyncGenerator[MapItem, None])
    assert_type(await run_batch("in.jsonl", "out.jsonl", provider, budget_usd=1, price=(1, 2)), BatchResult)


def wrapped(provider: Provider, **parameters: Unpack[Parameters]) -> None:
    assert_type(provider.generate_text("hi", **parameters), str)
    assert_type(provider.generate_text("hi", include_usage=True, **parameters), GenerateResult)
    assert_type(provider.stream_text("hi", **parameters), TextStream)


def wrapped_for_many(provider: Provider, **parameters: Unpack[RunParameters]) -> None:
    assert_type(provider.gather(["hi"], **parameters), list[str])
    assert_type(provider.gather(["hi"], include_usage=True, **parameters), list[GenerateResult])
    assert_type(provider.gather(["hi"], return_exceptions=True, **parameters), list[str | Exception])
    assert_type(provider.map(["hi"], **parameters), Generator[MapItem, None, None])


async def wrapped_batch(provider: AsyncProvider, **parameters: Unpack[BatchParameters]) -> None:
    assert_type(await run_batch("in.jsonl", "out.jsonl", provider, **parameters), BatchResult)
    await run_batch("in.jsonl", "out.jsonl", provider, messages=[])  # type: ignore[call-arg]


class Own(AsyncProvider):
    """A subclass keeps its type through the constructors of presets."""


assert_type(Own.openrouter("m"), Own)


def sessions(session: ClientSession) -> None:
    assert_type(AsyncProvider("m", session=session), AsyncProvider)
    assert_type(AsyncProvider.openai("m", session=session, timeout=5), AsyncProvider)
    assert_type(AsyncProvider.from_preset("groq", "m", session=session), AsyncProvider)
    assert_type(Provider.openai("m", timeout=5), Provider)
    Provider("m", session=session)  # type: ignore[call-arg]
    Provider.openai("m", session=session)  # type: ignore[call-arg]
    Provider.anthropic("m", session=session)  # type: ignore[call-arg]
    Provider.openrouter("m", session=session)  # type: ignore[call-arg]
    Provider.from_preset("groq", "m", session=session)  # type: ignore[call-arg]
