"""`rusty-agent batch INPUT -o OUTPUT`: from arguments to a finished batch.

In: arguments. Out: the batch's files; progress and one line of result on stderr; with `--dry-run` an estimate of the
cost on stdout. Never touched: how a batch runs.

Exit codes: 0 every row is answered; 1 wrong usage, bad lines, another batch holds the lock, or files cannot be
written; 2 some rows failed, or bad lines were skipped; 3 the run was stopped: by its budget, too many errors, the key
or the quota; 130 interrupted; 141 the reader of a dry run's figures has gone. After 2, 3 and 130, and after 1 once the
cause is mended, the same command goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .ask import check_endpoint, log_to_stderr, request_parameters
from .output import Output, UsageError, complain, one_line
from .words import in_our_words

if TYPE_CHECKING:
    from ..batch.estimate import Estimate
    from ..batch.runner import BatchResult
    from ..progress.price import Price
    from ..provider import AsyncProvider

__all__ = ["batch"]

_LOCAL_AT_ONCE = 4


def batch(arguments: argparse.Namespace, out: Output) -> int:
    """Run the batch; return the exit code.

    Raises:
        UsageError: Something is missing.
        BatchError: The batch cannot begin, or its files cannot be written any more.
        ValueError: An argument is invalid.
    """
    from ..sync.loop import new_loop

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if arguments.debug:
        log_to_stderr()
    if arguments.dry_run:
        return _dry_run(arguments, out)
    if arguments.local is None:
        check_endpoint(arguments.preset, arguments.base_url)
        arguments.model = arguments.model or _model_of_rows(arguments)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        result = runner.run(_run(arguments))
    complain(f"rusty-agent batch: {in_our_words(_said(arguments, result))}")
    return _exit_code(result)


async def _run(arguments: argparse.Namespace) -> BatchResult:
    from ..batch.runner import run_batch

    concurrency: Any = arguments.concurrency
    if concurrency is None:  # a local model computes few rows at once: more would only wait
        concurrency = "auto" if arguments.local is None else _LOCAL_AT_ONCE
    async with aclosing(_provider(arguments)) as provider:  # a local model starts only when a first row needs it
        return await run_batch(
            arguments.input,
            arguments.output,
            provider,
            concurrency=concurrency,
            template=arguments.template,
            limit=arguments.limit,
            on_bad_line=arguments.on_bad_line,
            fresh=arguments.fresh,
            retry_permanent=arguments.retry_permanent,
            allow_changed=arguments.allow_changed,
            price=None if arguments.price is None else (arguments.price.input, arguments.price.output),
            budget_usd=arguments.budget_usd,
            max_failures=arguments.max_failures,
            max_error_rate=arguments.max_error_rate,
            sync=arguments.sync,
            sort=arguments.sort,
            stream=arguments.stream,
            progress=arguments.progress,
            report=arguments.report,
            handle_signals=True,
            **request_parameters(arguments),
        )


def _provider(arguments: argparse.Namespace) -> AsyncProvider:
    from ..policy import Limits, RetryPolicy
    from ..provider import AsyncProvider

    retry = RetryPolicy(max_retries=arguments.max_retries)
    if arguments.local is not None:
        return AsyncProvider.local(arguments.local or None, retry=retry, timeout=arguments.timeout)
    return AsyncProvider(
        arguments.model,
        base_url=arguments.base_url,
        preset=arguments.preset,
        trust_env=arguments.trust_env,
        retry=retry,
        timeout=arguments.timeout,
        limits=Limits(arguments.rpm, arguments.tpm, arguments.max_in_flight),
    )


def _model_of_rows(arguments: argparse.Namespace) -> str:
    """The model of the first row, if every row names one, so that `-m` is not needed.

    Input that can be read only once (standard input, a pipe) is not read here, because the batch needs it.
    """
    from ..batch.rows import Row
    from ..batch.source import open_source

    once = arguments.input == "-" or (os.path.exists(arguments.input) and not os.path.isfile(arguments.input))
    if not once and arguments.template is None:
        given = open_source(arguments.input).rows(limit=arguments.limit)
        rows = (row for row in given if isinstance(row, Row))  # the batch itself reports bad lines
        models = (row.parameters.get("extra_body", {}).get("model") for row in rows)
        first = next(models, None)
        if isinstance(first, str) and first and all(models):
            return first
    raise UsageError("no model: name one with -m, such as OpenRouter's openai/gpt-4o-mini, or in every line's body")


def _dry_run(arguments: argparse.Namespace, out: Output) -> int:
    """Check the input, count, estimate; nothing is sent and nothing is written.

    Raises:
        BatchError: The input cannot be read, or has bad lines that may not be skipped.
    """
    from ..batch.estimate import Estimate
    from ..batch.source import open_source
    from ..batch.template import Template
    from ..errors import BatchError

    out.check()
    template = None if arguments.template is None else Template(arguments.template)
    estimate = Estimate({**request_parameters(arguments)})
    checked = open_source(arguments.input, template=template).check(limit=arguments.limit, good=estimate.add)
    out.write("".join(f"{line}\n" for line in _estimates(estimate, checked.bad_count, arguments.price)))
    if checked.bad_count and arguments.on_bad_line == "fail":
        raise BatchError(checked.complaint())
    if checked.bad_count:
        complain(checked.complaint(skips=True))
    return 0


def _estimates(estimate: Estimate, bad_lines: int, price: Price | None) -> list[str]:
    from ..progress.figures import dollars

    prompt, answers = estimate.prompt_tokens, estimate.max_tokens
    bounded = bool(estimate.rows_with_max_tokens)
    unbounded = estimate.rows - estimate.rows_with_max_tokens
    tokens = [f"at most {answers:,}"] * bounded
    if unbounded:
        tokens.append(f"those of {unbounded:,} row{'s' * (unbounded != 1)} without max_tokens")
    lines = [
        f"rows: {estimate.rows:,}",
        f"bad lines: {bad_lines:,}",
        f"prompt tokens: about {prompt:,} (one token per four characters)",
        f"answer tokens: {', plus '.join(tokens) or 0}",
    ]
    if price is not None:
        least, most = price.cost(prompt, 0), price.cost(prompt, answers)
        known = f", {dollars(most)} at most with the answers" * bounded
        more = ", plus the answers of rows without max_tokens" * bool(unbounded)
        lines.append(f"cost: {dollars(least)} for the prompts{known}{more}")
    return lines


def _said(arguments: argparse.Namespace, result: BatchResult) -> str:
    from ..progress.figures import dollars

    if result.total == 0 and not result.bad_lines:
        return "the input has no rows, so nothing was sent"
    parts = [f"{result.done:,} answered"]
    kind, last = next(iter(result.summary["failure_messages"].items()), ("", ""))  # the commonest
    if result.failed:
        parts.append(f"{result.failed:,} failed (most: {kind})")
    if result.failed_earlier:
        them = "it" if result.failed_earlier == 1 else "them"
        parts.append(f"{result.failed_earlier:,} failed for good earlier (--retry-permanent retries {them})")
    if result.skipped:
        parts.append(f"{result.skipped:,} {'was' if result.skipped == 1 else 'were'} answered earlier")
    if result.bad_lines:
        parts.append(f"{result.bad_lines:,} bad line{'s' * (result.bad_lines != 1)} left out")
    if result.cost is not None:
        parts.append(dollars(result.cost))
    said = ", ".join(parts)
    if _has_failures(result):
        from pathlib import Path

        from ..batch.files import Files

        said += f"; see {Files.of(Path(arguments.output)).errors}"
    if result.stopped == "interrupt":
        return f"{said}. Interrupted: the same command{' without --fresh' * arguments.fresh} continues from here."
    if result.message is not None:
        return f"{said}. {one_line(result.message)}"
    return f"{said}. The last one: {last}" if result.failed else said


def _exit_code(result: BatchResult) -> int:
    if result.stopped is not None:
        return 130 if result.stopped == "interrupt" else 3
    return 2 if _has_failures(result) else 0


def _has_failures(result: BatchResult) -> bool:
    """Whether the errors file has lines."""
    return bool(result.failed or result.failed_earlier or result.bad_lines)
