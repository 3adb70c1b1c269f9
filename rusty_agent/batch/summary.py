"""A finished run → its summary, for the file beside the output and for the report.

In: the tally of the run, and what only its owner knows. Out: a dict that any JSON encoder takes. Never touched: files;
the caller writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .. import __version__
from ..progress.histogram import Histogram
from ..progress.tally import Tally
from ..wire.codec import loads
from ..wire.words import printable

__all__ = ["covers", "is_summary", "summary"]

_PERCENTILES = (50, 90, 95, 99)
_MAX_MESSAGE = 300  # characters


def summary(
    tally: Tally,
    *,
    model: str,
    base_url: str,
    started: float,
    ended: float,
    stopped: str | None = None,
    bad_lines: int = 0,
    finish_reasons: Mapping[str | None, int] | None = None,
    input: str | None = None,
    output: str,
) -> dict[str, Any]:
    """Sum a run up.

    Args:
        tally: The run's tally, closed.
        model: The model that was asked, unless a row names another.
        base_url: The endpoint, without its query, which may hold a secret.
        started: When the run began, in seconds since the epoch.
        ended: When it ended, in seconds since the epoch.
        stopped: Why the run ended before its last row, or None if it did not.
        bad_lines: Lines of the input that are not rows.
        finish_reasons: How many answers ended with each reason; None stands for answers that gave none.
        input: The input's name, or None.
        output: The output's name.

    Returns:
        Times in seconds, rates per second, cost in USD or None if it is unknown. A distribution is None if nothing was
        measured. Failures are counted by kind, the commonest first; `failure_messages` has the last message of each
        kind. `truncated` counts the answers that ended at their limit of tokens (finish_reason `length`).
    """
    now = tally.snapshot()
    reasons = finish_reasons or {}
    failures = dict(tally.failures.most_common())
    return {
        "version": __version__,
        "model": model,
        "base_url": base_url,
        "input": input,
        "output": output,
        "started": _iso(started),
        "ended": _iso(ended),
        "stopped": stopped,
        "duration_s": round(now.elapsed, 3),
        "rows": {
            "total": now.total,
            "done": now.done,
            "failed": now.failed,
            "skipped": now.skipped,
            "failed_earlier": now.failed_earlier,
            "bad_lines": bad_lines,
        },
        "rows_per_second": _rate(now.finished, now.elapsed),
        "retries": now.retries,
        "rate_limited": now.rate_limited,
        "failures": failures,
        "failure_messages": {kind: printable(tally.failure_messages[kind], _MAX_MESSAGE) for kind in failures},
        "finish_reasons": {reason or "none": number for reason, number in reasons.items()},
        "truncated": reasons.get("length", 0),
        "tokens": {"prompt": now.prompt_tokens, "completion": now.completion_tokens},
        "tokens_per_second": {
            "prompt": _rate(now.prompt_tokens, now.elapsed),
            "completion": _rate(now.completion_tokens, now.elapsed),
        },
        "cost_usd": None if now.cost is None else round(now.cost, 6),
        "latency_s": _distribution(tally.latency),
        "failure_latency_s": _distribution(tally.failure_latency),
        "ttft_s": _distribution(tally.ttft),
        "time_per_output_token_s": _distribution(tally.time_per_token),
    }


def is_summary(data: bytes) -> bool:
    """Whether these bytes are those of a summary."""
    return b'"rows_per_second"' in data and b'"failure_latency_s"' in data


def covers(data: bytes, later: dict[str, Any], failed: int) -> bool:
    """Whether the summary in a file says all that a later one would, so that it can stay.

    It does if its run came to the end, had no fewer rows and the same number of bad lines, and if all failures that it
    reports still stand: since then a killed run may have answered these rows, or the input may have lost them.

    Args:
        data: The file's bytes.
        later: The summary of a run that has finished no row.
        failed: How many rows are failed now, counting all runs.
    """
    try:
        earlier, now = loads(data), later["rows"]
        rows = earlier["rows"]
        same = rows["failed"] + rows["failed_earlier"] <= failed and rows["bad_lines"] == now["bad_lines"]
        return bool(earlier["stopped"] is None and rows["total"] >= now["total"] and same)
    except (ValueError, TypeError, KeyError):  # another version wrote it, or a loss of power damaged it
        return False


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rate(number: int, seconds: float) -> float:
    return round(number / seconds, 3) if seconds > 0 else 0.0


def _distribution(histogram: Histogram) -> dict[str, float] | None:
    if not histogram.count:
        return None
    values = {
        "mean": histogram.mean,
        "min": histogram.min,
        **{f"p{p}": histogram.percentile(p) for p in _PERCENTILES},
        "max": histogram.max,
    }
    return {"count": histogram.count, **{name: round(value, 6) for name, value in values.items() if value is not None}}
