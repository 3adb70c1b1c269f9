"""What a run may spend, and when the budget is about to be used up.

In: the usage of each answer, as it comes. Out: the reason to stop, in words. Never touched: the run.
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
        self._paid = 0  # answers paid for

    def spend(self, usage: Usage | None, in_flight: int) -> str | None:
        """Add the cost of an answer, or of an error that reports its usage.

        Args:
            usage: Its tokens. An answer that reports none is taken to cost the average of those before it.
            in_flight: How many requests are under way. Rows that still wait for a permit are not among them: after a
                stop they are not sent.

        Returns:
            Why to stop: the next row and the requests under way would cost more than is left, or the first answer
            reports no usage. None if the run may go on.
        """
        if usage is not None:
            cost = self._price.cost(usage.prompt_tokens, usage.completion_tokens)
        elif self._paid:
            cost = self._spent / self._paid
        else:
            return "the endpoint reports no token counts, so it is unknown how much of the budget is spent."
        self._paid += 1
        self._spent += cost
        if self._spent + self._spent / self._paid * (in_flight + 1) <= self._usd:
            return None
        said = f"{dollars(self._spent)} has been spent, and what is under way will use up the budget of"
        return f"{said} {dollars(self._usd)}."
