"""Every preset is usable as it stands."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from rusty_agent.config import chat_url
from rusty_agent.presets import PRESETS, Preset, find_preset
from rusty_agent.wire.request import PARAMETERS


@pytest.mark.parametrize("name", PRESETS)
def test_each(name: str) -> None:
    preset = find_preset(name)
    assert preset is PRESETS[name]
    assert preset.name == name
    assert chat_url(preset.base_url) == f"{preset.base_url}/chat/completions"
    assert preset.key_variable == preset.key_variable.upper()
    assert preset.key_variable.endswith("_API_KEY")
    assert preset.base_url.startswith("https://" if preset.key_required else "http://localhost:")
    assert preset.ignores <= PARAMETERS


@pytest.mark.parametrize(
    ("name", "base_url", "variable"),
    [
        ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    ],
)
def test_the_promised_ones(name: str, base_url: str, variable: str) -> None:
    preset = find_preset(name)
    assert (preset.base_url, preset.key_variable, preset.key_required) == (base_url, variable, True)


def test_what_anthropic_ignores() -> None:
    expected = {"response_format", "seed", "frequency_penalty", "presence_penalty"}
    assert find_preset("anthropic").ignores == expected


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no preset 'acme', only openrouter, openai, .*llama\.cpp"):
        find_preset("acme")


def test_what_is_no_name() -> None:
    with pytest.raises(ValueError, match="no preset"):
        find_preset(["openai"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("base_url", b"http://x"),
        ("key_variable", 7),
        ("key_required", "no"),
        ("ignores", "seed"),
        ("ignores", {"seed"}),
    ],
)
def test_fields_of_the_wrong_type(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"name": "a", "base_url": "http://x", "key_variable": "X"}
    with pytest.raises(ValueError, match=f"a preset's {field} must be"):
        Preset(**{**fields, field: value})


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PRESETS["x"] = find_preset("openai")  # type: ignore[index]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        find_preset("openai").base_url = "http://evil"  # type: ignore[misc]
    assert Preset("a", "b", "c") == Preset("a", "b", "c", True, frozenset())
