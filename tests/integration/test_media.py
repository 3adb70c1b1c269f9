"""Media in the deltas of a stream are content, though no event of their own carries them."""

from __future__ import annotations

import time

from rusty_agent import RawChunk, Timeout
from rusty_agent.testing import Pause, answer
from rusty_agent.testing.answers import chunk, event

from .faces import Face, Serve


def test_audio_is_handed_out_as_it_comes_and_keeps_a_stream_alive(face: Face, serve: Serve) -> None:
    steps = [step for n in range(8) for step in (event(chunk({"audio": {"id": "a", "data": f"{n}"}})), Pause(0.15))]
    server = serve(answer([*steps, event(chunk({}, "stop")), event("[DONE]")], content_type="text/event-stream"))
    began = time.monotonic()
    outcome = face.events(face.provider(server), timeout=Timeout(first_token=1, stall=1))
    assert time.monotonic() - began > 1.1
    assert [
        item.data["choices"][0]["delta"]["audio"]["data"] for item in outcome.events if isinstance(item, RawChunk)
    ] == [*"01234567"]
    assert outcome.error is None
    assert outcome.stream.time_to_first_token < 1
    assert len(server.requests) == 1
