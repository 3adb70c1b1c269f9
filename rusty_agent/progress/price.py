"""What a model costs: tokens → USD.

In: two prices, as numbers or as text. Out: the cost of tokens. Never touched: where the prices come from.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field

from ..checks import is_number

__all__ = ["Price"]

_MILLION = 1_000_000
_MAX_PRICE = 1e9  # USD per million tokens: the cost must stay finite


def _check_price(_: Any, attribute: Any, value: Any) -> None:
    if not (is_number(value) and 0 <= value <= _MAX_PRICE):
        raise ValueError(
            f"{attribute.name} must be a number of USD per million tokens, at least 0 and at most {_MAX_PRICE:,.0f}, "
            f"not {value!r}"
        )


@define(frozen=True)
class Price:
    """The prices of a model's tokens.

    Attributes:
        input: USD per million tokens of the prompt.
        output: USD per million tokens of the answer.

    Raises:
        ValueError: A number is negative, or more than a thousand dollars a token.
    """

    input: float = field(validator=_check_price)
    output: float = field(validator=_check_price)

    @classmethod
    def of(cls, pair: tuple[float, float]) -> Price:
        """Make it from a pair: USD per million tokens of prompts, and of answers.

        Raises:
            ValueError: The pair is not two numbers of at least 0.
        """
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"price must be two numbers, USD per million tokens of prompts and answers, not {pair!r}")
        try:
            return cls(*pair)
        except ValueError as error:
            raise ValueError(f"price: {error}") from None

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read `"IN,OUT"`, as in `"0.15,0.60"`.

        Raises:
            ValueError: The text is not two numbers of at least 0.
        """
        try:
            prompt, completion = (float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"a price is IN,OUT in USD per million tokens, as in 0.15,0.60, not {text!r}") from None
        return cls(prompt, completion)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The cost of these tokens in USD."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / _MILLION
