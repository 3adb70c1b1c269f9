"""The answers of the documentation's scripted model."""

from __future__ import annotations

__all__ = ["to"]

_REPLIES = {
    "What is the capital of France?": "Paris.",
    "Count to three.": "One, two, three.",
    "How much is 2 + 2?": "4",
    "How much is 3 + 3?": "6",
    "Say hello.": "Hello world",
    "My name is Ada. What is my name?": "Ada.",
    "18 degrees": "It is 18 degrees in Oslo.",
}
_JSON = '{"city":"Paris","population":2100000}'


def to(prompt: str, *, json: bool = False) -> str:
    """The answer to a prompt; prompts without an entry all get the same answer."""
    if json:
        return _JSON
    return next((answer for known, answer in _REPLIES.items() if known in prompt), "Hello world")
