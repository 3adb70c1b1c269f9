"""The report: one page, well-formed, that asks for nothing and lets nothing from outside be markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.batch.report import report_html
from rusty_agent.batch.summary import summary
from rusty_agent.errors import RateLimitError, ServerError
from rusty_agent.progress.price import Price
from rusty_agent.progress.tally import Tally
from rusty_agent.types import Usage
from tests.unit.progress.errors import raised

VOID = {"meta"}
EVIL = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """Reads a page; fails where its tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self._open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def plots(self) -> list[str | None]:
        return [attributes["aria-label"] for tag, attributes in self.tags if tag == "svg"]


def run(seconds: int, *, streamed: bool = False, failing: bool = False, limit: int | None = 16) -> Tally:
    now = 0.0
    tally = Tally(total=10_000, price=Price(1, 2), gauges=lambda: (12, limit, 5), clock=lambda: now)
    tally.skipped = 100
    for second in range(seconds):
        now += 1
        for number in range(5):
            latency = 0.3 + (second * 7 + number) % 40 / 10
            tally.succeeded(latency=latency, ttft=0.1 if streamed else None, usage=Usage(90, 40), attempts=1)
        if failing and 5 < second < 9:
            tally.failed(raised(RateLimitError("x", status_code=429), 3.0, attempts=3))
        tally.sample()
    now += 0.2
    tally.close()
    return tally


def page(tally: Tally, **more: Any) -> Page:
    told: dict[str, Any] = {"model": "m", "base_url": "https://example.com/v1", "output": "out.jsonl", **more}
    return Page(report_html(summary(tally, started=0, ended=1, **told), tally))


TIMELINES = ["Rows finished", "Completion tokens", "Calls in flight"]


def test_every_plot_of_what_there_was() -> None:
    assert page(run(60)).plots() == [*TIMELINES, "Latency"]
    assert page(run(60, streamed=True, failing=True)).plots() == [
        *TIMELINES,
        "Failed rows",
        "Latency",
        "Time to the first token",
    ]


def test_the_figures_and_the_tables() -> None:
    text = page(
        run(100, streamed=True, failing=True),
        finish_reasons={"stop": 480, "length": 20},
        stopped="the budget was spent",
        bad_lines=2,
        output="out.jsonl",
    ).text
    for part in (
        "out.jsonl",
        "rows done of 10,000, 100 by an earlier run",
        "5 answers with 429",
        "1:40",
        "completion tokens, 200/s",
        "The run was stopped before its last row: the budget was spent",
        "Answers cut off at their limit of tokens (finish reason “length”): 20.",
        "Lines of the input that are not requests and were left out: 2.",
        "RateLimitError 429",
        "To the first token",
        "Latency of failed rows",
        "Finish reasons",
        "1970-01-01 00:00:00 to 1970-01-01 00:00:01 UTC",
    ):
        assert part in text


def test_what_failed_in_an_earlier_run_is_told_where_something_did() -> None:
    tally = run(100, failing=True)
    assert "rows failed" in page(tally).text
    assert "in an earlier run" not in page(tally).text
    tally.failed_earlier = 7
    assert "rows failed, 7 in an earlier run" in page(tally).text


def test_it_asks_for_nothing() -> None:
    tally = run(60, streamed=True, failing=True)
    html = report_html(summary(tally, model="m", base_url="", output="out.jsonl", started=0, ended=1), tally)
    found = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "a", "image", "use"} & {tag for tag, _ in found.tags}
    assert not {"src", "href", "xlink:href", "srcset"} & {name for _, attributes in found.tags for name in attributes}
    assert not re.search(r"https?:|url\(|@import|//[a-z]", html)
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("field", ["model", "base_url", "input", "output", "stopped"])
def test_what_comes_from_outside_is_text(field: str) -> None:
    found = page(run(5), **{field: f"https://h/{EVIL}" if field == "base_url" else EVIL})
    assert "script" not in {tag for tag, _ in found.tags}
    assert "alert('x')" in found.text


def test_kinds_of_errors_and_finish_reasons_are_text() -> None:
    tally = run(5)
    tally.failed(raised(type(EVIL, (ServerError,), {})(EVIL, status_code=503), 1.0))
    found = page(tally, finish_reasons={EVIL: 3})
    assert "script" not in {tag for tag, _ in found.tags}
    assert f"{EVIL} 503" in found.text
    assert found.text.count(EVIL) == 4


def test_braces_are_no_placeholders() -> None:
    assert "{title} {0}" in page(run(5), model="{title} {0}").text


def _nothing(tally: Tally) -> None:
    pass


def _one(tally: Tally) -> None:
    tally.succeeded(latency=0.5, ttft=0.5, usage=None, attempts=1)


def _failure(tally: Tally) -> None:
    tally.failed(ValueError("x"))


def _instant(tally: Tally) -> None:
    tally.succeeded(latency=0.0, ttft=0.0, usage=Usage(1, 2), attempts=1)


@pytest.mark.parametrize("row", [_nothing, _one, _failure, _instant])
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0, 2.5, 400_000.0])
def test_the_smallest_runs_have_a_page_too(row: Callable[[Tally], None], seconds: float) -> None:
    now = 0.0
    tally = Tally(clock=lambda: now)
    row(tally)
    for part in range(4):
        now = seconds * part / 4
        tally.sample()
    now = seconds
    tally.close()
    html = report_html(summary(tally, model="m", base_url="", output="out.jsonl", started=0, ended=seconds), tally)
    assert "nan" not in (text := Page(html).text)
    assert "inf" not in text


def test_a_very_long_run_has_a_page_of_bounded_size() -> None:
    tally = run(20_000, failing=True, limit=None)
    html = report_html(summary(tally, model="m", base_url="", output="out.jsonl", started=0, ended=1), tally)
    assert len(html) < 60_000
    assert "dashed" not in html.split("Calls in flight")[1].split("</svg>")[0]  # there was no limit to draw


@given(
    st.lists(st.tuples(st.floats(0.05, 5000), st.integers(0, 400), st.integers(0, 20)), min_size=1, max_size=30),
    st.lists(st.floats(0, 500_000), max_size=20),
)
def test_everything_is_drawn_inside_its_plot(steps: list[tuple[float, int, int]], latencies: list[float]) -> None:
    now = 0.0
    flying = 0
    tally = Tally(gauges=lambda: (flying, flying or None, 0), clock=lambda: now)
    for latency in latencies:
        tally.succeeded(latency=latency, ttft=latency, usage=Usage(1, 10), attempts=1)
    for pause, flying, failures in steps:  # noqa: B007 - the gauge reads it
        now += pause
        for _ in range(failures):
            tally.failed(ValueError("x"))
        tally.sample()
    tally.close()
    for tag, attributes in page(tally).tags:
        if tag == "rect":
            x, y, width, height = (float(attributes[name] or "") for name in ("x", "y", "width", "height"))
            assert 49 <= x <= x + width <= 548
            assert 13 <= y <= y + height <= 191
        elif tag == "path":
            for x, y in re.findall(r"[ML]([-\d.e]+) ([-\d.e]+)", attributes["d"] or ""):
                assert 49 <= float(x) <= 547
                assert 13 <= float(y) <= 191
