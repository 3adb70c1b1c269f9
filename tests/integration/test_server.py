"""FaultServer's own manners: it ends without a trace, whatever its clients do."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable

import pytest

from rusty_agent.testing import FaultServer, answer

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_it_stops_quietly_while_a_client_does_not_read(leaves: bool, caplog: pytest.LogCaptureFixture) -> None:
    complaints: list[object] = []
    before: Callable[[sys.UnraisableHookArgs], object] = sys.unraisablehook
    sys.unraisablehook = complaints.append
    try:
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
    finally:
        sys.unraisablehook = before
    assert complaints == []
    assert caplog.text == ""
