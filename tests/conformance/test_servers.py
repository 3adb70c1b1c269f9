"""What servers and gateways send around an answer, in the bytes that they send."""

from __future__ import annotations

import json

import pytest

from rusty_agent.types import RawChunk
from tests.replies import replay_every_way

BEGUN = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
PIECE = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
END = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize(
    "sign",
    [
        b"data: null\n\n",  # gateways, as rig#2258 has it
        b"data: []\n\n",
        b"data: 42\n\n",
        b'data: "ping"\n\n',
        b"data: true\n\n",  # as neuron-core/neuron-ai has it, in SSEParserScalarLineTest
        b"data: [PING]\n\n",  # Duck.ai
        b"data: [HEARTBEAT]\n\n",
        b"data: [KEEP_ALIVE]\n\n",
    ],
    ids=repr,
)
def test_a_sign_of_life_costs_no_text(sign: bytes) -> None:
    for body in (
        sign + BEGUN + PIECE + PIECE + END,
        BEGUN + PIECE + sign + sign + PIECE + END,
        BEGUN + PIECE * 2 + sign + END,
    ):
        outcome = replay_every_way(body)
        assert outcome.error is None
        assert (outcome.text, outcome.finish_reason) == ("HiHi", "stop")


def test_signs_of_life_alone_are_no_answer() -> None:
    outcome = replay_every_way(b"data: 42\n\ndata: [DONE]\n\n")
    assert outcome.error is not None
    assert "contains no choices" in outcome.error.message


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hermes.tool.progress", b'{"tool":"terminal","label":"ls","toolCallId":"c1","status":"running"}'),
        ("nanobot.tool.progress", b'{"tool":"exec","toolCallId":"c1","status":"error","error":"exit code 1"}'),  # #3745
    ],
)
def test_a_tool_of_an_agent_that_fails_is_no_failure_of_the_answer(name: str, told: bytes) -> None:
    event = b"event: %b\ndata: %b\n\n" % (name.encode(), told)
    outcome = replay_every_way(BEGUN + event + PIECE + event + PIECE + END)
    assert outcome.error is None
    assert (outcome.text, outcome.finish_reason) == ("HiHi", "stop")
    assert [delta for delta in outcome.deltas if isinstance(delta, RawChunk)] == [RawChunk(json.loads(told))] * 2
