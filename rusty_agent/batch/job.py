"""One run of a batch: it works rows off, writes their lines, and sums up.

In: a plan, a provider. Out: lines in the batch's files, a `BatchResult`. Never touched: the batch's lock, which the
caller holds.

A row's line goes to the journal before the row counts, in the same step of the event loop in which its answer comes: a
run that is cancelled or killed loses nothing that was answered.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from attrs import define, field

from ..errors import APIConnectionError, BatchError, LocalModelError, RunStoppedError, RustyAgentError
from ..net.caller import Caller
from ..progress.show import say
from ..provider import AsyncProvider
from ..requests import Common
from ..run import Run
from ..stop_rule import StopRule
from ..types import GenerateResult, Usage
from ..wire.codec import dumps
from .budget import Budget
from .feed import Feed
from .files import replace_atomically
from .finish import drop_superseded, sort_output
from .journal import Journal
from .lines import error_line, refusal_line, result_line
from .plan import Plan
from .report import report_html
from .rows import BadLine, Row
from .settings import JobSettings, Source
from .signals import DRAIN_SECONDS
from .summary import covers, summary
from .waiting import outlast, to_its_end

__all__ = ["BatchResult", "Job"]

_INTERRUPTED = "it was interrupted; run the batch again, without fresh=True, to continue from here."


@define
class BatchResult:
    """How a batch went.

    Attributes:
        total: How many rows there are, those of earlier runs included, or None if that is not known yet.
        done: Rows answered by this run.
        failed: Rows that failed in this run; the next run tries them again unless the failure is permanent.
        skipped: Rows that earlier runs have answered. If this run was stopped, and has a limit, an input that has
            changed, or rows that come one by one, only those that it had reached are counted.
        failed_earlier: Rows that failed for good in earlier runs and were not tried again.
        bad_lines: Lines of the input that are not requests and were left out.
        stopped: Why the run ended early (`"budget"`, `"error_rate"`, `"failures"`, `"authentication"`, `"quota"`,
            `"interrupt"`), or None if every row was tried.
        message: The same in words, or None.
        cost: USD; None without a price, or if no usage was reported.
        summary: The summary of this run. A run that had nothing to do may leave an earlier run's in the file.
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
    summary: dict[str, Any] = field(repr=False)


class Job:
    """One run of a batch.

    Raises:
        ValueError: `concurrency` or `progress` cannot be right.
    """

    def __init__(self, settings: JobSettings, provider: AsyncProvider, common: Common, rule: StopRule) -> None:
        self._settings = settings
        self._common = common
        self._provider = provider
        base_url = provider._requests.config.shown_url.removesuffix("/chat/completions")
        self._served_by = {"model": provider.model, "base_url": base_url}
        self._rule = rule
        self._run = Run(
            self._answer,
            provider._calls.limiter,
            concurrency=settings.concurrency,
            rule=rule,
            price=settings.price,
            streamed=settings.stream,
            progress=settings.progress,
        )
        self._run_id = secrets.token_hex(8)
        self._finish_reasons: Counter[str | None] = Counter()
        price, usd = settings.price, settings.budget_usd
        self._budget = None if price is None or usd is None else Budget(usd, price)
        self._task: asyncio.Task[None] | None = None
        self._broken = False  # a file could not be written, so its last lines may be missing

    async def run(self, source: Source, plan: Plan) -> None:
        """Work the rows off.

        Raises:
            BatchError: The source cannot be read on, or the files cannot be written any more.
            Exception: What the source raised, or the progress function.
        """
        self._plan = plan
        self._rule.served = plan.served
        self._feed = Feed(source, plan, self._settings, self._run.tally, refuse=self._write_refusal)
        async with AsyncExitStack() as closing:
            closing.push_async_exit(self._drop_superseded)
            self._results = self._open(self._settings.files.output, closing)
            self._errors = self._open(self._settings.files.errors, closing)
            task = self._task = asyncio.ensure_future(self._work_off())
            try:
                await outlast(task, on_cancel=self.abandon)  # what is done is kept
            finally:
                del self._provider  # the job is a reference cycle: it would keep the provider until it is collected
            if not task.cancelled():
                task.result()
            elif self._run.stopped is None:  # somebody else has cancelled the task, so rows are left undone
                raise asyncio.CancelledError

    def interrupt(self) -> None:
        """Send nothing more, but wait for the requests under way; say so, because that may take a while."""
        sent = self._run.tally.snapshot().in_flight  # the other rows under way wait for a permit, and are not sent
        if sent and self._run.stopped is None and self._settings.progress != "json":  # JSON is for programs
            said = f"interrupted: waiting for {sent:,} row{'s' * (sent != 1)} under way, at most {DRAIN_SECONDS:.0f} s"
            say(f"{said}; interrupt again to stop at once")
        self._stop("interrupt", _INTERRUPTED)

    def abandon(self) -> None:
        """Cancel what is under way, but only once: a second cancellation would cut its clean-up short."""
        if self._task is not None and not self._task.cancelling():  # None: a file broke before any row was begun
            self._task.cancel()

    def sum_up(self, output: str, started: float, report: Path | None) -> BatchResult:
        """Count the rows of all runs; write the summary (`output` is its name in it) and the report, if any; sort."""
        source, stopped = self._plan.input, self._count_all()
        told = summary(
            self._run.tally,
            **self._served_by,
            started=started,
            ended=time.time(),
            stopped=None if stopped is None else stopped.reason,
            bad_lines=self._feed.bad_lines,
            finish_reasons=self._finish_reasons,
            input=None if source is None else source.name,
            output=output,
        )
        self._write_summary(told, report)
        if stopped is None and self._settings.sort:  # last: the disk may have no room for a second copy
            sort_output(self._settings.files, self._feed.lines)
        return BatchResult(
            **told["rows"],
            stopped=told["stopped"],
            message=None if stopped is None else stopped.message,
            cost=self._run.tally.snapshot().cost,
            summary=told,
        )

    def _write_summary(self, told: dict[str, Any], report: Path | None) -> None:
        """Write the summary, and the report if one is wanted, unless those of an earlier run say as much."""
        path, tally = self._settings.files.summary, self._run.tally
        nothing_new = told["stopped"] is None and not tally.snapshot().finished and path.exists()
        kept = nothing_new and covers(path.read_bytes(), told, self._plan.index.failed)
        if report is not None and not (kept and report.exists()):
            replace_atomically(report, [report_html(told, tally).encode("utf-8", "replace")])
        if not kept:  # after the report: a kill in between leaves an earlier summary, so the next run writes both again
            replace_atomically(path, [dumps(told), b"\n"])

    def _count_all(self) -> RunStoppedError | None:
        """Count the rows of all runs; return what stopped this run, if it was stopped before its end."""
        tally, feed, stopped = self._run.tally, self._feed, self._run.stopped
        tried = feed.skipped + feed.failed_earlier + tally.snapshot().finished
        all_tried = tally.total is not None and tried >= tally.total and feed.bad_lines >= self._plan.bad_lines
        if stopped is not None and not (stopped.reason in ("budget", "interrupt") and all_tried):
            return stopped
        tally.total, tally.skipped, tally.failed_earlier = tried, feed.skipped, feed.failed_earlier
        return None  # also if the stop came when every row had been tried

    async def _drop_superseded(self, _: object, error: BaseException | None, __: object) -> None:
        """Drop the error lines of rows that have been answered since, however the run has ended."""
        if self._broken:  # the next run reads the files, and sees which lines were written
            return
        try:
            await to_its_end(drop_superseded, self._settings.files, self._plan.index.done)
        except BatchError:
            if error is None:  # else that error says more: the folder may be gone
                raise

    async def _work_off(self) -> None:
        try:
            async with self._feed.rows() as rows:
                await self._run.work_off(rows)  # `_answer` writes their lines
        except RunStoppedError:
            pass  # `Run.stopped` keeps it

    async def _answer(self, caller: Caller, row: Row) -> GenerateResult:
        """Answer a row and write its line: a row that counts was written, and one that is cancelled had no answer."""
        settings = self._settings
        try:
            request = self._common.prepare(row.parameters)
            if settings.stream and _needs_whole(request.fields):
                request = self._common.prepare({**row.parameters, "stream": False})
            result = await self._provider._answer(caller, request)
            line = result_line(self._run_id, row, result, settings.price)
        except RunStoppedError:  # the row was not sent
            raise
        except Exception as error:
            if self._provider._calls.transport.ended and isinstance(error, APIConnectionError | LocalModelError):
                raise self._stop(
                    "interrupt",
                    "its provider was closed. Run the batch again with an open one, without fresh=True, to continue.",
                ) from error
            if isinstance(error, RustyAgentError) and error.usage is not None:
                self._spend(error.usage, caller)
            self._errors.append(error_line(self._run_id, row, error, settings.price))
            await self._commit(self._errors)
            raise
        self._finish_reasons[result.finish_reason] += 1
        self._spend(result.usage, caller)
        self._results.append(line)
        if self._plan.index.failed:  # only then can the row have an error line from an earlier run
            self._plan.index.done.add(row.custom_id)
        await self._commit(self._results)
        return result

    async def _commit(self, journal: Journal) -> None:
        """With `sync="row"`, wait until the line is durable. If this is cancelled, closing the journal waits instead.

        A cancelled wait does not undo the row: its line is written, and its answer is paid for.
        """
        if self._settings.sync == "row":
            try:
                await journal.commit()
            except asyncio.CancelledError:
                self._stop("interrupt", _INTERRUPTED)  # the cancellation ends here: unstopped, the worker would go on

    def _spend(self, usage: Usage | None, caller: Caller) -> None:
        if self._budget is not None and (said := self._budget.spend(usage, caller.in_flight)) is not None:
            self._stop("budget", said)

    def _write_refusal(self, bad: BadLine) -> None:
        self._errors.append(refusal_line(self._run_id, bad))

    def _open(self, path: Path, closing: AsyncExitStack) -> Journal:
        journal = Journal(path, self._settings.sync, on_error=self._break)
        closing.push_async_callback(journal.aclose)
        return journal

    def _break(self, error: BatchError) -> None:
        """A file cannot be written: further answers would be lost, so pay for none. Closing the journal raises."""
        self._broken = True
        self.abandon()

    def _stop(self, reason: str, said: str) -> RunStoppedError:
        stopped = self._rule.error(reason, said)
        self._run.stop(stopped)
        return stopped


def _needs_whole(fields: dict[str, Any]) -> bool:
    """Whether the answer may have parts that are lost when a stream is put together again."""
    return fields.get("n") not in (None, 1) or bool(fields.get("logprobs") or fields.get("audio"))
