"""Figures of a run → text that people read at a glance.

In: numbers, a `Progress`. Out: text. Never touched: where it is shown.
"""

from __future__ import annotations

from .tally import Progress

__all__ = ["clock", "dollars", "line", "quantity", "seconds"]


def quantity(value: float) -> str:
    """A quantity in two or three digits: `0.42`, `4.2`, `412`, `3.1k`, `12k`."""
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or unit == "G":
            break
        value /= 1000
    if value < 0.95 and not unit:
        return f"{value:.2g}"
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


def seconds(value: float) -> str:
    """A duration in two or three digits: `0.8 ms`, `15 ms`, `0.15 s`, `12.3 s`."""
    if value < 0.0995:
        return f"{quantity(value * 1000)} ms"
    return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s" if value < 99.95 else f"{value:,.0f} s"


def dollars(value: float) -> str:
    """An amount in USD: `$0.42`, `$1,234.50`, and `$0.0042` for less than a cent."""
    if value >= 0.00995 or value == 0:
        return f"${value:,.2f}"
    return f"${value:.4f}" if value >= 0.00005 else "<$0.0001"


def clock(value: float) -> str:
    """A duration as on a stopwatch: `0:45`, `12:07`, `1:02:03`."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def line(progress: Progress) -> str:
    """The progress of a run in one line, without parts that have no value; the least important ones come last."""
    total = "" if progress.total is None else f"/{progress.total:,}"
    earlier = f" ({progress.skipped:,} earlier)" if progress.skipped else ""
    parts = [f"{progress.skipped + progress.done:,}{total} done{earlier}"]
    if progress.failed_earlier:
        parts.append(f"{progress.failed_earlier:,} failed for good earlier")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.stalled:
        parts.append(progress.stalled)
    if progress.in_flight:
        limit = "" if progress.limit is None else f" (limit {progress.limit:,})"
        parts.append(f"{progress.in_flight:,} in flight{limit}")
    if progress.finished:
        parts.append(f"{quantity(progress.requests_per_second)} req/s")
    if progress.eta:
        parts.append(f"ETA {clock(progress.eta)}")
    if progress.cost is not None:
        projected = progress.projected_cost or 0.0
        more = f" of ~{dollars(projected)}" if projected > progress.cost else ""
        parts.append(dollars(progress.cost) + more)
    if progress.rate_limited:
        parts.append(f"{progress.rate_limited:,} × 429")
    if progress.prompt_tokens or progress.completion_tokens:
        parts.append(f"{quantity(progress.prompt_tokens_per_second)} tok/s in")
        parts.append(f"{quantity(progress.completion_tokens_per_second)} out")
    if progress.latency_p50 is not None and progress.latency_p99 is not None:
        parts.append(f"p50 {seconds(progress.latency_p50)}")
        parts.append(f"p99 {seconds(progress.latency_p99)}")
    return ", ".join(parts)
