"""What is left to do: files and values, what is passed over, what is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.batch import feed as module
from rusty_agent.batch.feed import Feed
from rusty_agent.batch.files import Files
from rusty_agent.batch.index import Index
from rusty_agent.batch.plan import Plan
from rusty_agent.batch.rows import BadLine, Row
from rusty_agent.batch.settings import JobSettings, OnBadLine
from rusty_agent.batch.source import open_source
from rusty_agent.errors import BatchError
from rusty_agent.net.gather import PAUSE
from rusty_agent.progress.tally import Tally
from rusty_agent.wire.codec import dumps


def feed(
    source: Any, plan: Plan, tally: Tally | None = None, *, on_bad_line: OnBadLine = "fail", limit: int | None = None
) -> tuple[Feed, list[BadLine]]:
    refused: list[BadLine] = []
    settings = JobSettings(Files.of(Path("out.jsonl")), on_bad_line=on_bad_line, limit=limit)
    return Feed(source, plan, settings, tally or Tally(), refuse=refused.append), refused


async def all_of(feed: Feed) -> list[Row]:
    async with feed.rows() as rows:
        if isinstance(rows, AsyncIterable):
            return [row async for row in rows]
        found = []
        for row in rows:
            if row is PAUSE:
                await asyncio.sleep(0)
            else:
                found.append(row)
        return found


async def turns_of_the_loop(feed: Feed) -> int:
    """How often the loop goes round while a feed passes over all it has."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert await all_of(feed) == []
    counting.cancel()
    return turns


def of_file(folder: Path, lines: list[Any], index: Index | None = None) -> Plan:
    path = folder / "in.jsonl"
    path.write_bytes(b"".join(dumps(line) + b"\n" for line in lines))
    source = open_source(path)
    checked = source.check()
    return Plan(source, index or Index(), checked.rows, checked.bad_count, checked.repeated)


def left(index: set[str], permanent: set[str]) -> Index:
    return Index(done=index, permanent=permanent)


async def test_what_earlier_runs_have_finished_is_passed_over_and_counted(tmp_path: Path) -> None:
    plan = of_file(tmp_path, ["a", "b", "c", "d"], left({"1", "9"}, {"3"}))
    tally = Tally()
    given, refused = feed("ignored", plan, tally)
    assert [row.custom_id for row in await all_of(given)] == ["2", "4"]
    assert (given.skipped, given.failed_earlier, given.bad_lines, refused) == (1, 1, 0, [])
    assert (tally.total, tally.skipped, tally.failed_earlier) == (4, 2, 1)  # as was foreseen


@pytest.mark.parametrize("why", ["a limit", "an input that has changed"])
async def test_the_tally_hears_of_each_row_that_is_passed_over_where_nobody_can_foresee_them(
    why: str, tmp_path: Path
) -> None:
    plan, tally = of_file(tmp_path, ["a", "b", "c", "d"], left({"1", "4"}, {"3"})), Tally()
    plan.moved = why != "a limit"
    given, _ = feed("ignored", plan, tally, limit=3 if why == "a limit" else None)
    assert (tally.skipped, tally.failed_earlier) == (0, 0)
    assert [row.custom_id for row in await all_of(given)] == ["2"]
    assert (tally.skipped, tally.failed_earlier) == (1 + plan.moved, 1)


@pytest.mark.parametrize(("from_file", "total"), [(True, 1), (False, 2)])
async def test_a_bad_line_is_no_row_of_those_that_come_one_by_one(from_file: bool, total: int, tmp_path: Path) -> None:
    tally = Tally()
    plan = of_file(tmp_path, ["a", 7]) if from_file else Plan(None, Index(), 3)
    await all_of(feed(["a", 7, "b"], plan, tally, on_bad_line="skip")[0])
    assert tally.total == total


async def test_bad_lines_are_refused(tmp_path: Path) -> None:
    lines = [{"prompt": "a", "custom_id": "x"}, 7, {"prompt": "b", "custom_id": "x"}, {"prompt": 1}]
    plan = of_file(tmp_path, lines, left(set(), {"bad line 2"}))  # which a row may be called
    given, refused = feed("ignored", plan, on_bad_line="skip")
    assert [row.line for row in await all_of(given)] == [1]
    assert [(bad.line, bad.reason) for bad in refused] == [
        (2, "a line must hold an object, a string (a prompt) or a list (messages), not a number"),
        (3, "an earlier row has the same custom_id, 'x'"),
        (4, "prompt must be a string, not int"),
    ]
    assert given.bad_lines == 3


async def test_the_loop_is_not_held_up_by_what_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_AFTER", 0.0)
    given, _ = feed("ignored", of_file(tmp_path, ["x"] * 100, left({str(n) for n in range(1, 101)}, set())))
    assert await turns_of_the_loop(given) >= 10


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_nor_by_few_rows_that_take_long(kind: str) -> None:
    """As of rows that hold images."""

    def slow() -> Iterator[str]:
        for _ in range(30):
            time.sleep(0.002)
            yield "x"

    async def each() -> AsyncIterator[str]:
        for row in slow():
            yield row

    done = left({str(n) for n in range(1, 31)}, set())
    given, _ = feed(slow() if kind == "plain" else each(), Plan(None, done, None))
    assert await turns_of_the_loop(given) >= 3


@pytest.mark.parametrize("limit", [None, 1, 2, 5])
async def test_values_of_both_kinds_of_iterables(limit: int | None) -> None:
    values = ["a", {"prompt": "b"}, [{"role": "user", "content": "c"}]]

    async def each() -> AsyncIterator[Any]:
        for value in values:
            yield value

    plan = Plan(None, Index(), None)
    found = [await all_of(feed(source, plan, limit=limit)[0]) for source in (values, iter(values), each())]
    assert found[0] == found[1] == found[2]
    assert [row.custom_id for row in found[0]] == ["1", "2", "3"][:limit]


async def test_a_value_that_is_no_request() -> None:
    plan = Plan(None, Index(), None)
    source = ["a", 7, {"prompt": "b", "custom_id": "1"}]
    given, refused = feed(source, plan, on_bad_line="skip")
    assert [row.line for row in await all_of(given)] == [1]
    assert [bad.line for bad in refused] == [2, 3]
    given, refused = feed(source, plan)
    with pytest.raises(BatchError, match=r'Row 2 of the source is not a request: .*on_bad_line="skip"'):
        await all_of(given)
    assert refused == []


async def test_closing_it_closes_the_source() -> None:
    closed = []

    def source() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    async with feed(source(), Plan(None, Index(), None))[0].rows() as rows:
        assert isinstance(rows, Iterator)
        assert next(rows).custom_id == "1"
    assert closed == [True]


async def test_the_loop_is_not_held_up_by_what_is_passed_over_of_an_asynchronous_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAUSE_AFTER", 0.0)

    async def source() -> AsyncIterator[str]:
        for _ in range(100):
            yield "x"

    given, _ = feed(source(), Plan(None, left({str(n) for n in range(1, 101)}, set()), None))
    assert await turns_of_the_loop(given) >= 10


IDS = st.sampled_from(["a", "b", "c", "d", "e"])


@given(st.lists(st.one_of(IDS, st.none())), st.sets(IDS), st.sets(IDS))
def test_every_row_is_left_passed_over_or_refused(lines: list[str | None], done: set[str], failed: set[str]) -> None:
    values = [7 if line is None else {"custom_id": line, "prompt": "x"} for line in lines]
    given, refused = feed(values, Plan(None, left(done, failed - done), None), on_bad_line="skip")
    rows = asyncio.run(all_of(given))
    assert len(rows) + given.skipped + given.failed_earlier + given.bad_lines == len(lines)
    assert len(refused) == given.bad_lines
    assert {row.custom_id for row in rows} == {line for line in lines if line} - done - failed
