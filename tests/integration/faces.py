"""The two faces of the library behind one interface, so that one suite holds both to the same behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from attrs import define, field

from rusty_agent import AsyncProvider, GenerateResult, Provider, RustyAgentError, StreamEvent
from rusty_agent.testing import FaultServer

KEY = "sk-test-0123456789abcdef"
TLS = Path(__file__).parents[1] / "data" / "tls"  # the tests' own CA, and a certificate for «localhost»


@define
class Outcome:
    """How a stream went: what it yielded, how it ended, and its metadata afterwards."""

    pieces: list[str]
    error: Exception | None
    stream: Any
    events: list[StreamEvent] = field(factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def failure(self) -> RustyAgentError:
        """The error, which must be one of the library's."""
        assert isinstance(self.error, RustyAgentError), self.error
        return self.error


class _Face:
    kind: type[Any]

    def provider(self, server: FaultServer | str, **options: Any) -> Any:
        url = server if isinstance(server, str) else server.url
        return self.kind("m", api_key=options.pop("api_key", KEY), base_url=url, **options)

    def stream(self, provider: Any, prompt: str | None = "hi", *, limit: int = -1, **parameters: Any) -> Outcome:
        """Read a stream to its end, or stop after `limit` pieces."""
        return self._read(provider, prompt, limit, False, parameters)

    def events(self, provider: Any, prompt: str | None = "hi", **parameters: Any) -> Outcome:
        return self._read(provider, prompt, -1, True, parameters)

    def _read(self, provider: Any, prompt: str | None, limit: int, typed: bool, parameters: dict[str, Any]) -> Outcome:
        raise NotImplementedError


class SyncFace(_Face):
    name = "sync"
    kind = Provider

    def generate(self, provider: Any, prompt: str | None = "hi", **parameters: Any) -> Any:
        return provider.generate_text(prompt, **parameters)

    def together(self, provider: Any, count: int) -> list[str]:
        """Make `count` calls at once."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(provider.generate_text, ["hi"] * count))

    def _read(self, provider: Any, prompt: str | None, limit: int, typed: bool, parameters: dict[str, Any]) -> Outcome:
        outcome = Outcome([], None, None)
        seen: list[Any] = outcome.events if typed else outcome.pieces
        try:
            outcome.stream = provider.stream_text(prompt, **parameters)
            for item in outcome.stream.events() if typed else outcome.stream:
                seen.append(item)
                if len(seen) == limit:
                    break
        except Exception as error:
            outcome.error = error
        return outcome

    def result(self, provider: Any, prompt: str | None = "hi", **parameters: Any) -> GenerateResult:
        result: GenerateResult = provider.stream_text(prompt, **parameters).result()
        return result

    def close(self, provider: Any) -> None:
        provider.close()

    def shut(self) -> None:
        """Do nothing: the background loop belongs to the process."""


class AsyncFace(_Face):
    name = "async"
    kind = AsyncProvider

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, main: Callable[[], Any]) -> Any:
        return self._runner.run(main())

    def generate(self, provider: Any, prompt: str | None = "hi", **parameters: Any) -> Any:
        return self._runner.run(provider.generate_text(prompt, **parameters))

    def together(self, provider: Any, count: int) -> list[str]:
        async def main() -> list[str]:
            return list(await asyncio.gather(*(provider.generate_text("hi") for _ in range(count))))

        texts: list[str] = self.run(main)
        return texts

    def _read(self, provider: Any, prompt: str | None, limit: int, typed: bool, parameters: dict[str, Any]) -> Outcome:
        async def main() -> Outcome:
            outcome = Outcome([], None, None)
            seen: list[Any] = outcome.events if typed else outcome.pieces
            try:
                outcome.stream = provider.stream_text(prompt, **parameters)
                async for item in outcome.stream.events() if typed else outcome.stream:
                    seen.append(item)
                    if len(seen) == limit:
                        break
            except Exception as error:
                outcome.error = error
            await asyncio.sleep(0)  # lets the loop close a stream that was left by `break`
            return outcome

        outcome: Outcome = self.run(main)
        return outcome

    def result(self, provider: Any, prompt: str | None = "hi", **parameters: Any) -> GenerateResult:
        async def main() -> GenerateResult:
            result: GenerateResult = await provider.stream_text(prompt, **parameters).result()
            return result

        result: GenerateResult = self.run(main)
        return result

    def close(self, provider: Any) -> None:
        self._runner.run(provider.aclose())

    def shut(self) -> None:
        self._runner.close()


Face = SyncFace | AsyncFace

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

Serve: TypeAlias = Callable[..., FaultServer]
"""Starts a server with these answers, which ends with the test; see `conftest.py`."""
