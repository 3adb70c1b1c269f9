"""FaultServer's own manners: it ends without a trace, whatever its clients do."""

from __future__ import annotations

import gc
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from rusty_agent import APIConnectionError, Provider, RetryPolicy
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, Received, answer, completion, events, stream
from rusty_agent.wire.codec import dumps

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What destructors complain of."""
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


def test_its_repr_says_where_it_is_and_what_it_has_seen() -> None:
    unbegun = FaultServer()
    assert repr(unbegun) == "<FaultServer that has not begun, 0 requests>"
    with pytest.raises(RuntimeError, match="has not been started: use `with FaultServer"):
        _ = unbegun.url
    with FaultServer() as server:
        Provider("any", api_key="any", base_url=server.url).generate_text("Hi")
        assert repr(server) == f"<FaultServer at {server.url}, 1 requests>"


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_it_stops_quietly_while_a_client_does_not_read(
    leaves: bool, complaints: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with (
            FaultServer(answer([b"x" * 2**20] * 20, framing="chunked")) as server,
            socket.create_connection(("127.0.0.1", server.port)) as client,
        ):
            client.sendall(REQUEST)
            server.wait_for(1)
            if leaves:
                client.close()
            server.stop()
            assert server.open_connections == 0
    gc.collect()
    assert complaints == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=repr,
)
def test_what_is_no_request_is_refused_quietly(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with FaultServer() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(sent)
        assert client.makefile("rb").readline() == b"HTTP/1.1 400 Bad Request\r\n"
    assert caplog.text == ""


def test_what_a_script_raises_is_raised_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    def script(_: Received) -> Answer:
        raise ZeroDivisionError("the test's own mistake")

    with pytest.raises(ZeroDivisionError, match="own mistake"), FaultServer(script) as server:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(REQUEST)
                assert client.recv(100) == b""
    server.stop()  # once is enough
    assert caplog.text == ""


def test_a_server_that_is_never_begun_leaves_nothing(complaints: list[object]) -> None:
    FaultServer()
    gc.collect()
    assert complaints == []


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("leave", [socket.socket.close, lambda client: client.shutdown(socket.SHUT_WR), _reset])
def test_it_sees_a_client_go_that_has_sent_more(leave: Callable[[socket.socket], None]) -> None:
    with (
        FaultServer(Answer((Hang(),))) as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(REQUEST + b"more")
        (request,) = server.wait_for(1)
        assert not request.gone.wait(0.05)
        leave(client)
        assert request.gone.wait(10)


def test_a_client_may_go_in_the_middle_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    with FaultServer() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(REQUEST.replace(b"Length: 0", b"Length: 9") + b"half")
        while not server.connections or server.open_connections:
            time.sleep(0.01)
    gc.collect()
    assert caplog.text == ""
    assert server.requests == []


def test_it_stops_quietly_while_clients_connect(complaints: list[object], caplog: pytest.LogCaptureFixture) -> None:
    for number in range(30):
        with FaultServer(Answer((Hang(),))) as server, ExitStack() as clients:

            def connect(server: FaultServer = server, clients: ExitStack = clients) -> None:
                with suppress(OSError):
                    for _ in range(20):
                        client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                        client.sendall(REQUEST)

            thread = threading.Thread(target=connect)
            thread.start()
            time.sleep(number / 10_000)
            server.stop()
            thread.join()
    gc.collect()
    assert complaints == []
    assert caplog.text == ""


def test_a_framing_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="framing must be"):
        answer(b"", framing="chunkd")


@pytest.mark.parametrize("body", [completion("hi"), dumps(completion("hi")).decode()])
def test_a_completion_or_text_may_be_a_body(body: Any) -> None:
    with FaultServer(answer(body)) as server:
        assert Provider("m", api_key="none", base_url=server.url).generate_text("x") == "hi"


@pytest.mark.parametrize("script", [completion("hi"), "hi", Hang()])
def test_what_is_no_answer_is_refused_at_once(script: Any) -> None:
    with pytest.raises(TypeError, match=r"takes Answers.* answer\(…\) makes one"):
        FaultServer(script)
    with FaultServer() as server, pytest.raises(TypeError, match="takes Answers"):
        server.answer(script)


@pytest.mark.parametrize("step", ["text", 5, Hang])
def test_a_step_that_is_none_is_refused_at_once(step: Any) -> None:
    with pytest.raises(TypeError, match=r"a step must be bytes, Pause\(…\), Hang\(\) or Reset\(\), not"):
        answer([b"data", step], framing="chunked")


@pytest.mark.parametrize("seconds", ["x", -1, None, float("nan")])
def test_a_pause_that_is_none_is_refused_at_once(seconds: Any) -> None:
    with pytest.raises(ValueError, match="a pause must be a number of seconds, at least 0, not"):
        Pause(seconds)


@pytest.mark.parametrize("sent", [b"", b"no JSON", b"[]"])
def test_what_asks_for_no_completion_is_answered_as_an_endpoint_does(sent: bytes) -> None:
    with FaultServer() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        length = b"Content-Length: %d\r\n" % len(sent) if sent else b""
        client.sendall(b"GET /v1/models HTTP/1.1\r\n" + length + b"\r\n" + sent)
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 400 ")


def test_a_server_may_begin_again() -> None:
    server = FaultServer(stream("a"), stream("b"))
    for text in ("a", "b"):
        with server:
            assert Provider("m", api_key="none", base_url=server.url).stream_text("x").result().text == text
    assert len(server.requests) == 2


def test_requests_that_do_not_arrive_are_told() -> None:
    with FaultServer() as server, pytest.raises(TimeoutError, match=r"0 of 1 requests within 0\.01 s"):
        server.wait_for(1, 0.01)


def test_no_answer_at_all_is_refused() -> None:
    with FaultServer() as server, pytest.raises(TypeError, match="at least one"):
        server.answer()


def test_a_script_that_makes_no_answer_is_told_at_the_end() -> None:
    def wrong(request: Received) -> Any:
        return completion("hi")

    with pytest.raises(TypeError, match="must return an Answer, not dict"), FaultServer(wrong) as server:
        provider = Provider("m", api_key="none", base_url=server.url, retry=RetryPolicy(max_retries=0))
        with pytest.raises(APIConnectionError):
            provider.generate_text("x")


def test_a_stream_has_all_that_it_is_not_asked_to_leave_out() -> None:
    role, text, finish, usage, mark = events("Hello")
    assert mark == b"data: [DONE]\n\n"
    assert events("Hello", finish_reason=None) == [role, text, usage, mark]
    assert events("Hello", usage=False) == [role, text, finish, mark]
    assert events("Hello", done=False) == [role, text, finish, usage]


@pytest.mark.parametrize(
    ("scripted", "head", "body", "closed"),
    [
        (answer(b"hi"), b"200 Scripted\r\nContent-Type: application/json\r\nContent-Length: 2", b"hi", False),
        (
            answer("hi", status=500, headers={"A": "b"}, content_type=""),
            b"500 Scripted\r\nA: b\r\nContent-Length: 2",
            b"hi",
            False,
        ),
        (
            answer([b"h", b"", b"i"], content_type="", framing="chunked"),
            b"200 Scripted\r\nTransfer-Encoding: chunked",
            b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
            False,
        ),
        (
            answer(b"h", content_type="", framing="cut"),
            b"200 Scripted\r\nTransfer-Encoding: chunked",
            b"1\r\nh\r\n",
            True,
        ),
        (answer(b"h", content_type="", framing="close"), b"200 Scripted\r\nConnection: close", b"h", True),
    ],
)
def test_an_answer_is_these_bytes(scripted: Answer, head: bytes, body: bytes, closed: bool) -> None:
    steps = [step for step in scripted.steps if isinstance(step, bytes)]
    assert b"".join(steps) == b"HTTP/1.1 " + head + b"\r\n\r\n" + body
    assert scripted.close is closed


def test_wrong_options_of_a_stream_are_told_in_its_name() -> None:
    make: Any = stream
    with pytest.raises(TypeError, match=r"^stream\(\) .* 'finish'"):
        make("Hello", finish="length")
