"""Parameters of both faces: how `help()` and editors show them, and what is said of names that there are not."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_type_hints

import pytest

import rusty_agent
from rusty_agent.local import attach
from rusty_agent.parameters import AsyncOptions, Parameters, RunParameters, check_names


@pytest.mark.parametrize(
    "call",
    [
        *(getattr(rusty_agent.Provider, name) for name in ("generate_text", "stream_text", "map", "gather")),
        *(getattr(rusty_agent.AsyncProvider, name) for name in ("generate_text", "stream_text", "map", "gather")),
        rusty_agent.run_batch,
    ],
    ids=lambda call: call.__qualname__,
)
def test_editors_see_the_parameters_that_the_code_calls_parameters(call: Any) -> None:
    shown = inspect.signature(call).parameters
    assert {"temperature", "max_tokens", "extra_body"} <= shown.keys()
    assert "parameters" not in shown
    told = re.findall(r"^    (\w+): ", str(inspect.getdoc(call)), re.MULTILINE)
    assert [name for name in shown if name not in (*told, "self")] == []
    assert "parameters: See" not in str(inspect.getdoc(call))
    assert ("messages" in shown) == (call is not rusty_agent.run_batch)  # which takes them from the rows


@pytest.mark.parametrize("face", [rusty_agent.AsyncProvider, rusty_agent.Provider])
@pytest.mark.parametrize("name", ["__init__", "from_preset", "local", "generate_text", "stream_text", "map", "gather"])
def test_the_types_of_parameters_can_be_looked_up(face: Any, name: str) -> None:
    assert "return" in get_type_hints(getattr(face, name))


@pytest.mark.parametrize("kind", [rusty_agent.Parameters, rusty_agent.RunParameters, rusty_agent.BatchParameters])
def test_the_types_of_what_is_passed_on_can_be_looked_up(kind: Any) -> None:
    assert "temperature" in get_type_hints(kind)


def test_a_parameter_shows_the_default_that_it_has() -> None:
    shown = inspect.signature(rusty_agent.AsyncProvider.map).parameters
    assert {name for name, parameter in shown.items() if parameter.default is False} == {"stream", "progress"}
    assert shown["temperature"].default is None
    assert shown["temperature"].annotation == "float | None"


def test_both_faces_show_the_same_options() -> None:
    """Written out in one place and repeated in others: a default that is shown must be the one that holds."""
    ours = inspect.signature(rusty_agent.AsyncProvider).parameters
    shown = inspect.signature(rusty_agent.Provider).parameters
    assert ours.keys() - shown.keys() == {"session"}
    assert {name: parameter.default for name, parameter in shown.items()} == {
        name: ours[name].default for name in shown
    }


@pytest.mark.parametrize("face", [rusty_agent.AsyncProvider, rusty_agent.Provider])
def test_the_options_of_a_local_model_are_shown(face: Any) -> None:
    taken = dict(inspect.signature(attach).parameters)
    del taken["kind"]
    shown = inspect.signature(face.local).parameters
    assert {name: shown[name].default for name in shown} == {name: taken[name].default for name in taken}


CALL = {"prompt", *Parameters.__annotations__}
RUN = {"prompts", "ordered", "concurrency", *RunParameters.__annotations__}
PROVIDER = {"model", "api_key", "preset", "base_url", *AsyncOptions.__annotations__}


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("temprature", CALL, ": did you mean 'temperature'?"),
        ("system", CALL, ": did you mean 'system_prompt'?"),
        ("request_timeout", CALL, ": did you mean 'timeout'?"),
        ("apikey", PROVIDER, ": did you mean 'api_key'?"),
        ("base_uri", PROVIDER, ": did you mean 'base_url'?"),
        ("default_headers", PROVIDER, ": did you mean 'headers'?"),
        ("top_k", CALL, "; anything else an endpoint takes goes into extra_body"),
        ("safe_prompt", CALL, "; anything else an endpoint takes goes into extra_body"),
        ("random_seed", CALL, "; anything else an endpoint takes goes into extra_body"),
        ("tool_stream", CALL, "; anything else an endpoint takes goes into extra_body"),
        ("max_retries", CALL, ": it is a field of RetryPolicy"),
        ("max_retries", PROVIDER, ": it is a field of RetryPolicy"),
        ("idle", CALL, ": it is a field of Timeout"),
        ("requests_per_minute", CALL, ": it is a field of Limits"),
        ("rpm", CALL, ": it is requests_per_minute of Limits, which a provider takes"),
        ("tpm", CALL, ": it is tokens_per_minute of Limits, which a provider takes"),
        ("max_in_flight", PROVIDER, ": it is in_flight of Limits, which a provider takes"),
        ("limits", RUN | {"limit"}, ": a provider does, when it is created"),
        ("api_key", CALL, ": a provider does, when it is created"),
        ("temperature", PROVIDER, ": generate_text and stream_text do"),
        ("concurrency", CALL, ": map and gather do"),
        ("max_failures", CALL, ": map and gather do"),
        ("stream", CALL, ": generate_text, map and gather do"),
        ("ordered", CALL, ": map does"),
        ("return_exceptions", CALL, ": gather does"),
        ("nothing", PROVIDER, ""),
    ],
)
def test_a_name_that_there_is_not(name: str, known: set[str], said: str) -> None:
    check_names(known, known, "f")
    with pytest.raises(TypeError) as refused:
        check_names([*known, name], known, "f")
    assert str(refused.value) == f"f takes no argument {name!r}{said}"
