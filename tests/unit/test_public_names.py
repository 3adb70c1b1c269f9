"""What `import rusty_agent` offers, and what it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

import rusty_agent
from rusty_agent import errors
from rusty_agent.local import attach


@pytest.mark.parametrize("name", rusty_agent.__all__)
def test_every_name_resolves_to_the_same_thing_each_time(name: str) -> None:
    assert getattr(rusty_agent, name) is getattr(rusty_agent, name)


def test_the_lists_agree() -> None:
    assert dir(rusty_agent) == sorted(rusty_agent.__all__)
    assert len(set(rusty_agent.__all__)) == len(rusty_agent.__all__)
    assert {*rusty_agent._HOME, *errors.__all__, "__version__"} == set(rusty_agent.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'rusty_agent' has no attribute 'nothing'"):
        _ = rusty_agent.nothing  # type: ignore[attr-defined]  # which checkers see, too
    assert not hasattr(rusty_agent, "_nothing")


@pytest.mark.parametrize("name", rusty_agent.__all__)
def test_names_are_at_home_in_this_package(name: str) -> None:
    home = getattr(getattr(rusty_agent, name), "__module__", "rusty_agent")
    assert home.startswith(("rusty_agent", "typing", "types"))


def _documented() -> Iterator[tuple[str, object]]:
    for name in rusty_agent.__all__:
        thing = getattr(rusty_agent, name)
        if not inspect.isclass(thing):
            continue
        yield name, thing
        for owner in thing.__mro__:
            if owner.__module__.startswith("rusty_agent"):
                for part, member in vars(owner).items():
                    if not part.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
                        yield f"{name}.{part}", member


@pytest.mark.parametrize(("name", "thing"), [*dict(_documented()).items()], ids=[*dict(_documented())])
def test_what_is_public_is_documented(name: str, thing: object) -> None:
    assert inspect.getdoc(thing), name


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


def _imported_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {name.partition(".")[0] for name in done.stdout.split()}


HEAVY = {"aiohttp", "attr", "attrs", "asyncio", "orjson", "backoff", "yarl"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import rusty_agent", HEAVY),
        ("import rusty_agent; dir(rusty_agent); rusty_agent.__version__", HEAVY),
        ("from rusty_agent import RateLimitError", HEAVY),
        ("from rusty_agent import GenerateResult", {"aiohttp", "asyncio", "orjson", "backoff"}),
        ("import rusty_agent.wire.reply, rusty_agent.wire.request", {"aiohttp", "asyncio", "backoff"}),
    ],
)
def test_what_an_import_leaves_alone(statement: str, absent: set[str]) -> None:
    assert _imported_by(statement) & absent == set()


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
@pytest.mark.parametrize("name", ["from_preset", "openai", "anthropic", "openrouter"])
def test_the_constructors_of_presets_show_the_options_that_both_faces_take(face: Any, name: str) -> None:
    taken = inspect.signature(rusty_agent.Provider).parameters
    shown = dict(inspect.signature(getattr(face, name)).parameters)
    assert shown.pop("name", None) is None or name == "from_preset"
    assert shown.keys() == taken.keys() - {"preset"}
    assert {option: shown[option].default for option in shown} == {option: taken[option].default for option in shown}


@pytest.mark.parametrize("face", [rusty_agent.AsyncProvider, rusty_agent.Provider])
def test_a_constructor_without_its_model_is_called_as_the_caller_did(face: Any) -> None:
    class Mine(face):  # type: ignore[misc]
        pass

    for kind in (face, Mine):
        for name in ("", ".openai", ".anthropic", ".openrouter"):
            make = getattr(kind, name[1:]) if name else kind
            with pytest.raises(TypeError) as raised:
                make(api_key="k")
            assert str(raised.value) == f"{kind.__name__}{name}() missing 1 required positional argument: 'model'"


def test_no_constructor_borrows_words_that_are_not_its_own() -> None:
    for face in (rusty_agent.AsyncProvider, rusty_agent.Provider):
        assert inspect.getdoc(face.__init__) in (None, object.__init__.__doc__)


@pytest.mark.parametrize("face", [rusty_agent.AsyncProvider, rusty_agent.Provider])
def test_the_options_of_a_local_model_are_shown(face: Any) -> None:
    taken = dict(inspect.signature(attach).parameters)
    del taken["kind"]
    shown = inspect.signature(face.local).parameters
    assert {name: shown[name].default for name in shown} == {name: taken[name].default for name in taken}
