"""A batch: rows in, lines out, and nothing lost or paid for twice.

In: a source of rows, the output's path, a provider. Out: the output and the errors file, a summary beside them, a
`BatchResult`. Never touched: how a row is answered.

The order of things: lock, plan (check, compare, index, repair), run, close the files, tidy up, summarise. A batch
that was killed at any moment goes on with the same call.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Unpack

from attrs import define

from ..config import checked_kind
from ..errors import BatchError, RunStoppedError
from ..net.limits import Caller
from ..parameters import Parameters
from ..progress.show import ProgressOption
from ..progress.tally import Price
from ..provider import AsyncProvider
from ..run import Concurrency, Run, StopRule
from ..types import GenerateResult, MapItem
from ..wire.codec import dumps
from .feed import Feed
from .files import Files, replace_atomically
from .finish import drop_superseded, sort_output
from .journal import Journal, Sync
from .lines import error_line, refusal_line, result_line
from .lock import Lock
from .plan import OnBadLine, Plan, Source, make_plan
from .report import report_html
from .rows import BadLine, Row
from .signals import Signals
from .summary import summary

__all__ = ["BatchResult", "run_batch"]


@define
class BatchResult:
    """How a batch went.

    Attributes:
        total: How many rows there are, those of earlier runs included, or None where nobody knows.
        done: Rows answered by this run.
        failed: Rows that failed in this run; the next one tries those again that are not permanent.
        skipped: Rows that earlier runs have answered.
        failed_earlier: Rows that failed for good in earlier runs and were not tried again.
        bad_lines: Lines of the input that are no requests and were left out.
        stopped: Why the run ended early (`"budget"`, `"error_rate"`, `"failures"`, `"authentication"`, `"quota"`,
            `"interrupt"`), or None where every row was tried.
        message: The same in words, or None.
        cost: USD, or None without a price.
        summary: What stands in the summary file.
    """

    total: int | None
    done: int
    failed: int
    skipped: int
    failed_earlier: int
    bad_lines: int
    stopped: str | None
    message: str | None
    cost: float | None
    summary: dict[str, Any]


@define(frozen=True)
class _Settings:
    """What holds for the whole batch."""

    files: Files
    price: Price | None
    budget_usd: float | None
    sync: Sync
    stream: bool
    on_bad_line: OnBadLine
    limit: int | None
    common: dict[str, Any]


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
    **parameters: Unpack[Parameters],
) -> BatchResult:
    """Send every row of the source, and write a line for each; go on where an earlier run has stopped.

    Args:
        source: A path (`.jsonl`, `.csv`, `.tsv`, gzipped or not), `"-"` for standard input, or rows one by one: an
            iterable or asynchronous iterable of what a line may hold. A file is checked as a whole before the first
            request is sent.
        output: Where results go, as lines of OpenAI's Batch API, in the order in which they come. Beside it:
            `NAME.errors.jsonl` (what failed), `NAME.manifest.json`, `NAME.summary.json`, `NAME.lock`.
        provider: Who answers. Its `limits` hold; its `retry` too.
        concurrency: How many rows are worked on at once; `"auto"`: as many as the endpoint bears, at most
            `Limits.in_flight` (256 without).
        template: Makes the prompt of rows that are columns: `"Translate: {text}"`.
        limit: Take only so many rows from the beginning of the source.
        on_bad_line: What to do with lines that are no requests: `"fail"` before anything is sent, or `"skip"` them;
            they then have lines in the errors file.
        fresh: Throw away what earlier runs have left, results included.
        retry_permanent: Try rows again that the endpoint refused for good.
        allow_changed: Go on although the input or the parameters are not those that the output was begun with.
        price: USD per million tokens of prompts and of answers.
        budget_usd: Stop before this is spent; needs `price`.
        max_failures: Stop when more rows than this have failed.
        max_error_rate: Stop when more than this share of the latest 100 rows (20 at least) have failed.
        sync: When results are safe from a power cut: `"group"`, within 0.25 s; `"row"`, before the row counts as
            done; `"off"`, when the system sees fit. A kill of the process loses none of them in any case.
        sort: At the end, bring both files into the order of the source.
        stream: Let the endpoint stream each answer underneath: the summary then has times to the first token.
        progress: As `AsyncProvider.map`'s.
        report: Write a page with plots there.
        handle_signals: SIGINT and SIGTERM stop the batch: once, wait for what is under way (30 s at most); twice,
            now. Only in the main thread.
        **parameters: See `Parameters`: what holds for every row that does not say otherwise.

    Returns:
        How it went. A run that was stopped, and rows that failed, are no exceptions.

    Raises:
        BatchError: The batch cannot begin, or its files cannot be written any more.
        ValueError: An argument cannot be right; nothing was sent.
    """
    cost = None if price is None else Price(*price)
    if budget_usd is not None and cost is None:
        raise ValueError("budget_usd needs price: without it nobody knows what is spent")
    settings = _Settings(Files.of(Path(output)), cost, budget_usd, sync, stream, on_bad_line, limit, dict(parameters))
    checked_kind(provider, AsyncProvider, "provider")
    rule = StopRule(max_failures, max_error_rate)
    with Lock(settings.files.lock):
        started = time.time()
        plan = await asyncio.to_thread(
            make_plan,
            source,
            settings.files,
            _described(provider, parameters, template),
            template=template,
            limit=limit,
            on_bad_line=on_bad_line,
            fresh=fresh,
            retry_permanent=retry_permanent,
            allow_changed=allow_changed,
        )
        batch = _Batch(settings, plan, Feed(source, plan, on_bad_line, limit), provider, rule, concurrency, progress)
        with Signals(batch.interrupt, batch.abandon, wanted=handle_signals):
            await batch.run()
        await asyncio.to_thread(batch.tidy, sort)
        return await asyncio.to_thread(batch.sum_up, started, report)


def _described(provider: AsyncProvider, parameters: Parameters, template: str | None) -> dict[str, Any]:
    """What the answers depend on, for the manifest: no key, and nothing about time or pace."""
    hidden = ("extra_headers", "timeout", "retry")
    given = {name: value for name, value in parameters.items() if name not in hidden and value is not None}
    return {"model": provider.model, "url": str(provider._url.with_query(None)), "template": template, **given}


class _Batch:
    """One run of a batch, from its first request on."""

    def __init__(
        self,
        settings: _Settings,
        plan: Plan,
        feed: Feed,
        provider: AsyncProvider,
        rule: StopRule,
        concurrency: Concurrency,
        progress: ProgressOption,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._feed = feed
        self._provider = provider
        self._run_id = secrets.token_hex(8)
        self._finish_reasons: dict[str | None, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._broken: BatchError | None = None
        self._run = Run(
            self._answer,
            provider._limiter,
            concurrency=concurrency,
            rule=rule,
            price=settings.price,
            total=plan.total,
            skipped=feed.expected_skips,
            streamed=settings.stream,
            progress=progress,
        )

    async def run(self) -> None:
        """Work the rows off.

        Raises:
            BatchError: The files cannot be written any more.
        """
        files, sync = self._settings.files, self._settings.sync
        results = Journal(files.output, sync, on_error=self._break)
        errors = Journal(files.errors, sync, on_error=self._break)
        try:
            task = self._task = asyncio.ensure_future(self._work_off(results, errors))
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        except asyncio.CancelledError:  # by the caller: what is done is kept
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            try:
                await results.aclose()
            finally:
                await errors.aclose()
        if self._broken is not None:
            raise self._broken

    def interrupt(self) -> None:
        """Send nothing more; wait for what is under way."""
        self._run.stop(self._stopped("interrupt", "it was interrupted; the same command goes on from here."))

    def abandon(self) -> None:
        """Wait no longer."""
        self.interrupt()
        if self._task is not None:
            self._task.cancel()

    def tidy(self, sort: bool) -> None:
        """Leave in the errors file only what still holds; sort, if wanted."""
        drop_superseded(self._settings.files, self._plan.index.done)
        if sort:
            sort_output(self._settings.files)

    def sum_up(self, started: float, report: str | Path | None) -> BatchResult:
        """Write the summary, and the report if there is to be one."""
        tally, feed, stopped = self._run.tally, self._feed, self._run.stopped
        tally.skipped = feed.skipped + feed.failed_earlier
        told = summary(
            tally,
            model=self._provider.model,
            base_url=str(self._provider._url),
            started=started,
            ended=time.time(),
            stopped=None if stopped is None else stopped.reason,
            bad_lines=feed.bad_lines,
            finish_reasons=self._finish_reasons,
            input=feed.name,
            output=str(self._settings.files.output),
        )
        replace_atomically(self._settings.files.summary, [dumps(told), b"\n"])
        if report is not None:
            replace_atomically(Path(report), [report_html(told, tally).encode()])
        now = tally.snapshot()
        return BatchResult(
            total=now.total,
            done=now.done,
            failed=now.failed,
            skipped=feed.skipped,
            failed_earlier=feed.failed_earlier,
            bad_lines=feed.bad_lines,
            stopped=None if stopped is None else stopped.reason,
            message=None if stopped is None else stopped.message,
            cost=now.cost,
            summary=told,
        )

    async def _work_off(self, results: Journal, errors: Journal) -> None:
        remembers = bool(self._plan.index.failed)  # only then can a row have an error line from before
        try:
            async for item in self._run.items(self._rows(errors), ordered=False):
                row: Row = item.input
                if isinstance(item.error, RunStoppedError):  # it was not sent
                    continue
                if item.result is not None:
                    results.append(result_line(self._run_id, row, item.result, self._settings.price))
                    if remembers:
                        self._plan.index.done.add(row.custom_id)
                    self._note(item.result)
                else:
                    self._fail(errors, item)
                if self._settings.sync == "row":
                    await (results if item.error is None else errors).commit()
        except RunStoppedError:
            pass  # `Run.stopped` tells

    async def _answer(self, caller: Caller, row: Row) -> GenerateResult:
        arguments = self._settings.common | row.parameters
        if "extra_body" in self._settings.common and "extra_body" in row.parameters:
            arguments["extra_body"] = {**self._settings.common["extra_body"], **row.parameters["extra_body"]}
        return await self._provider._answer(caller, stream=self._settings.stream, **arguments)

    async def _rows(self, errors: Journal) -> AsyncIterator[Row]:
        """The rows that are left to do; lines that are none are written down."""
        async for taken in self._feed:
            if isinstance(taken, BadLine):
                errors.append(refusal_line(self._run_id, taken))
            else:
                yield taken

    def _fail(self, errors: Journal, item: MapItem) -> None:
        assert item.error is not None
        errors.append(error_line(self._run_id, item.input, item.error))

    def _note(self, result: GenerateResult) -> None:
        reason = result.finish_reason
        self._finish_reasons[reason] = self._finish_reasons.get(reason, 0) + 1
        budget, cost = self._settings.budget_usd, self._run.tally.cost
        if budget is not None and cost is not None:
            now = self._run.tally.snapshot() if cost > budget / 2 else None
            if now is not None and cost + cost / now.finished * now.in_flight >= budget:
                said = f"${cost:.4f} are spent, and what is under way will use up the budget of ${budget:g}."
                self._run.stop(self._stopped("budget", said))

    def _stopped(self, reason: str, said: str) -> RunStoppedError:
        now = self._run.tally.snapshot()
        message = f"The run was stopped after {now.done} answers and {now.failed} failures: {said}"
        return RunStoppedError(message, reason=reason, done=now.done, failed=now.failed)

    def _break(self, error: BatchError) -> None:
        """The files cannot be written: whatever comes would be lost, so nothing more is paid for."""
        self._broken = self._broken or error
        if self._task is not None:
            self._task.cancel()
