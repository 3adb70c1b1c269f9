"""A stage for the documentation's examples: every endpoint that they name is one scripted server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

import rusty_agent.config
import rusty_agent.provider
from rusty_agent import PRESETS, AsyncProvider, Provider
from rusty_agent.testing import Answer, FaultServer, Pause, Received, answer, completion, error, events, stream

from . import replies


def reply(request: Received) -> Answer:
    """The scripted model's answer to a request."""
    asked = request.json
    text = asked["messages"][-1]["content"]
    if "breaks off" in text:
        return stream("Once ", "upon a", finish_reason=None, usage=False, done=False)
    if asked["model"] == "no-such-model":
        return error(404, "The model no-such-model does not exist.", code="model_not_found")
    if "tools" in asked and asked["messages"][-1]["role"] != "tool":
        return _tool_call()
    said = replies.to(text, json=asked.get("response_format") is not None)
    if not asked.get("stream"):
        return answer(completion(said, model=asked["model"]))
    pieces = [word + " " for word in said.split(" ")]
    pieces[-1] = pieces[-1][:-1]
    steps = [part for sent in events(*pieces) for part in (sent, Pause(0.001))]
    return answer(steps, content_type="text/event-stream", framing="chunked")


def _tool_call() -> Answer:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return answer(completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))


@pytest.fixture
def endpoint(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """Redirect every endpoint but those on 127.0.0.1 to the scripted server; every key is set, and no setting."""
    for preset in PRESETS.values():
        monkeypatch.setenv(preset.key_variable, "a-key-for-the-examples")
    checked = rusty_agent.config.chat_url

    with FaultServer(reply) as server:

        def here(base_url: str) -> str:
            url = checked(base_url)
            return url if urlsplit(url).hostname == "127.0.0.1" else server.url + "/chat/completions"

        monkeypatch.setattr(rusty_agent.provider, "chat_url", here)
        for kind in (AsyncProvider, Provider):
            monkeypatch.setattr(kind, "local", classmethod(_instead_of_a_model))
        yield server
        logging.getLogger("rusty_agent").setLevel(logging.NOTSET)  # an example has turned logging on


def _instead_of_a_model(kind: Any, /, model_path: str | None = None, **options: Any) -> Any:
    assert options.keys() <= {"threads", "context", "parallel", "start_timeout"}, options
    return kind("local", api_key="none")
