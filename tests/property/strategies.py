"""What servers may send, plausible and not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

JSON: TypeAlias = Any

texts = st.text(st.sampled_from('ab {}[]":,\\/\n\r\t\x00\x7f<é世😀\u2028\ufeff\ufffd'), max_size=8)
"""Text of characters over which some encoder, framing or terminal trips."""

loose_texts = st.text(st.sampled_from('ab "\\\n<é😀\ud83d\ude00\ud800\udfff'), max_size=5)
"""The same with lone surrogates."""

scalars = st.none() | st.booleans() | st.integers(-3, 600) | st.floats() | st.integers() | loose_texts


def _nested(inner: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    keys = loose_texts | st.sampled_from(["text", "content", "message", "detail", "loc", "msg", "thinking", "usage"])
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


values = st.recursive(scalars, _nested, max_leaves=6)
"""Any JSON value that Python can read, including non-standard ones."""


def either(plausible: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    """Mostly something plausible, now and then anything."""
    return st.one_of(plausible, plausible, plausible, values)


def records(**fields: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    """Objects with any of these fields, and sometimes another."""
    return st.builds(
        lambda known, more: {**more, **known},
        st.fixed_dictionaries({}, optional={key: either(value) for key, value in fields.items()}),
        st.just({}) | st.just({}) | st.dictionaries(loose_texts, values, max_size=1),
    )


counts = st.integers(0, 9) | st.floats() | st.none()
usages = records(
    prompt_tokens=counts,
    completion_tokens=counts,
    total_tokens=counts,
    prompt_tokens_details=records(cached_tokens=counts),
    completion_tokens_details=records(reasoning_tokens=counts),
)
parts = st.lists(
    either(loose_texts | records(text=loose_texts, thinking=loose_texts, refusal=loose_texts, type=texts)), max_size=2
)
calls = st.lists(
    either(
        records(
            index=st.integers(0, 2) | st.none(),
            id=st.sampled_from(["", "a", "b"]) | st.none(),
            function=records(name=st.sampled_from(["", "f", "g"]), arguments=loose_texts | st.just("{}")),
        )
    ),
    max_size=2,
)
deltas = records(
    role=st.sampled_from(["assistant", ""]),
    content=loose_texts | parts,
    refusal=loose_texts,
    reasoning_content=loose_texts,
    reasoning=loose_texts | records(content=loose_texts),
    reasoning_details=st.lists(either(records(text=loose_texts)), max_size=2),
    tool_calls=calls,
    function_call=records(name=texts, arguments=loose_texts),
)
choices = records(
    index=st.integers(0, 1),
    delta=deltas,
    message=deltas,
    text=loose_texts,
    finish_reason=st.sampled_from([None, "", "stop", "length", "error"]),
    logprobs=st.none() | values,
    usage=usages,
)
chunks = st.one_of(
    records(
        id=texts,
        model=texts,
        choices=st.lists(either(choices), max_size=2),
        usage=usages | st.none(),
        x_groq=records(usage=usages),
        error=st.none() | records(message=loose_texts, code=st.integers(0, 700) | loose_texts, type=texts, param=texts),
        provider=texts,
    ),
    values,
)
"""A chunk, or anything in its place."""

_plain = st.fixed_dictionaries(
    {"choices": st.tuples(st.fixed_dictionaries({"delta": st.fixed_dictionaries({"content": texts})})).map(list)}
)


@st.composite
def plain_chunks(draw: st.DrawFn) -> dict[str, Any]:
    """A chunk with one piece of text, sometimes with something unusual about it."""
    chunk: dict[str, Any] = draw(_plain)
    chunk.update(id="chatcmpl-1", object="chat.completion.chunk", model="m")
    (choice,) = chunk["choices"]
    choice.update(index=0, finish_reason=None)
    text = choice["delta"]["content"]
    forms: list[JSON] = [
        {"role": "assistant", "content": text},
        {"content": text, "reasoning_content": None},
        {"role": "assistant", "content": None, "reasoning_content": text},
        {"reasoning": text},
        {"thinking": text, "content": ""},
        {"content": text, "reasoning": text},
        {"reasoning": text, "reasoning_content": text},
    ]
    if draw(st.booleans()):
        choice.update(delta=draw(st.sampled_from(forms)))
    if draw(st.integers(0, 3)) == 0:  # like the first or the last chunk of a stream
        empty: JSON = draw(st.sampled_from([{}, {"role": "assistant", "content": ""}, {"role": "x", "refusal": None}]))
        choice.update(delta=empty, finish_reason=draw(st.sampled_from([None, "", "stop", "é", "error", 1, ["stop"]])))
    odd = draw(st.sampled_from(["", "", "", "", "chunk", "choice", "delta"]))
    target = {"chunk": chunk, "choice": choice, "delta": choice["delta"]}.get(odd, {})
    if odd:
        value: JSON = draw(
            st.sampled_from([None, "", 0, {}, [], "x", 1, {"message": "m"}, {"usage": {"total_tokens": 1}}])
        )
        names = {
            "chunk": [
                "usage",
                "x_groq",
                "error",
                "provider",
                "timings",
                "detail",
                "choices",
                "model",
                "id",
                "new",
                "p",
            ],
            "choice": ["usage", "error", "finish_reason", "index", "logprobs", "text", "message", "delta", "other"],
            "delta": ["role", "reasoning", "refusal", "tool_calls", "content", "other"],
        }
        target[draw(st.sampled_from(names[odd]))] = value
        if draw(st.booleans()):
            apart = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}
            target["usage"] = draw(st.sampled_from([{"total_tokens": 2}, apart]))
    if draw(st.booleans()):
        padding: JSON = draw(st.sampled_from(["", "a", "Zz9", "é", '"', "a b"]))
        chunk[draw(st.sampled_from(["obfuscation", "p"]))] = padding
    return chunk


@st.composite
def plain_documents(draw: st.DrawFn) -> dict[str, Any]:
    """A whole answer with text, sometimes with something unusual about it."""
    document = draw(plain_chunks())
    for choice in document["choices"] if isinstance(document["choices"], list) else []:
        if isinstance(choice, dict) and "message" not in choice:
            choice["message"] = choice["delta"] if draw(st.booleans()) else choice.pop("delta")
            choice["finish_reason"] = draw(st.sampled_from(["stop", "stop", "error", "", None]))
    return document


@st.composite
def cut(draw: st.DrawFn, data: Sequence[Any]) -> list[Any]:
    """A sequence cut into pieces, some of which may be empty."""
    points = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *points], [*points, len(data)], strict=True)]
