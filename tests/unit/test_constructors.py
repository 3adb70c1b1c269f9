"""The constructors of both faces: what they show, how they refuse, and that they show no key."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest

from rusty_agent import AsyncProvider, Provider
from tests.captured import captured

KEY = "sk-test-0123456789abcdef"


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_connections": 0},
        {"limits": 5},
        {"base_url": f"https://me:{KEY}@h"},
        {"base_url": f"https://me:{KEY}@h:x"},
        {"base_url": f"https://[me:{KEY}@h"},
        {"api_key": f"{KEY}\nx"},
        {"proxy": f"socks5://me:{KEY}@h"},
        {"proxy": f"http://me:{KEY}@h:99999"},
        {"headers": {"X-Api-Key": f"{KEY}\n"}},
        {"tiemout": 3},
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [AsyncProvider, Provider])
@pytest.mark.parametrize("way", ["itself", "openai", "anthropic", "openrouter", "from_preset"])
def test_no_captured_local_shows_the_key_that_a_constructor_was_given(
    kind: Any, way: str, wrong: dict[str, Any]
) -> None:
    make = {"itself": kind, "from_preset": partial(kind.from_preset, "groq")}.get(way) or getattr(kind, way)
    with pytest.raises((TypeError, ValueError)) as raised:
        make("m", **{"api_key": KEY} | wrong)
    assert KEY not in captured(raised.value)


def test_no_captured_local_shows_the_key_of_a_pickle_that_does_not_fit() -> None:
    _, (model, key, options), *_ = AsyncProvider("m", api_key=KEY, pickle_key=True).__reduce__()
    assert key == KEY
    with pytest.raises(ValueError, match="preset") as raised:
        AsyncProvider._made(model, key, {**options, "preset": "of a later version"})
    del key
    assert KEY not in captured(raised.value)


@pytest.mark.parametrize("kind", [Provider, AsyncProvider])
def test_a_key_without_its_name_is_told_so_and_not_shown(kind: Any) -> None:
    for make, name in ((kind, ""), (kind.openai, ".openai"), (partial(kind.from_preset, "groq"), ".from_preset")):
        with pytest.raises(TypeError) as raised:
            make("m", KEY)
        assert str(raised.value) == f"{kind.__name__}{name} takes the arguments after model by name only: api_key=…"
        assert KEY not in captured(raised.value)


def test_the_traceback_of_a_constructor_shows_where_a_subclass_fails() -> None:
    class Failing(Provider):
        def __init__(self, model: str, **options: Any) -> None:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        Failing.openai("m", api_key=KEY)
    assert raised.traceback[-1].name == "__init__"


@pytest.mark.parametrize("face", [AsyncProvider, Provider])
@pytest.mark.parametrize("name", ["from_preset", "openai", "anthropic", "openrouter"])
def test_the_constructors_of_presets_show_the_options_that_both_faces_take(face: Any, name: str) -> None:
    taken = inspect.signature(Provider).parameters
    shown = dict(inspect.signature(getattr(face, name)).parameters)
    assert shown.pop("name", None) is None or name == "from_preset"
    assert shown.keys() == taken.keys() - {"preset"}
    assert {option: shown[option].default for option in shown} == {option: taken[option].default for option in shown}


@pytest.mark.parametrize("face", [AsyncProvider, Provider])
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
    for face in (AsyncProvider, Provider):
        assert inspect.getdoc(face.__init__) in (None, object.__init__.__doc__)


@pytest.mark.parametrize("kind", [Provider, AsyncProvider])
def test_unknown_options_are_told_in_the_name_of_what_was_called(kind: Any) -> None:
    for make in (kind, kind.openai):
        with pytest.raises(TypeError, match=rf"^{kind.__name__} takes no argument 'tiemout': did you mean 'timeout'"):
            make("m", api_key=KEY, tiemout=3)
    with pytest.raises(TypeError, match=rf"^{kind.__name__}.local takes no argument 'temperature'"):
        kind.local(temperature=1)
    with pytest.raises(TypeError, match=r"takes no argument 'temperature': generate_text and stream_text do$"):
        kind("m", api_key=KEY, temperature=1)


def test_a_blocking_provider_takes_no_session() -> None:
    makers: list[Any] = [Provider, Provider.openai]
    for make in makers:
        with pytest.raises(TypeError, match=r"Provider takes no session: .* another event loop"):
            make("m", api_key=KEY, session=object())


@pytest.mark.parametrize("kind", [AsyncProvider, Provider])
def test_what_a_constructor_left_unfinished_has_a_repr(kind: type[AsyncProvider] | type[Provider]) -> None:
    left = kind.__new__(kind)
    with pytest.raises(ValueError, match="model"):
        left.__init__("")  # type: ignore[misc]
    assert repr(left) == f"<{kind.__name__}, unfinished>"


@pytest.mark.parametrize("kind", [AsyncProvider, Provider])
def test_a_repr_names_the_class(kind: type[AsyncProvider] | type[Provider]) -> None:
    own: Any = type("Own", (kind,), {})
    for made in (kind, own):
        shown = repr(made("m", api_key="k", base_url="http://h/v1"))
        assert shown == f"<{made.__name__} 'm' at http://h, key ***>"
