"""Copies of providers, of both faces and of subclasses as users write them."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rusty_agent import AsyncProvider, Provider

KEY = "sk-test-0123456789abcdef"
COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))]


class Named(Provider):
    """A subclass as users write them: its constructor takes what it likes."""

    def __init__(self, name: str, **options: Any) -> None:
        self.names = [name]
        super().__init__("m", **options)


class AsyncNamed(AsyncProvider):
    def __init__(self, name: str, **options: Any) -> None:
        self.names = [name]
        super().__init__("m", **options)


@pytest.mark.parametrize("kind", [Named, AsyncNamed])
@pytest.mark.parametrize("copied", COPIES)
def test_copies_of_a_subclass(kind: type[Named], copied: Callable[[Named], Named]) -> None:
    original = kind("bob", api_key=KEY, base_url="http://127.0.0.1:1/v1", pickle_key=True)
    twin = copied(original)
    assert (type(twin), twin.names, repr(twin)) == (kind, ["bob"], repr(original))
    assert (twin.names is original.names) == (copied is copy.copy)


class Slotted(Provider):
    __slots__ = ("tag",)


class AsyncSlotted(AsyncProvider):
    __slots__ = ("tag",)


class Stateful(AsyncProvider):
    """What cannot be copied is made anew."""

    tag: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.lock = threading.Lock()


@pytest.mark.parametrize("kind", [Slotted, AsyncSlotted, Stateful])
@pytest.mark.parametrize("copied", COPIES)
def test_copies_keep_slots_and_what_getstate_says(kind: Any, copied: Callable[[Any], Any]) -> None:
    original = kind("m", api_key=KEY)
    original.tag = ["mine"]
    if kind is Stateful:
        original.lock = threading.Lock()
    assert KEY.encode() not in pickle.dumps(original)
    twin = copied(original)
    assert twin.tag == ["mine"]
    assert (twin.tag is original.tag) == (copied is copy.copy)
    assert hasattr(twin, "lock") == (kind is Stateful)


class Paired:
    """Its state is a pair, and none where it has no tag."""

    tag: str = ""

    def __getstate__(self) -> tuple[str, list[str]] | None:
        return (self.tag, []) if self.tag else None

    def __setstate__(self, state: tuple[str, list[str]]) -> None:
        self.tag, self.more = state


class BlockingPaired(Paired, Provider):
    pass


class AsyncPaired(Paired, AsyncProvider):
    pass


class HalfEmpty(AsyncProvider):
    """Its state is a pair of attributes and of nothing."""

    tag = ""

    def __getstate__(self) -> tuple[dict[str, Any], None]:
        return {"tag": self.tag}, None

    def __setstate__(self, state: tuple[dict[str, Any], None]) -> None:
        attributes, nothing = state
        assert nothing is None
        vars(self).update(attributes)


@pytest.mark.parametrize("copied", COPIES)
def test_copies_hand_on_a_pair_whose_second_part_is_none(copied: Callable[[Any], Any]) -> None:
    original = HalfEmpty("m", api_key=KEY)
    original.tag = "mine"
    assert copied(original).tag == "mine"


@pytest.mark.parametrize("kind", [BlockingPaired, AsyncPaired])
@pytest.mark.parametrize("copied", COPIES)
def test_copies_hand_on_whatever_state_a_class_has(kind: Any, copied: Callable[[Any], Any]) -> None:
    original = kind("m", api_key=KEY, pickle_key=True)
    assert not hasattr(copied(original), "more")
    original.tag = "mine"
    twin = copied(original)
    assert (twin.tag, twin.more, repr(twin)) == ("mine", [], repr(original))


def test_every_attribute_of_a_provider_is_its_own() -> None:
    """What is none would be shared by copies, and put into pickles."""
    for kind in (Provider, AsyncProvider):
        assert set(vars(kind("m", api_key=KEY))) == set(kind._own)


@pytest.mark.parametrize("setting", ["abc", "9"])
@pytest.mark.parametrize("kind", [Provider, AsyncProvider])
def test_copies_do_not_read_the_environment_anew(kind: Any, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    original = kind("m", api_key=KEY)
    monkeypatch.setenv("RUSTY_AGENT_MAX_RETRIES", setting)
    for copied in (copy.copy, copy.deepcopy):
        twin = copied(original)
        assert getattr(twin, "_core", twin)._requests.config.retry.max_retries == 2
    assert pickle.dumps(original)


def test_a_provider_that_refers_to_itself_is_copied() -> None:
    original: Any = AsyncProvider("m", api_key=KEY)
    original.itself = original
    twin = copy.deepcopy(original)
    assert twin.itself is twin is not original
