"""Good rows → an estimate of the tokens that they will take, made before any is sent.

In: rows. Out: the characters of their prompts, and the tokens that they allow for answers. Never touched: prices; how
an endpoint counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define

from ..net.limits.rates import TOKENS_PER_CHARACTER
from ..requests import merged
from ..wire.codec import dumps
from .rows import Row

__all__ = ["Estimate", "prompt_characters"]

_READ_TOO = ("tools", "functions", "response_format")  # the model reads them as text, often more than the prompt


@define
class Estimate:
    """What the rows counted so far will take.

    Attributes:
        common: Arguments that hold for all rows; their text is counted with each row.
        rows: How many rows there are.
        prompt_characters: Characters of text in all their prompts.
        rows_with_max_tokens: Rows that limit the tokens of their answer.
        max_tokens: The sum of these limits.
    """

    common: Mapping[str, Any]
    rows: int = 0
    prompt_characters: int = 0
    rows_with_max_tokens: int = 0
    max_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens their prompts have."""
        return int(self.prompt_characters * TOKENS_PER_CHARACTER)

    def add(self, row: Row) -> None:
        """Count a row."""
        parameters = merged(self.common, row.parameters)
        self.rows += 1
        self.prompt_characters += prompt_characters(parameters)
        tokens = _asked_tokens(parameters)
        if tokens is not None:
            self.rows_with_max_tokens += 1
            self.max_tokens += tokens


def prompt_characters(parameters: Mapping[str, Any]) -> int:
    """How many characters of text a checked row sends, to estimate its tokens; images and the like are not counted."""
    sent = {**(parameters.get("extra_body") or {}), **parameters}
    count = len(parameters.get("system_prompt") or "") + sum(_json_length(sent.get(name)) for name in _READ_TOO)
    messages = parameters.get("messages")
    if not messages:
        return count + len(parameters["prompt"])
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            count += len(content)
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            count += sum(len(text) for text in texts if isinstance(text, str))
        count += _json_length(message.get("tool_calls"))
    return count


def _json_length(value: Any) -> int:
    return len(dumps(value)) if value else 0


def _asked_tokens(parameters: Mapping[str, Any]) -> int | None:
    """The most tokens that all answers (`n`) of a row may have together; None if the row sets no limit."""
    extra = parameters.get("extra_body") or {}
    choices = extra.get("n")
    for given in (extra.get("max_completion_tokens"), extra.get("max_tokens"), parameters.get("max_tokens")):
        if type(given) is int:  # not true, which JSON may hold
            return given * max(choices, 1) if isinstance(choices, int) else given
    return None
