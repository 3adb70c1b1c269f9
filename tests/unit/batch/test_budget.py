"""When a budget is as good as used up."""

from __future__ import annotations

import pytest

from rusty_agent.batch.budget import Budget
from rusty_agent.progress.price import Price
from rusty_agent.types import Usage

ONE = Usage(prompt_tokens=1_000_000)  # costs a dollar
PRICE = Price(1.0, 0.0)


@pytest.mark.parametrize(
    ("usages", "in_flight", "stops"),
    [
        ([ONE], 3, False),  # with what is under way, and the next, all of it is spent
        ([ONE], 4, True),
        ([ONE, ONE, ONE], 1, False),
        ([ONE, ONE, ONE], 2, True),
        ([ONE, Usage(prompt_tokens=3_000_000)], 0, True),  # they cost two dollars each
        ([ONE, None, None, None], 0, False),  # those that tell nothing cost as much as the others
        ([ONE, None, None, None, None], 0, True),
        ([None], 0, True),
    ],
)
def test_it_stops_before_it_is_spent(usages: list[Usage | None], in_flight: int, stops: bool) -> None:
    budget = Budget(5.0, PRICE)
    *before, last = usages
    assert [budget.spend(usage, 0) for usage in before] == [None] * len(before)
    assert (budget.spend(last, in_flight) is not None) is stops


def test_it_says_why() -> None:
    assert (
        Budget(2.0, PRICE).spend(ONE, 1)
        == "$1.00 has been spent, and what is under way will use up the budget of $2.00."
    )
    assert str(Budget(2.0, PRICE).spend(None, 0)).startswith("the endpoint reports no token counts")
