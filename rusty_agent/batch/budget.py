"""What a run may spend, and when that is as good as used up.

In: the tokens of what was answered, one after the other. Out: why to stop, in words. Never touched: the run.
"""

from __future__ import annotations

from ..progress.figures import dollars
from ..progress.price import Price
from ..types import Usage

__all__ = ["Budget"]


class Budget:
    """The budget of one run, in USD."""

    def __init__(self, usd: float, price: Price) -> None:
        self._usd = usd
        self._price = price
        self._spent = 0.0
        self._paid = 0  # answers that it was spent on

    def spend(self, usage: Usage | None, in_flight: int) -> str | None:
        """Count what an answer has cost, or an error that tells its tokens.

        Args:
            usage: Its tokens. An answer that tells none is taken to cost as much as the others.
            in_flight: How many requests are under way. Of the rows that are worked on, others wait for their turn, and
                will not be sent.

        Returns:
            Why to stop: the next row, and what is under way, would take more than is left; or the first answer tells
            no tokens. None where the run may go on.
        """
        if usage is not None:
            cost = self._price.cost(usage.prompt_tokens, usage.completion_tokens)
        elif self._paid:
            cost = self._spent / self._paid
        else:
            return "the endpoint reports no tokens, so nobody knows what of the budget is spent."
        self._paid += 1
        self._spent += cost
        if self._spent + self._spent / self._paid * (in_flight + 1) <= self._usd:
            return None
        said = f"{dollars(self._spent)} are spent, and what is under way will use up the budget of"
        return f"{said} {dollars(self._usd)}."
