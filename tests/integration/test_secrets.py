"""The key goes to the endpoint and nowhere else; TLS is verified."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rusty_agent import (
    APIConnectionError,
    AsyncProvider,
    BatchError,
    Provider,
    RetryPolicy,
    RustyAgentError,
    Timeout,
    run_batch,
)
from rusty_agent.testing import Answer, Hang, Received, answer, completion, error
from rusty_agent.testing.answers import chunk, event
from rusty_agent.wire.codec import dumps

from ..captured import captured
from .answers import STARTED
from .faces import KEY, TLS, Face, Serve
from .prompts import gather

QUOTES = {
    "an error body": error(401, f"Incorrect API key provided: {KEY}", key=KEY, deep=[[{"k": KEY}]]),
    "an error page": answer(f"<title>{KEY}</title>".encode(), status=502, content_type="text/html"),
    "an error header": error(429, headers={"x-echo": KEY, "Retry-After": "0"}),
    "an error inside a stream": answer([event(chunk({"content": "x"})), event({"error": {"message": KEY}})]),
    "an event that is no JSON": answer([event(chunk({"content": "x"})), event(f"{{{KEY}")]),
    "a page instead of an answer": answer(f"<html>{KEY}".encode()),
    "a redirect": answer(b"", status=307, headers={"Location": f"http://other.invalid/{KEY}"}),
    "no HTTP": Answer((f"{KEY}\r\n\r\n".encode(),), close=True),
    "nothing": Answer((), close=True),
}


PASSWORD = "proxy-password-98765"
URL_KEY = "key-in-url-12345"
BASIC = "dXNlcjpwYXNzd29yZA=="


def echo(request: Received) -> Answer:
    """Refuse, and quote what came."""
    credentials = request.headers["authorization"].split()[-1]
    return error(403, f"{request.path} is blocked for {credentials} ({request.headers.get('proxy-authorization')})")


OTHERS = {"Authorization": "Bearer auth-header-1234", "x-api-key": "x-api-key-1234", "Cookie": "session=cookie-1234"}
SECRETS = [KEY, PASSWORD, URL_KEY, "own-header-1234", *(value.split()[-1].split("=")[-1] for value in OTHERS.values())]
REFUSED: dict[str, Answer] = {
    "a key": error(401, "no"),
    "a parameter": error(400, "temperature is not supported"),
    "too much": error(429, "no"),
    "nothing": Answer((), close=True),
    "silence": Answer((Hang(),)),
    "an error inside": answer([event(chunk({"content": "x"})), event({"error": {"message": "no"}})]),
    "a cut": answer([event(chunk({"content": "x"}))], content_type="text/event-stream", framing="cut"),
}


def _failure(face: Face, way: str, provider: Any, **parameters: Any) -> BaseException:
    """The error of a call that fails."""
    if way == "stream":
        raised = face.stream(provider, **parameters).error
        assert raised is not None
        return raised
    with pytest.raises((RustyAgentError, ValueError, TypeError)) as caught:
        if way == "generate":
            face.generate(provider, **parameters)
        else:
            gather(face, provider, ["hi"], **parameters)
    return caught.value


@pytest.mark.parametrize("way", ["generate", "stream", "gather"])
@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_no_captured_local_shows_a_key_of_a_call_that_fails(
    face: Face, serve: Serve, name: str, proxied: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rusty_agent.net.retry.TURNS", 2)  # all of them take seconds
    url = serve(REFUSED[name]).url
    proxy = url.removesuffix("/v1").replace("http://", f"http://me:{PASSWORD}@") if proxied else None
    options: dict[str, Any] = {"headers": {"X-Auth-Token": "own-header-1234"}, "proxy": proxy}
    provider = face.provider(f"{url}?key={URL_KEY}", retry=RetryPolicy(max_retries=1, base_delay=0), **options)
    limits = Timeout(total=0.1 if name == "silence" else 10)
    shown = captured(_failure(face, way, provider, extra_headers=OTHERS, timeout=limits, temperature=1))
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("way", ["generate", "stream", "gather"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"extra_headers": {**OTHERS, "x y": "z"}},
        {"extra_headers": {**OTHERS, "z": f"{KEY}\n"}},
        {"extra_headers": list(OTHERS.items())},
        {"timeout": -1},
        {"tiemout": 1},
        {"extra_body": {"x": int}},
    ],
    ids=repr,
)
def test_no_captured_local_shows_a_key_of_a_call_that_is_wrong(face: Face, way: str, wrong: dict[str, Any]) -> None:
    provider = face.provider(f"http://127.0.0.1:1/v1?key={URL_KEY}")
    shown = captured(_failure(face, way, provider, **({"extra_headers": OTHERS} | wrong)))
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"tiemout": 1}, {"timeout": -1}, {}], ids=repr)
async def test_no_captured_local_shows_a_key_of_a_batch_that_cannot_begin(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    provider = AsyncProvider("m", api_key=KEY, base_url=f"http://127.0.0.1:1/v1?key={URL_KEY}")
    with pytest.raises((BatchError, ValueError, TypeError, OSError)) as raised:
        await run_batch(tmp_path / "missing", tmp_path / "out", provider, extra_headers=OTHERS, **wrong)
    shown = captured(raised.value)
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("proxy", [None, f"http://me:{PASSWORD}@127.0.0.1:1"])
@pytest.mark.parametrize("way", ["generate", "stream", "gather"])
def test_no_captured_local_shows_a_key_of_a_call_to_nowhere(face: Face, way: str, proxy: str | None) -> None:
    provider = face.provider(f"http://127.0.0.1:1/v1?key={URL_KEY}", retry=RetryPolicy(max_retries=0), proxy=proxy)
    shown = captured(_failure(face, way, provider, extra_headers=OTHERS))
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("way", ["generate", "stream", "gather"])
def test_no_captured_local_shows_a_key_of_a_call_of_a_closed_provider(face: Face, way: str) -> None:
    provider = face.provider(f"http://127.0.0.1:1/v1?key={URL_KEY}")
    face.close(provider)
    shown = captured(_failure(face, way, provider, extra_headers=OTHERS))
    assert [secret for secret in SECRETS if secret in shown] == []


async def test_no_captured_local_shows_a_key_of_a_call_of_a_closed_session() -> None:
    async with aiohttp.ClientSession() as session:
        llm = AsyncProvider("m", api_key=KEY, base_url=f"http://127.0.0.1:1/v1?key={URL_KEY}", session=session)
    with pytest.raises(APIConnectionError) as raised:
        await llm.generate_text("hi", extra_headers=OTHERS)
    shown = captured(raised.value)
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("script", [Answer((Hang(),)), STARTED], ids=["silent", "started"])
@pytest.mark.parametrize("how", ["cancel", "timeout", "total", "first_token", "idle", "provider"])
async def test_no_captured_local_shows_the_key(serve: Serve, how: str, script: Answer) -> None:
    server = serve(script)
    llm = AsyncProvider("m", api_key=KEY, base_url=server.url, retry=RetryPolicy(max_retries=0))
    limits = {
        "total": Timeout(total=0.1),
        "first_token": Timeout(first_token=0.1, idle=0.1),
        "idle": Timeout(idle=0.1),
    }.get(how)
    call = llm.stream_text("hi", timeout=limits).result()
    task = asyncio.ensure_future(call)
    if limits is None:  # else the time may be over before anything is sent
        await asyncio.to_thread(server.wait_for, 1)
    if how == "cancel":
        task.cancel("the reason")
    elif how == "provider":
        await llm.aclose()
    with pytest.raises((asyncio.CancelledError, TimeoutError, RustyAgentError)) as raised:
        await (asyncio.wait_for(task, 0.05) if how == "timeout" else task)
    assert KEY not in captured(raised.value)
    if how == "cancel":
        assert raised.value.args == ("the reason",)


@pytest.mark.parametrize("kind", [Provider, AsyncProvider])
@pytest.mark.parametrize("call", ["generate_text", "stream_text", "map", "gather", "local"])
async def test_a_key_that_is_given_to_a_call_is_refused_and_not_shown(kind: Any, call: str) -> None:
    with pytest.raises(TypeError, match=f"{call} takes no argument 'api_key'") as raised:
        given = getattr(kind("m", api_key=KEY), call)("hi" if "text" in call else ["hi"], api_key=KEY)
        await given
    assert call == "local" or str(raised.value).endswith(": a provider does, when it is created")
    assert KEY not in captured(raised.value)


@pytest.mark.parametrize("authorization", [f"Basic {BASIC}", f"bearer {BASIC}", f"Token  {BASIC}"])
def test_what_is_quoted_is_masked(face: Face, serve: Serve, authorization: str) -> None:
    proxy = serve(echo).url.removesuffix("/v1").replace("http://", f"http://me:{PASSWORD}@")
    provider = face.provider(
        f"http://nowhere.invalid/v1?key={URL_KEY}&api-version=7",
        proxy=proxy,
        headers={"Authorization": authorization},
    )
    raised = face.stream(provider).failure
    assert "/v1/chat/completions?key=***&api-version=7 is blocked for ***" in str(raised)
    assert "(Basic ***)" in str(raised)
    for secret in (BASIC, URL_KEY, PASSWORD, b64encode(f"me:{PASSWORD}".encode()).decode()):
        assert secret not in everything(raised) + repr(provider)


@pytest.mark.parametrize("proxy", ["me:{}@127.0.0.1:1", "socks5://me:{}@127.0.0.1:1", "http://me:{}@127.0.0.1:99999"])
def test_no_error_shows_the_password_of_a_proxy(face: Face, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"proxy .*\*\*\*@127") as refused:
        face.provider("http://127.0.0.1:1/v1", proxy=proxy.format(PASSWORD))
    assert PASSWORD not in str(refused.value)
    monkeypatch.setenv("http_proxy", proxy.format(PASSWORD))
    monkeypatch.setenv("no_proxy", "")
    provider = face.provider("http://nowhere.invalid/v1", trust_env=True, retry=RetryPolicy(max_retries=0))
    raised = face.stream(provider).failure
    assert "could not be sent: the environment's http_proxy" in str(raised)
    assert PASSWORD not in str(raised) + repr(vars(raised))


def everything(raised: BaseException) -> str:
    """All that a log, a debugger or an error tracker shows of an error, its causes included."""
    shown = [str(raised), repr(raised), repr(vars(raised)), "".join(traceback.format_exception(raised))]
    cause: BaseException | None = raised
    while cause is not None:
        shown += [repr(cause), repr(getattr(cause, "__dict__", ""))]
        cause = cause.__cause__ or cause.__context__
    locals_of = traceback.TracebackException.from_exception(raised, capture_locals=True)
    ours = [frame.locals or {} for frame in locals_of.stack if "/rusty_agent/" in frame.filename]
    for names in ours:
        names.pop("response", "")  # what the server sent, in aiohttp's words
    return "\n".join([*shown, *map(repr, ours)])


@pytest.mark.parametrize("name", QUOTES)
def test_no_error_shows_the_key(face: Face, serve: Serve, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.DEBUG)
    provider = face.provider(serve(QUOTES[name]), retry=RetryPolicy(max_retries=1, base_delay=0))
    raised = face.stream(provider).error
    assert isinstance(raised, RustyAgentError)
    assert KEY not in everything(raised)
    assert KEY not in caplog.text
    assert KEY not in repr([record.args for record in caplog.records])
    assert KEY not in repr(provider) + repr(vars(provider)) + str(provider)


@pytest.mark.parametrize("name", ["an error body", "an error header", "an error inside a stream"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"extra_headers": {"api_key": KEY, "top_k": "5"}},
        {"extra_body": {"api_key": KEY, "top_k": "5"}},
        {"extra_body": {"fallbacks": [{"model": "m", "api_key": KEY}]}},
        {"extra_body": {"tools": [{"type": "mcp", "server_url": f"https://h/sse?api_key={KEY}"}]}},
    ],
    ids=["header", "body", "body-deep", "body-url"],
)
def test_no_error_shows_a_key_that_one_call_was_given(
    face: Face, serve: Serve, name: str, parameters: dict[str, Any]
) -> None:
    provider = face.provider(serve(QUOTES[name]), api_key="key-of-the-provider", retry=RetryPolicy(max_retries=0))
    raised = face.stream(provider, **parameters).error
    assert isinstance(raised, RustyAgentError)
    assert KEY not in everything(raised)
    assert "***" in str(raised) + repr(vars(raised))


def test_a_refused_connection_shows_no_key(face: Face) -> None:
    raised = face.stream(face.provider("http://127.0.0.1:1/v1", retry=RetryPolicy(max_retries=0))).error
    assert raised is not None
    assert KEY not in everything(raised)


def test_results_show_no_key(face: Face, serve: Serve) -> None:
    result = face.generate(face.provider(serve(answer(completion("hi", echo={"key": KEY})))), include_usage=True)
    assert (result.text, result.raw["echo"]) == ("hi", {"key": "***"})


def test_what_only_sounds_like_a_key_is_struck_out_of_no_result(face: Face, serve: Serve) -> None:
    provider, named = face.provider(serve(answer(completion("hi")))), {"prompt_cache_key": "completion"}
    assert face.generate(provider, include_usage=True, extra_body=named).raw["object"] == "chat.completion"


def test_escapes_hide_no_key_and_fields_stay_in_order(face: Face, serve: Serve) -> None:
    escaped = "".join(f"\\u{ord(each):04x}" for each in KEY)
    document = dumps({"echo": "?", **completion("hi"), "last": 1}).replace(b"?", escaped.encode())
    result = face.generate(face.provider(serve(answer(document))), include_usage=True)
    assert (result.text, result.raw["echo"]) == ("hi", "***")
    assert list(result.raw) == ["echo", *completion("hi"), "last"]


def test_names_of_fields_show_no_key(face: Face, serve: Serve) -> None:
    document = dumps({KEY: {KEY: 1}, **completion(f"my {KEY}")})
    result = face.generate(face.provider(serve(answer(document))), include_usage=True)
    assert (result.text, result.raw["***"]) == (f"my {KEY}", {"***": 1})
    assert list(result.raw) == ["***", *completion("")]


def test_errors_cannot_steer_a_terminal(face: Face, serve: Serve) -> None:
    raised = face.stream(face.provider(serve(error(400, "a\x1b[2Jb\r\nc\x9b31m\u202ed")))).failure
    assert str(raised).isprintable()
    assert "\\x1b[2Jb c" in str(raised)


def test_errors_bodies_are_capped(face: Face, serve: Serve) -> None:
    raised: Any = face.stream(face.provider(serve(answer(b"x" * 200_000, status=400)))).error
    assert len(raised.body) == 64 * 2**10
    assert len(str(raised)) < 2000


@contextlib.asynccontextmanager
async def tls_server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that speaks TLS and says «safe»; what it was sent is in the list."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            received.append(head)
            writer.write(b"".join(step for step in answer(completion("safe")).steps if isinstance(step, bytes)))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], received


async def ask(url: str, **options: Any) -> str:
    async with AsyncProvider("m", api_key=KEY, base_url=url, **options) as llm:
        return await llm.generate_text("hi")


async def test_tls_with_a_ca_of_ones_own() -> None:
    async with tls_server() as (port, received):
        context = ssl.create_default_context(cafile=TLS / "ca.pem")
        assert await ask(f"https://localhost:{port}/v1", ssl=context) == "safe"
        assert KEY.encode() in received[0]


@pytest.mark.parametrize("case", ["unknown CA", "another host's certificate"])
async def test_tls_is_verified_before_a_byte_of_http(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    options: dict[str, Any] = {"retry": RetryPolicy(on_attempt=reports.append)}
    if case != "unknown CA":
        options["ssl"] = ssl.create_default_context(cafile=TLS / "ca.pem")
    async with tls_server() as (port, received):
        host = "localhost" if case == "unknown CA" else "127.0.0.1"
        with pytest.raises(APIConnectionError, match="secure connection"):
            await ask(f"https://{host}:{port}/v1", **options)
    assert received == []
    assert len(reports) == 1  # trying again would not help
