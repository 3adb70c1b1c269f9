"""A batch: rows in, lines out, and nothing lost or paid for twice.

In: a source of rows, the output's path, a provider. Out: the output and the errors file, a summary beside them, a
`BatchResult`. Never touched: how a row is answered.

The order of steps: lock, plan (check, index, compare, repair), run, close the files, tidy up, summarise, sort. A batch
that was killed at any moment goes on with the same call.
"""

from __future__ import annotations

import threading
import time
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from ..checks import checked_flag, checked_kind, checked_path
from ..keys import hide_secrets
from ..parameters import BatchParameters, Concurrency, shows
from ..progress.price import Price
from ..progress.show import ProgressOption
from ..provider import AsyncProvider
from ..requests import Common
from ..stop_rule import StopRule
from .files import Files
from .foreign import refuse_overwriting
from .job import BatchResult, Job
from .journal import Sync
from .lock import Lock
from .plan import make_plan
from .settings import JobSettings, OnBadLine, Source, check_common, check_source
from .signals import Signals
from .waiting import to_its_end

__all__ = ["BatchResult", "run_batch"]


@shows(BatchParameters)
async def run_batch(
    source: Source,
    output: str | Path,
    provider: AsyncProvider,
    *,
    concurrency: Concurrency = "auto",
    template: str | None = None,
    limit: int | None = None,
    on_bad_line: OnBadLine = "fail",
    fresh: bool = False,
    retry_permanent: bool = False,
    allow_changed: bool = False,
    price: tuple[float, float] | None = None,
    budget_usd: float | None = None,
    max_failures: int | None = None,
    max_error_rate: float | None = None,
    sync: Sync = "group",
    sort: bool = False,
    stream: bool = False,
    progress: ProgressOption = False,
    report: str | Path | None = None,
    handle_signals: bool = False,
    **parameters: Unpack[BatchParameters],
) -> BatchResult:
    """Send every row of the source, and write a line for each; go on where an earlier run stopped.

    The parameters of `generate_text`, except `prompt` and `messages`, hold for every row that does not set its own.

    Args:
        source: A path (`.jsonl`, `.csv`, `.tsv`, gzipped or not), `"-"` for standard input, or rows one by one: an
            iterable or asynchronous iterable of what a line may hold. A file or a list is checked as a whole before the
            first request is sent. An iterator runs on the event loop and must not block there.
        output: Where results go, as lines of OpenAI's Batch API, in the order in which they come. Beside it:
            `NAME.errors.jsonl` (what failed), `NAME.manifest.json`, `NAME.summary.json`, `NAME.lock`.
        provider: The provider that answers; its `limits` and its `retry` apply.
        concurrency: How many rows are worked on at once; `"auto"`: as many as the endpoint takes, at most
            `Limits.in_flight` (256 if that is not set).
        template: Makes the prompt from the columns of each row: `"Translate: {text}"`.
        limit: Take only this many rows from the beginning of the source, bad lines included.
        on_bad_line: What to do with lines that are not requests: `"fail"` before anything is sent, or `"skip"` them;
            they then have lines in the errors file.
        fresh: Throw away what earlier runs have left, results included, after the input has been checked.
        retry_permanent: Try rows again that failed for good in earlier runs.
        allow_changed: Continue although the input or the parameters have changed since the output was begun.
        price: USD per million tokens of prompts and of answers.
        budget_usd: Stop before this run has spent so much, requests under way included; needs `price`. Rows sent before
            the first answer reports its usage (a few with `"auto"`) are paid for in any case.
        max_failures: Stop when more rows than this have failed.
        max_error_rate: Stop when more than this share (0 to below 1) of the latest 100 rows (20 at least) have failed.
        sync: When results are safe from a power cut: `"group"`, within 0.25 s; `"row"`, before the row counts as
            done; `"off"`, when the operating system writes them. Killing the process loses none of them in any case.
        sort: At the end of a run that was not stopped, bring both files into the order of the source.
        stream: Let the endpoint stream each answer: the summary then has times to the first token.
        progress: As in `AsyncProvider.map`.
        report: Where to write a page with plots.
        handle_signals: SIGINT and SIGTERM stop the batch: the first signal waits for requests under way (30 s at
            most), the second stops at once. Only in the main thread.
        **parameters: See `BatchParameters`.

    Returns:
        How it went. A run that was stopped, and rows that failed, raise nothing.

    Raises:
        BatchError: The batch cannot begin, or its files cannot be written any more.
        ValueError: An argument is invalid; nothing was sent.
        TypeError: There is no such argument.
        MissingAPIKeyError: The provider was unpickled, and this process has no key for it.
        Exception: What the source or the progress function raised.
    """
    hide_secrets(parameters)
    provider = checked_kind(provider, AsyncProvider, "provider")
    checked_flag(handle_signals, "handle_signals")
    files = Files.of(checked_path(output, "output"))
    settings = JobSettings(
        files=Files.of(files.output.absolute()),  # the working folder may change
        concurrency=concurrency,
        template=template,
        limit=limit,
        on_bad_line=on_bad_line,
        fresh=fresh,
        retry_permanent=retry_permanent,
        allow_changed=allow_changed,
        price=None if price is None else Price.of(price),
        budget_usd=budget_usd,
        sync=sync,
        sort=sort,
        stream=stream,
        progress=progress,
    )
    check_common(parameters, signature(run_batch).parameters)
    if provider._calls.transport.ended:
        raise ValueError("the provider, or the session that it was given, is closed: create a new one")
    common = Common(provider._requests, {"stream": stream, **parameters})
    check_source(source)
    rule = StopRule(max_failures, max_error_rate, common.policy.max_retry_after, hopeless=True)
    job = Job(settings, provider, common, rule)
    signals = Signals(job.interrupt, job.abandon, wanted=handle_signals)
    read = source if isinstance(source, str | PathLike) and source != "-" else None
    page = None if report is None else checked_path(report, "report")
    refuse_overwriting(files, read, page)  # before the lock, which writes a file too
    page = page and page.absolute()
    with signals, Lock(settings.files.lock):
        started = time.time()
        given_up = threading.Event()
        plan = await to_its_end(
            make_plan,
            source,
            settings,
            _described(provider, parameters),
            given_up=given_up.is_set,
            on_cancel=given_up.set,
        )
        signals.begin()
        await job.run(source, plan)
        return await to_its_end(job.sum_up, str(files.output), started, page)  # no signal cuts it short


def _described(provider: AsyncProvider, parameters: BatchParameters) -> dict[str, Any]:
    """What the answers depend on, for the manifest: without headers, timeouts and retries."""
    hidden = ("extra_headers", "timeout", "retry")
    given = {name: value for name, value in parameters.items() if name not in hidden and value is not None}
    return {"model": provider.model, "url": provider._requests.config.shown_url, **given}
