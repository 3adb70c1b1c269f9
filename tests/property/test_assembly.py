"""Tool calls, written in any server's dialect and cut anywhere, assemble to the same calls."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import cut, loose_texts
from tests.replies import chunk, replay, sse

Call = tuple[str, dict[str, Any]]

arguments = st.dictionaries(
    loose_texts.map(lambda text: text.encode("utf-16", "replace").decode("utf-16")),
    st.integers(-(2**63), 2**63 - 1) | st.none(),  # larger ones are floats to orjson, as RFC 8259 §6 foresees
    max_size=3,
)
calls = st.lists(st.tuples(st.sampled_from(["f", "g"]), arguments), min_size=1, max_size=4)


def _entries(draw: st.DataObject, number: int, call: Call, dialect: str) -> list[dict[str, Any]]:
    name, value = call
    text = json.dumps(value, ensure_ascii=False)
    if dialect == "object":
        return [{"function": {"name": name, "arguments": value}}]
    if dialect == "whole":
        return [{"function": {"name": name, "arguments": text}}]
    if dialect == "whole at index 0":
        return [{"index": 0, "id": "", "type": "function", "function": {"name": name, "arguments": text}}]
    entries: list[dict[str, Any]] = []
    for piece in draw.draw(cut(text)):
        entry: dict[str, Any] = {"function": {"arguments": piece or draw.draw(st.sampled_from(["", None]))}}
        if not entries or dialect in ("all repeated", "ids only"):
            entry["function"]["name"] = name
            entry["id"] = f"id_{number}"
        elif draw.draw(st.booleans()):
            entry |= {"id": "", "type": None}
        if dialect not in ("ids only", "ids at first"):
            entry["index"] = {"openai": number, "all repeated": number, "from 5": 5 + 3 * number, "reused": 0}[dialect]
        entries.append(entry)
    return entries


DIALECTS = [
    "openai",
    "all repeated",
    "from 5",
    "reused",
    "ids only",
    "ids at first",
    "whole",
    "whole at index 0",
    "object",
]


@given(calls, st.sampled_from(DIALECTS), st.booleans(), st.data())
def test_dialects(wanted: list[Call], dialect: str, together: bool, draw: st.DataObject) -> None:
    entries = [entry for number, call in enumerate(wanted) for entry in _entries(draw, number, call, dialect)]
    groups = draw.draw(cut(entries)) if together else [[entry] for entry in entries]
    body = sse(*(chunk(tool_calls=group) for group in groups), chunk(finish="tool_calls"))
    outcome = replay(draw.draw(cut(body)))
    assert outcome.error is None
    assert [(call.name, json.loads(call.arguments)) for call in outcome.tool_calls] == wanted
    with_ids = dialect not in ("whole", "whole at index 0", "object")
    assert [call.id for call in outcome.tool_calls] == [
        f"id_{number}" if with_ids else f"call_{number}" for number in range(len(wanted))
    ]


@given(
    calls,
    st.sampled_from(["openai", "all repeated", "from 5", "ids only"]),
    st.randoms(use_true_random=False),
    st.data(),
)
def test_calls_may_interleave(wanted: list[Call], dialect: str, random: Any, draw: st.DataObject) -> None:
    """Where every piece names its call, by index or id, pieces of different calls may come in any mixture."""
    dialect = dialect if dialect in ("all repeated", "ids only") else "openai"
    queues = [_entries(draw, number, call, dialect) for number, call in enumerate(wanted)]
    mixed = []
    while any(queues):
        mixed.append(random.choice([queue for queue in queues if queue]).pop(0))
    outcome = replay([sse(*(chunk(tool_calls=[entry]) for entry in mixed), chunk(finish="tool_calls"))])
    told = {call.id: (call.name, json.loads(call.arguments)) for call in outcome.tool_calls}
    assert told == {f"id_{number}": call for number, call in enumerate(wanted)}
