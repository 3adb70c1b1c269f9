"""The clients that are compared: each asks the endpoint for a whole answer, or for a stream, and returns its text.

In: the endpoint's URL, prompts. Out: texts; the pieces of a stream as they come. Never touched: clocks.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, ClassVar

Seen = Callable[[str], object]
KEY = "key-key-key-key"
PATIENCE = 50_000
"""The garbage collector's threshold in a program that has raised it, in new objects; Python's default is 700."""
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def messages(prompt: str) -> Any:
    """The messages that all clients send."""
    return [{"role": "user", "content": prompt}]


def body(prompt: str, stream: bool) -> dict[str, Any]:
    """The body that the hand-written clients send."""
    return {"model": "m", "messages": messages(prompt), "stream": stream}


class Client:
    """One way to ask.

    Attributes:
        needs: The distributions that it needs; without one of them it is left out, and stderr says so.
        slow: Its work is divided by this.
        blocking: Whether its methods block.
    """

    needs: ClassVar[tuple[str, ...]] = ("aiohttp", "orjson")
    slow: ClassVar[int] = 1
    blocking: ClassVar[bool] = False

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        """Make what needs the running loop, such as a session."""

    async def request(self, prompt: str) -> str:
        """Return a whole answer."""
        raise NotImplementedError

    async def stream(self, prompt: str, seen: Seen) -> None:
        """Read a stream; call `seen` with each piece."""
        raise NotImplementedError

    async def many(self, prompts: Iterable[str], in_flight: int) -> None:
        """Ask for a whole answer to each prompt, `in_flight` at once."""
        left = iter(prompts)

        async def work() -> None:
            for prompt in left:
                await self.request(prompt)

        await asyncio.gather(*(work() for _ in range(in_flight)))


class Raw(Client):
    """The floor: a raw asyncio protocol that knows how this very server frames its answers, and orjson."""

    needs = ("orjson",)

    async def open(self) -> None:
        self.idle: list[_RawConnection] = []
        self.host, _, port = self.url.split("/")[2].partition(":")
        self.port = int(port)

    async def request(self, prompt: str) -> str:
        parts: list[str] = []
        await self.stream(prompt, parts.append, stream=False)
        return parts[0]

    async def stream(self, prompt: str, seen: Seen, stream: bool = True) -> None:
        import orjson

        sent = orjson.dumps(body(prompt, stream))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(sent)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        if self.idle:
            connection = self.idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_RawConnection, self.host, self.port)
        await connection.ask(head.encode() + b"\r\n" + sent, seen, stream)
        self.idle.append(connection)


class _RawConnection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.rest = b""

    def ask(self, sent: bytes, seen: Seen, stream: bool) -> asyncio.Future[None]:
        self.seen = seen
        self.take = self.take_events if stream else self.take_document
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.write(sent)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.take(self.rest + data if self.rest else data)

    def take_document(self, data: bytes) -> None:
        import orjson

        head, _, document = data.partition(b"\r\n\r\n")
        if len(document) < int(head[head.rindex(b" ") :]):
            self.rest = data
            return
        self.rest = b""
        self.seen(orjson.loads(document)["choices"][0]["message"]["content"])
        self.done.set_result(None)

    def take_events(self, data: bytes) -> None:
        import orjson

        *events, self.rest = data.split(b"\n\n\r\n")
        for event in events:
            value = event[event.index(b"data: ") + 6 :]
            if value != b"[DONE]" and (content := orjson.loads(value)["choices"][0]["delta"].get("content")):
                self.seen(content)
        if self.rest == b"0\r\n\r\n":
            self.rest = b""
            self.done.set_result(None)


class Plain(Client):
    """aiohttp as people write it; without its limit of 100 connections, which they find soon enough."""

    async def open(self) -> None:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None)
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        self.target = self.url + "/chat/completions"

    async def request(self, prompt: str) -> str:
        async with self.session.post(self.target, json=body(prompt, False), headers=HEADERS) as response:
            return (await response.json())["choices"][0]["message"]["content"]  # type: ignore[no-any-return]

    async def stream(self, prompt: str, seen: Seen) -> None:
        async with self.session.post(self.target, json=body(prompt, True), headers=HEADERS) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                    if content:
                        seen(content)


class Tuned(Plain):
    """aiohttp and orjson as an expert writes it."""

    async def open(self) -> None:
        import aiohttp

        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self.target = self.url + "/chat/completions"

    async def request(self, prompt: str) -> str:
        import orjson

        sent = orjson.dumps(body(prompt, False))
        async with self.session.post(self.target, data=sent, headers=HEADERS) as response:
            return orjson.loads(await response.read())["choices"][0]["message"]["content"]  # type: ignore[no-any-return]

    async def stream(self, prompt: str, seen: Seen) -> None:
        import orjson

        rest = b""
        sent = orjson.dumps(body(prompt, True))
        async with self.session.post(self.target, data=sent, headers=HEADERS) as response:
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        break
                    content = orjson.loads(event[6:])["choices"][0]["delta"].get("content")
                    if content:
                        seen(content)


class Ours(Client):
    """rusty_agent."""

    async def open(self) -> None:
        from rusty_agent import AsyncProvider

        self.provider = AsyncProvider("m", api_key=KEY, base_url=self.url)

    async def request(self, prompt: str) -> str:
        return await self.provider.generate_text(prompt)

    async def stream(self, prompt: str, seen: Seen) -> None:
        async for piece in self.provider.stream_text(prompt):
            seen(piece)

    async def many(self, prompts: Iterable[str], in_flight: int) -> None:
        async for item in self.provider.map(prompts, concurrency=in_flight, ordered=False):
            assert item.error is None, item.error


class OurWorkers(Ours):
    """rusty_agent, with workers that call generate_text instead of map."""

    many = Client.many


class PatientTuned(Tuned):
    """The tuned one, in a program that has told Python's garbage collector to wait for 50,000 new objects, not 700."""

    async def open(self) -> None:
        gc.set_threshold(PATIENCE)
        await super().open()


class PatientOurs(Ours):
    """rusty_agent, in such a program."""

    async def open(self) -> None:
        gc.set_threshold(PATIENCE)
        await super().open()


class OpenAI(Client):
    """openai-python on its own transport."""

    needs: ClassVar[tuple[str, ...]] = ("openai",)
    slow = 10
    transport: ClassVar[str | None] = None

    async def open(self) -> None:
        import openai

        options = {} if self.transport is None else {"http_client": getattr(openai, self.transport)()}
        self.client = openai.AsyncOpenAI(api_key=KEY, base_url=self.url, **options)

    async def request(self, prompt: str) -> str:
        completion = await self.client.chat.completions.create(model="m", messages=messages(prompt))
        return completion.choices[0].message.content or ""

    async def stream(self, prompt: str, seen: Seen) -> None:
        async for chunk in await self.client.chat.completions.create(model="m", messages=messages(prompt), stream=True):
            if content := chunk.choices[0].delta.content:
                seen(content)


class OpenAIOnAiohttp(OpenAI):
    """openai-python on aiohttp."""

    needs = ("openai", "httpx-aiohttp")
    transport = "DefaultAioHttpClient"


class LiteLLM(Client):
    """litellm's acompletion."""

    needs = ("litellm",)
    slow = 20

    async def open(self) -> None:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else litellm fetches prices from the network
        import litellm

        self.ask = litellm.acompletion

    def options(self, prompt: str) -> dict[str, Any]:
        return {"model": "openai/m", "messages": messages(prompt), "api_key": KEY, "api_base": self.url}

    async def request(self, prompt: str) -> str:
        return (await self.ask(**self.options(prompt))).choices[0].message.content  # type: ignore[no-any-return]

    async def stream(self, prompt: str, seen: Seen) -> None:
        async for chunk in await self.ask(**self.options(prompt), stream=True):
            if content := chunk.choices[0].delta.content:
                seen(content)


class BlockingOurs(Client):
    """rusty_agent's blocking face."""

    blocking = True

    async def open(self) -> None:
        from rusty_agent import Provider

        self.provider: Any = Provider("m", api_key=KEY, base_url=self.url)

    async def request(self, prompt: str) -> str:
        return self.provider.generate_text(prompt)  # type: ignore[no-any-return]

    async def stream(self, prompt: str, seen: Seen) -> None:
        for piece in self.provider.stream_text(prompt):
            seen(piece)


class BlockingSDK(BlockingOurs):
    """rusty-agent-sdk."""

    needs = ("rusty-agent-sdk",)
    slow = 10

    async def open(self) -> None:
        from rusty_agent_sdk import Provider

        self.provider = Provider("m", api_key=KEY, base_url=self.url)


class BlockingOpenAI(OpenAI):
    """openai-python's blocking client."""

    blocking = True

    async def open(self) -> None:
        import openai

        self.blocking_client = openai.OpenAI(api_key=KEY, base_url=self.url)

    async def request(self, prompt: str) -> str:
        completion = self.blocking_client.chat.completions.create(model="m", messages=messages(prompt))
        return completion.choices[0].message.content or ""

    async def stream(self, prompt: str, seen: Seen) -> None:
        for chunk in self.blocking_client.chat.completions.create(model="m", messages=messages(prompt), stream=True):
            if content := chunk.choices[0].delta.content:
                seen(content)


CLIENTS: dict[str, type[Client]] = {
    "raw": Raw,
    "plain": Plain,
    "tuned": Tuned,
    "ours": Ours,
    "ours-workers": OurWorkers,
    "tuned-gc": PatientTuned,
    "ours-gc": PatientOurs,
    "openai": OpenAI,
    "openai-aiohttp": OpenAIOnAiohttp,
    "litellm": LiteLLM,
    "ours-sync": BlockingOurs,
    "sdk-sync": BlockingSDK,
    "openai-sync": BlockingOpenAI,
}


def missing(client: str) -> str | None:
    """A distribution that a client needs and that is not installed, or None."""
    for name in CLIENTS[client].needs:
        try:
            version(name)
        except ImportError:
            return name
    return None
