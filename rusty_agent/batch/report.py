"""A finished run → one HTML page that shows it.

In: the run's summary and its tally. Out: a page that needs no network, no script and no other file; all text from
outside is escaped. Never touched: files; the caller writes the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from attrs import define

from ..progress.figures import clock, dollars, quantity, seconds
from ..progress.histogram import Histogram
from ..progress.tally import Sample, Tally

__all__ = ["is_report", "report_html"]

_WIDTH, _HEIGHT = 560, 230  # of a plot, in its own units; the page scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 14, 40
_MOST_INTERVALS = 120  # in a plot over time: more would show noise
_BARS = 48
_TITLE_END = ": report of a run"
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #f5f6f8; --card: #fff; --text: #1c2330; --soft: #667085; --line: #e3e6eb;
  --blue: #2f6fde; --violet: #8250df; --green: #1a8a5a; --orange: #c96a12; --red: #cf3038; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #12151b; --card: #1b2029; --text: #e8ebf0; --soft: #97a1b2;
  --line: #2d3440; --blue: #6ea3ff; --violet: #b692ff; --green: #4cc38a; --orange: #f0a04b; --red: #ff7379; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 28px 20px 40px; }}
h1 {{ font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 14px; margin: 0 0 8px; }}
.soft {{ color: var(--soft); font-weight: 400; overflow-wrap: anywhere; }}
.note {{ margin: 14px 0 0; padding: 10px 14px; border-left: 4px solid var(--orange); background: var(--card);
  border-radius: 4px; overflow-wrap: anywhere; }}
.figures, .plots {{ display: grid; gap: 14px; margin-top: 14px; }}
.figures {{ grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); margin-top: 20px; }}
.plots {{ grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }}
.card {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  min-width: 0; }}
.figure b {{ display: block; font-size: 23px; line-height: 1.3; font-variant-numeric: tabular-nums; }}
.figure span {{ display: block; font-size: 13px; color: var(--soft); }}
.bad b {{ color: var(--red); }}
.wide {{ grid-column: 1 / -1; overflow-x: auto; }}
.wide th:first-child {{ min-width: 9em; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: 5px 10px; border-top: 1px solid var(--line); white-space: nowrap; }}
thead th {{ border-top: 0; color: var(--soft); font-weight: 500; }}
th:first-child {{ text-align: left; font-weight: 500; padding-left: 0; white-space: normal; overflow-wrap: anywhere; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font: 11px system-ui, sans-serif; fill: var(--soft); }}
svg .mark {{ fill: var(--text); stroke: var(--card); stroke-width: 3; paint-order: stroke; }}
.grid {{ stroke: var(--line); }}
.line {{ fill: none; stroke-width: 1.8; stroke-linejoin: round; }}
.dashed {{ stroke-dasharray: 5 4; }}
.area {{ opacity: .16; }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def report_html(summary: dict[str, Any], tally: Tally) -> str:
    """The page.

    Args:
        summary: The run's summary, from `summary()`.
        tally: The run's tally, closed.
    """
    name = str(summary["output"])
    head = [f"<h1>{escape(name)}</h1>", f'<p class="soft" style="margin:0">{escape(_subtitle(summary))}</p>']
    head += [f'<p class="note">{escape(note)}</p>' for note in _notes(summary)]
    figures = "".join(_figures(summary))
    plots = "".join([*_timelines(tally), *_histograms(tally), *_tables(summary)])
    body = [*head, f'<div class="figures">{figures}</div>', f'<div class="plots">{plots}</div>']
    return _PAGE.format(title=escape(f"{name}{_TITLE_END}"), body="\n".join(body))


def is_report(beginning: bytes) -> bool:
    """Whether a file with this beginning, which must be long enough to hold the title, is such a page."""
    return f"{_TITLE_END}</title>".encode() in beginning


def _subtitle(summary: dict[str, Any]) -> str:
    parts = [summary["model"], summary["base_url"], summary["input"] and f"from {summary['input']}"]
    moments = " to ".join(summary[name][:19].replace("T", " ") for name in ("started", "ended")) + " UTC"
    return " · ".join([*(str(part) for part in parts if part), moments, f"rusty_agent {summary['version']}"])


def _notes(summary: dict[str, Any]) -> Iterable[str]:
    if summary["stopped"]:
        yield f"The run was stopped before its last row: {summary['stopped']}"
    if summary["truncated"]:
        yield f"Answers cut off at their limit of tokens (finish reason “length”): {summary['truncated']:,}."
    for kind, message in [*summary["failure_messages"].items()][:1]:
        yield f"The commonest failure: {kind}; the last one: {message}"
    if summary["rows"]["bad_lines"]:
        yield f"Lines of the input that are not requests and were left out: {summary['rows']['bad_lines']:,}."


def _figures(summary: dict[str, Any]) -> Iterable[str]:
    rows, tokens, rates = summary["rows"], summary["tokens"], summary["tokens_per_second"]
    total = "" if rows["total"] is None else f" of {rows['total']:,}"
    earlier = f", {rows['skipped']:,} by an earlier run" if rows["skipped"] else ""
    yield _figure(f"{rows['done'] + rows['skipped']:,}", f"rows done{total}{earlier}")
    failed = rows["failed"] + rows["failed_earlier"]
    earlier = f", {rows['failed_earlier']:,} in an earlier run" if rows["failed_earlier"] else ""
    yield _figure(f"{failed:,}", f"rows failed{earlier}", bad=failed > 0)
    duration = summary["duration_s"]
    yield _figure(clock(duration) if duration >= 60 else seconds(duration), "duration")
    yield _figure(quantity(summary["rows_per_second"]), "rows per second")
    if tokens["prompt"] or tokens["completion"]:
        yield _figure(quantity(tokens["prompt"]), f"prompt tokens, {quantity(rates['prompt'])}/s")
        yield _figure(quantity(tokens["completion"]), f"completion tokens, {quantity(rates['completion'])}/s")
    if summary["cost_usd"] is not None:
        yield _figure(dollars(summary["cost_usd"]), "cost")
    for name, caption in (("latency_s", "latency"), ("ttft_s", "to the first token")):
        if summary[name]:
            yield _figure(seconds(summary[name]["p50"]), f"median {caption}, p99 {seconds(summary[name]['p99'])}")
    yield _figure(f"{summary['retries']:,}", f"retries, {summary['rate_limited']:,} answers with 429")


def _figure(value: str, caption: str, *, bad: bool = False) -> str:
    return f'<div class="card figure{" bad" if bad else ""}"><b>{escape(value)}</b><span>{escape(caption)}</span></div>'


def _tables(summary: dict[str, Any]) -> Iterable[str]:
    measures = {
        "Latency": "latency_s",
        "To the first token": "ttft_s",
        "Per token after it": "time_per_output_token_s",
        "Latency of failed rows": "failure_latency_s",
    }
    columns = ("count", "min", "p50", "p90", "p95", "p99", "max", "mean")
    rows = [
        (title, *(f"{summary[key][name]:,}" if name == "count" else seconds(summary[key][name]) for name in columns))
        for title, key in measures.items()
        if summary[key]
    ]
    if rows:
        yield _table("How long it took", ("", *columns), rows, wide=True)
    for title, key, column in (("Failures", "failures", "error"), ("Finish reasons", "finish_reasons", "reason")):
        if summary[key]:
            counts = sorted(summary[key].items(), key=lambda item: -item[1])
            yield _table(title, (column, "rows"), [(name, f"{number:,}") for name, number in counts])


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, wide: bool = False) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<section class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>{table}</section>'


@define(frozen=True)
class _Axis:
    """From `low` to `high`, with ticks: the value and the label of each."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value on the axis, 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def x(self, value: float) -> float:
        return round(_LEFT + self.at(value) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(_HEIGHT - _BOTTOM - self.at(value) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _round_step(least: float) -> float:
    """The smallest of …, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, … that is not below `least`, give or take 0.1 %."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _height_axis(highest: float, *, whole: bool) -> _Axis:
    step = _round_step(max((highest or 1) / 4, 1 if whole else 0))
    marks = [step * number for number in range(math.ceil((highest or 1) / step) + 1)]
    return _Axis(0, marks[-1], [(mark, f"{mark:g}" if mark < 1000 else quantity(mark)) for mark in marks])


def _time_axis(end: float) -> _Axis:
    step = next((step for step in _TIME_STEPS if end / step <= 8), 86400 * math.ceil(end / 8 / 86400))
    return _Axis(0, end, [(mark, clock(mark)) for mark in range(0, math.floor(end) + 1, step)])


def _latency_axis(low: float, high: float) -> _Axis:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    marks = [mark for power in powers for factor in factors if low <= (mark := factor * 10.0**power) <= high]
    if len(marks) < 3:
        step = _round_step((high - low) / 4)
        marks = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return _Axis(low, high, [(mark, f"{mark * 1e3:g} ms" if mark < 1 else f"{mark:g} s") for mark in marks], log=True)


def _plot(title: str, unit: str, x: _Axis, y: _Axis, marks: Iterable[str]) -> str:
    """A card with a title, two axes, and the marks between them."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value, text in y.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y.y(value)}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y.y(value) + 4}" text-anchor="end">{text}</text>')
    for value, text in x.ticks:
        parts.append(f'<path class="grid" d="M{x.x(value)} {bottom}v5"/>')
        parts.append(f'<text x="{x.x(value)}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    caption = "logarithmic scale" if x.log else "time since the start"
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">{caption}</text>')
    drawn = "".join([*parts, *marks])
    heading = f'<h2>{escape(title)} <span class="soft">{escape(unit)}</span></h2>'
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{drawn}</svg>'
    return f'<section class="card">{heading}{svg}</section>'


def _curve(x: _Axis, y: _Axis, points: Sequence[tuple[float, float]], colour: str, look: str = "") -> Iterable[str]:
    """A line through points; the area below it is tinted unless `look` is given."""
    line = "L".join(f"{x.x(across)} {y.y(up)}" for across, up in points)
    if not look:
        base = f"L{x.x(points[-1][0])} {y.y(0)}L{x.x(points[0][0])} {y.y(0)}Z"
        yield f'<path class="area" style="fill:var(--{colour})" d="M{line}{base}"/>'
    yield f'<path class="line {look}" style="stroke:var(--{colour})" d="M{line}"/>'


def _bars(
    x: _Axis, y: _Axis, bars: Iterable[tuple[float, float, int]], colour: str, text: Callable[[float], str]
) -> Iterable[str]:
    for low, high, number in bars:
        if number:
            left, width = x.x(low), max(1, x.x(high) - x.x(low) - 1)
            size = f'x="{left}" y="{y.y(number)}" width="{width:.1f}" height="{y.y(0) - y.y(number):.1f}"'
            tip = f"{text(low)} to {text(high)}: {number:,} row{'s' * (number != 1)}"
            yield f'<rect {size} style="fill:var(--{colour})"><title>{tip}</title></rect>'


def _points(series: Sequence[Sample]) -> list[Sample]:
    """Some of the samples: not too many, and none so close to the last that a rate between them would mean nothing."""
    points = [*series[: -1 : math.ceil(len(series) / _MOST_INTERVALS)], series[-1]]
    if len(points) > 2 and points[-1].elapsed - points[-2].elapsed < (points[-2].elapsed - points[-3].elapsed) / 2:
        del points[-2]
    return points


def _timelines(tally: Tally) -> Iterable[str]:
    points = _points(tally.series)
    if len(points) < 3:  # a run of a second or two
        return
    x = _time_axis(points[-1].elapsed)
    pairs = list(pairwise(points))
    for title, unit, name, colour in (
        ("Rows finished", "per second", "finished", "blue"),
        ("Completion tokens", "per second, counted as their rows finish", "completion_tokens", "violet"),
    ):
        rates = [(getattr(b, name) - getattr(a, name)) / (b.elapsed - a.elapsed) for a, b in pairs]
        if any(rates):
            steps = [(end.elapsed, rate) for pair, rate in zip(pairs, rates, strict=True) for end in pair]
            y = _height_axis(max(rates), whole=False)
            yield _plot(title, unit, x, y, _curve(x, y, steps, colour))
    yield _in_flight(x, points)
    failed = [(a.elapsed, b.elapsed, b.failed - a.failed) for a, b in pairs]
    if most := max(number for _, _, number in failed):
        y = _height_axis(most, whole=True)
        unit = f"in each {clock(points[1].elapsed - points[0].elapsed)}"
        yield _plot("Failed rows", unit, x, y, _bars(x, y, failed, "red", clock))


def _in_flight(x: _Axis, points: Sequence[Sample]) -> str:
    flying = [(point.elapsed, point.in_flight) for point in points]
    limits = [(point.elapsed, point.limit) for point in points if point.limit is not None]
    y = _height_axis(max(number for _, number in (*flying, *limits)), whole=True)
    marks = [*_curve(x, y, flying, "green")]
    if limits:
        marks += _curve(x, y, limits, "orange", "dashed")
    return _plot("Calls in flight", "and their limit, dashed" if limits else "", x, y, marks)


def _histograms(tally: Tally) -> Iterable[str]:
    for title, unit, histogram, colour in (
        ("Latency", "rows, from the call to the end of its answer", tally.latency, "blue"),
        ("Time to the first token", "rows", tally.ttft, "violet"),
    ):
        if histogram.count:
            yield _histogram(title, unit, histogram, colour)


def _histogram(title: str, unit: str, histogram: Histogram, colour: str) -> str:
    bars = histogram.coarse(_BARS)
    x = _latency_axis(bars[0][0], bars[-1][1])
    y = _height_axis(max(number for _, _, number in bars), whole=True)
    marks = [*_bars(x, y, bars, colour, seconds)]
    for row, p in enumerate((50, 99)):
        value = min(max(histogram.percentile(p) or 0, x.low), x.high)
        left = x.x(value)
        anchor = "end" if x.at(value) > 0.8 else "start"
        marks.append(f'<path class="line dashed" style="stroke:var(--text);opacity:.5" d="M{left} {_TOP}V{y.y(0)}"/>')
        place = f'x="{left + (5 if anchor == "start" else -5)}" y="{_TOP + 8 + 14 * row}" text-anchor="{anchor}"'
        marks.append(f'<text class="mark" {place}>p{p} {seconds(value)}</text>')
    return _plot(title, unit, x, y, marks)
