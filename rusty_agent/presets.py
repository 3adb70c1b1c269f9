"""Providers as data: the URL of each, the variable that holds its key, its oddities.

In: a name. Out: a `Preset`. Never touched: the environment, the network.
"""

from __future__ import annotations

from types import MappingProxyType

from attrs import define

from .checks import checked_flag, checked_kind

__all__ = ["PRESETS", "Preset", "find_preset"]


@define(frozen=True)
class Preset:
    """One OpenAI-compatible endpoint.

    Attributes:
        name: The name that `from_preset` takes.
        base_url: The URL that `/chat/completions` is appended to.
        key_variable: The environment variable that holds the key.
        key_required: False for servers that people run themselves, most of which need no key.
        ignores: Parameters that the endpoint accepts and silently ignores; using one adds a line to the result's
            `warnings`.

    Raises:
        ValueError: One of these has the wrong type.
    """

    name: str
    base_url: str
    key_variable: str
    key_required: bool = True
    ignores: frozenset[str] = frozenset()

    def __attrs_post_init__(self) -> None:
        kinds = {"name": str, "base_url": str, "key_variable": str, "ignores": frozenset}
        for name, kind in kinds.items():
            checked_kind(getattr(self, name), kind, f"a preset's {name}")
        checked_flag(self.key_required, "a preset's key_required")


_TABLE = (
    Preset("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    Preset("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    Preset(
        "anthropic",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        # docs.anthropic.com/en/api/openai-sdk, «Important OpenAI compatibility limitations»
        ignores=frozenset({"response_format", "seed", "frequency_penalty", "presence_penalty"}),
    ),
    Preset("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    Preset("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    Preset("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    Preset("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    Preset("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    Preset("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    Preset("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
    Preset("ollama", "http://localhost:11434/v1", "OLLAMA_API_KEY", key_required=False),
    Preset("vllm", "http://localhost:8000/v1", "VLLM_API_KEY", key_required=False),
    Preset("lmstudio", "http://localhost:1234/v1", "LMSTUDIO_API_KEY", key_required=False),
    Preset("llama.cpp", "http://localhost:8080/v1", "LLAMA_API_KEY", key_required=False),
)

PRESETS = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every preset by its name."""


def find_preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        ValueError: There is no preset of this name. The message lists them all.
    """
    found = PRESETS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"there is no preset {name!r}, only {', '.join(PRESETS)}; for other endpoints pass base_url")
    return found
