"""What the tests of `map` and `gather` share: an endpoint that echoes the prompt, and calls through both faces."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from rusty_agent import MapItem
from rusty_agent.testing import Answer, Hang, Pause, Received, answer, completion, error, stream
from rusty_agent.wire.codec import dumps

from .faces import AsyncFace, Face

__all__ = ["echo", "gather", "items"]


def echo(request: Received) -> Answer:
    """Answer with the prompt; «bad …» is refused, «hang …» is never answered, «slow …» only after half a second."""
    text = request.json["messages"][-1]["content"]
    if text.startswith("bad"):
        return error(400, f"{text} is refused")
    if text.startswith("hang"):
        return Answer((Hang(),))
    if request.json.get("stream"):
        return stream(text[:1], text[1:])
    whole = dumps(completion(text))
    return answer([Pause(0.5), whole] if text.startswith("slow") else whole)


def gather(face: Face, provider: Any, prompts: Any, **options: Any) -> Any:
    made = provider.gather(prompts, **options)
    return face.run(lambda: made) if isinstance(face, AsyncFace) else made


def items(face: Face, provider: Any, prompts: Any, limit: int = -1, **options: Any) -> list[MapItem]:
    """The items of a run, or the first few of them."""
    if not isinstance(face, AsyncFace):
        seen = []
        for item in provider.map(prompts, **options):
            seen.append(item)
            if len(seen) == limit:
                break
        return seen

    async def main() -> list[MapItem]:
        seen = []
        async with aclosing(provider.map(prompts, **options)) as run:
            async for item in run:
                seen.append(item)
                if len(seen) == limit:
                    break
        return seen

    found: list[MapItem] = face.run(main)
    return found
