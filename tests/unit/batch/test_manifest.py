"""The manifest: what comes back from its file, what counts as a change, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent import __version__
from rusty_agent.batch.manifest import Manifest
from rusty_agent.errors import BatchError
from rusty_agent.wire.codec import dumps, loads
from tests.frames import Float32, Int64

from .lines import unsynced

MANIFEST = Manifest(
    input_sha256="ab" * 32,
    input_bytes=1234,
    rows=1000,
    parameters={"model": "a", "parameters": {"temperature": 0.5, "stop": ("x", "y")}, "template": None},
)


def changed(**parameters: Any) -> Manifest:
    return evolve(MANIFEST, parameters={**MANIFEST.parameters, **parameters})


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "out.manifest.json"
    assert Manifest.load(path) is None
    MANIFEST.save(path)
    assert Manifest.load(path) == MANIFEST
    told = loads(path.read_bytes())
    assert told["version"] == __version__
    assert told["parameters_digest"] == MANIFEST.parameters_digest
    assert len(MANIFEST.parameters_digest) == 64


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_what_comes_back_never_differs(tmp_path_factory: pytest.TempPathFactory, parameters: dict[str, Any]) -> None:
    """Whatever Python makes of big integers, lone surrogates and tuples."""
    path = tmp_path_factory.getbasetemp() / "manifest.json"
    manifest = evolve(MANIFEST, parameters=parameters)
    with unsynced():
        manifest.save(path)
    again = Manifest.load(path)
    assert again == manifest
    assert manifest.changes(again) == []


@given(st.dictionaries(st.text(), values, max_size=4), st.dictionaries(st.text(), values, max_size=4))
def test_a_change_has_a_sentence(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = evolve(MANIFEST, parameters=one), evolve(MANIFEST, parameters=other)
    differs = first.parameters_digest != second.parameters_digest
    assert bool(first.changes(second)) == differs == bool(second.changes(first))


def test_order_and_version_are_no_change() -> None:
    backwards = {key: MANIFEST.parameters[key] for key in reversed(MANIFEST.parameters)}
    other = evolve(MANIFEST, parameters=backwards, version="99")
    assert MANIFEST.changes(other) == []
    assert other.parameters_digest == MANIFEST.parameters_digest


def test_a_number_is_the_same_in_either_form() -> None:
    one, other = changed(seed=1, extra={"x": [0, 2**53, 10**20]}), changed(seed=1.0, extra={"x": [0.0, 2**53, 10**20]})
    assert one == other
    assert one.changes(other) == []
    assert changed(seed=1).changes(changed(seed=1.5)) == ["parameter seed: 1 -> 1.5"]
    numpys = changed(seed=Float32("1"), extra={"x": [Float32("0"), Int64(2**53), 10**20]})
    assert one.changes(numpys) == []


def test_any_mapping_of_any_keys_is_the_object_that_is_sent() -> None:
    bias = {50256: -100, "11": 5}
    given_parameters = {"response_format": MappingProxyType({"type": "text"}), "extra_body": {"logit_bias": bias}}
    manifest = evolve(MANIFEST, parameters=given_parameters)
    assert manifest.parameters == {
        "response_format": {"type": "text"},
        "extra_body": {"logit_bias": {"11": 5, "50256": -100}},
    }


def test_keys_are_left_out_wherever_they_stand(tmp_path: Path) -> None:
    """And one that an earlier version has written down is neither a change nor shown."""
    tool = {"type": "mcp", "server_label": "x", "authorization": "hush", "headers": {"X-Api-Key": "hush"}}
    tool["server_url"] = "https://me:hush@mcp.example.com/mcp?apiKey=hush&lang=en"
    fallback = {"model": "b", "api_key": "hush", "api_keys": ["hush"]}
    keys = {"tools": [tool], "extra_body": {"api_key": "hush", "fallbacks": [fallback]}}
    manifest = changed(**keys)
    assert manifest.parameters["tools"] == [
        {"type": "mcp", "server_label": "x", "headers": {}, "server_url": "https://mcp.example.com/mcp?lang=en"}
    ]
    assert manifest.parameters["extra_body"] == {"fallbacks": [{"model": "b"}]}
    assert changed(extra_body={"api_key": "hush", "max_tokens": 5}).parameters["extra_body"] == {"max_tokens": 5}
    assert changed(extra_body={"api_key": "hush"}) == MANIFEST
    path = tmp_path / "m"
    manifest.save(path)
    told = loads(path.read_bytes())
    path.write_bytes(dumps({**told, "parameters": {**told["parameters"], **keys}}))
    before = Manifest.load(path)
    assert before is not None
    assert before.changes(manifest) == []
    assert not [sentence for sentence in before.changes(MANIFEST) if "hush" in sentence]


def test_the_caller_may_go_on_to_change_what_it_gave() -> None:
    given_parameters: dict[str, Any] = {"stop": ["x"]}
    manifest = evolve(MANIFEST, parameters=given_parameters)
    given_parameters["stop"].append("y")
    assert manifest.parameters == {"stop": ["x"]}


@pytest.mark.parametrize(
    ("now", "sentences"),
    [
        (changed(model="b"), ["parameter model: 'a' -> 'b'"]),
        (changed(parameters={"temperature": 1}), ["parameter parameters.stop: ['x', 'y'] -> not set"]),
        (changed(seed=1), ["parameter seed: not set -> 1"]),
        (changed(template=[]), ["parameter template: None -> []"]),
        (changed(extra_body={}), []),  # as the command gives it where it has no --option
        (
            evolve(MANIFEST, input_sha256="cd" * 32, input_bytes=31, rows=1),
            [
                "the input changed: 1,000 rows, 1,234 bytes, sha256 abababababab… -> "
                "1 row, 31 bytes, sha256 cdcdcdcdcdcd…"
            ],
        ),
        (
            evolve(MANIFEST, input_sha256=None, input_bytes=None, rows=None),
            [
                "the input changed: 1,000 rows, 1,234 bytes, sha256 abababababab… -> rows that are not from a file",
            ],
        ),
        (evolve(MANIFEST, rows=1001), []),  # the same bytes are the same rows
    ],
    ids=["model", "missing", "new", "empty", "no-fields", "input", "no-file", "rows-of-the-same-bytes"],
)
def test_sentences(now: Manifest, sentences: list[str]) -> None:
    assert MANIFEST.changes(now)[: len(sentences) or None] == sentences


def test_only_long_values_are_cut_to_where_they_begin_to_differ() -> None:
    one, other = "http://127.0.0.1:8001/v1", "http://127.0.0.1:8002/v1"
    assert changed(url=one).changes(changed(url=other)) == [f"parameter url: {one!r} -> {other!r}"]
    (sentence,) = changed(template="x" * 500 + "old" + "y" * 500).changes(changed(template="x" * 500 + "new"))
    assert "xxxoldyyy" in sentence
    assert "xxxnew'" in sentence
    assert len(sentence) < 160


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b'{"input_sha256":1,"input_bytes":1,"rows":1,"parameters":{},"version":"1"}',
        b'{"input_sha256":"a","input_bytes":"1","rows":1,"parameters":{},"version":"1"}',
        b'{"input_sha256":"a","input_bytes":1,"rows":1,"parameters":null,"version":"1"}',
    ],
)
def test_a_damaged_one(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(BatchError, match=r"m cannot be read: it is not a manifest .* move it away and run the batch"):
        Manifest.load(path)


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"cannot be read: (Is a directory|Permission denied)"):
        Manifest.load(tmp_path)


def test_parameters_that_json_has_no_form_for() -> None:
    with pytest.raises(ValueError):
        evolve(MANIFEST, parameters={"a": object()})
