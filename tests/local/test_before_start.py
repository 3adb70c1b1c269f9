"""What a local provider is before anything is started, and which options it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import AsyncProvider


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.usefixtures("runtime")
def test_copies_share_the_model(gguf: Path, copied: Callable[[AsyncProvider], AsyncProvider]) -> None:
    llm = AsyncProvider.local(gguf)
    twin = copied(llm)
    assert twin._calls.transport is llm._calls.transport
    assert repr(twin) == repr(llm)


@pytest.mark.usefixtures("runtime")
def test_the_provider_is_named_after_the_file_and_has_a_key_of_its_own(gguf: Path) -> None:
    one, other = AsyncProvider.local(gguf), AsyncProvider.local(str(gguf))
    assert one.model == "tiny.Q4"
    assert repr(one) == "<AsyncProvider 'tiny.Q4' at http://127.0.0.1, key ***>"
    keys = [llm._requests.config.key for llm in (one, other)]
    revealed = {key.reveal() for key in keys if key is not None}
    assert [len(key) >= 32 for key in revealed] == [True, True]


@pytest.mark.usefixtures("runtime")
def test_a_small_machine_has_ten_minutes_unless_a_timeout_is_given(gguf: Path) -> None:
    for given, timeout in ((None, 600), (5, 5)):
        assert AsyncProvider.local(gguf, timeout=given)._requests.config.timeout == timeout


@pytest.mark.usefixtures("runtime")
def test_a_subclass_gets_one_of_itself(gguf: Path) -> None:
    class Mine(AsyncProvider):
        pass

    assert type(Mine.local(gguf)) is Mine


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("threads", 0),
        ("threads", True),
        ("context", -1),
        ("context", 2.5),
        ("context", 2**30),
        ("context", None),
        ("parallel", "4"),
        ("start_timeout", 0),
        ("start_timeout", float("nan")),
        ("max_event_bytes", 0),
        ("retry", 3),
    ],
)
@pytest.mark.usefixtures("runtime")
def test_an_option_that_cannot_be_right_is_named(gguf: Path, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        AsyncProvider.local(gguf, **{option: value})


@pytest.mark.usefixtures("runtime")
def test_an_unknown_option_is_a_type_error(gguf: Path) -> None:
    with pytest.raises(TypeError, match="temperature"):
        AsyncProvider.local(gguf, temperature=1)  # type: ignore[call-arg]
