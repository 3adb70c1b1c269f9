"""Prices: what is read as one, what is refused, what tokens cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.progress.price import Price


def test_a_price_is_read() -> None:
    assert Price.parse("0.15,0.60") == Price.parse(" 0.15 , .6") == Price(0.15, 0.60)
    assert Price(0.15, 0.60).cost(1_000_000, 500_000) == pytest.approx(0.45)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "-1,2", "1,inf", "nan,1", "1;2", "1e308,1", "0,2e9"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="USD per million tokens"):
        Price.parse(text)


@given(st.text(max_size=12))
def test_any_text_is_a_price_or_refused(text: str) -> None:
    try:
        price = Price.parse(text)
    except ValueError:
        return
    assert 0 <= price.cost(2**63, 2**63) < math.inf


@pytest.mark.parametrize("pair", [(1, 2, 3), "12", (1, -1), (1e9 + 1, 1), (True, 1)])
def test_what_is_no_pair_of_prices_is_refused(pair: Any) -> None:
    assert Price.of((0, 1e9)) == Price(0, 1e9)
    with pytest.raises(ValueError, match=r"^price(: (in|out)put)? must be (two numbers|a number of USD)"):
        Price.of(pair)
