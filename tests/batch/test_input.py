"""What a batch reads: bad lines, iterables, limits, tables; and what it sorts by."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import Limits
from rusty_agent.batch import finish
from rusty_agent.errors import BatchError
from rusty_agent.progress.tally import Progress
from rusty_agent.testing import Answer, Received, error
from rusty_agent.wire.codec import loads_strict
from tests.events import held, soon

from .runs import Place, asked, by_prompt, ids, prompt, read, said, simple

BAD = [{"prompt": "a"}, {"prompt": 7}, {"x": 1}, {"custom_id": "1", "prompt": "b"}, {"prompt": "c", "max_tokens": -1}]


async def test_bad_lines_duplicates_and_wrong_types_are_told_with_their_numbers_before_anything_is_sent(
    place: Place,
) -> None:
    with pytest.raises(BatchError) as refused:
        await place.run(BAD)
    said = str(refused.value)
    assert said.startswith("4 lines of the input are not requests; nothing was sent.")
    assert "line 2: prompt must be a string, not int" in said
    assert "line 3: the object has no prompt, messages or body" in said
    assert "line 4: an earlier row has the same custom_id, '1'" in said
    assert "line 5: max_tokens must be at least 1" in said
    assert not place.server.requests
    assert not place.output.exists()


async def test_bad_lines_that_are_skipped_are_written_down_once_over_several_runs(place: Place) -> None:
    place.server.answer(error(500))
    first = await place.run([*BAD, {"prompt": "d"}], on_bad_line="skip")
    assert (first.failed, first.bad_lines, first.total) == (2, 4, 2)
    place.server.answer(said())
    second = await place.run(on_bad_line="skip")
    assert (second.done, second.bad_lines, second.total) == (2, 4, 2)
    assert sorted(ids(place.output)) == ["1", "6"]
    assert sorted(ids(place.errors)) == ["bad line 2", "bad line 3", "bad line 4", "bad line 5"]
    written = {line["x_rusty"]["line"]: line["error"] for line in read(place.errors)}
    assert written[4] == {"code": "bad_line", "message": "an earlier row has the same custom_id, '1'"}
    assert asked(place.server) == ["a", "a", "d", "d"]
    with pytest.raises(BatchError, match="4 lines of the input"):  # what was skipped once is still no request
        await place.run()


async def test_a_bad_line_with_the_name_of_a_row_that_is_done_stays_a_bad_line(place: Place) -> None:
    rows = [{"custom_id": "a", "prompt": "a"}, {"custom_id": "a", "prompt": 7}]
    for _ in range(2):
        result = await place.run(rows, on_bad_line="skip")
        assert (result.done + result.skipped, result.bad_lines, result.total) == (1, 1, 1)
        assert ids(place.errors) == ["bad line 2"]


async def test_a_bad_line_that_was_mended_is_written_down_no_more(place: Place) -> None:
    named = {"custom_id": "bad line 2", "prompt": "x"}
    place.server.answer(by_prompt({"x": error(400)}))
    first = await place.run([named, 7, 8], on_bad_line="skip")
    assert (first.failed, ids(place.errors)) == (1, ["bad line 2", "bad line 3", "bad line 2"])
    second = await place.run([named, {"prompt": "b"}, 8], on_bad_line="skip", allow_changed=True)
    assert (second.done, second.failed, second.bad_lines) == (1, 1, 1)
    assert sorted(ids(place.errors)) == ["bad line 2", "bad line 3"]
    await place.run([named, {"prompt": "b"}], allow_changed=True)
    [left] = read(place.errors)
    assert (left["custom_id"], left["x_rusty"]["kind"]) == ("bad line 2", "BadRequestError")


@pytest.mark.parametrize("how", ["cut", "grown", "overwritten"])
async def test_an_input_that_changes_while_it_is_worked_on_is_told(place: Place, how: str) -> None:
    rows = simple(40)

    def change(request: Received) -> Answer:
        data = place.input.read_bytes()
        if len(place.server.requests) == 1:
            changed = {
                "cut": data[: data.index(b"\n") + 1],
                "grown": data + b'{"prompt": "mo',
                "overwritten": data[::-1],
            }
            place.input.write_bytes(changed[how])
        return said()

    place.server.answer(change)
    with pytest.raises(
        BatchError, match=r"changed while it was being read\. .* if rows of it were sent, with allow_changed"
    ):
        await place.run(rows, concurrency=1)
    with pytest.raises(BatchError, match=r"the input changed|not a request"):
        await place.run()


async def test_a_stop_before_the_last_bad_line_is_one(place: Place) -> None:
    budget: dict[str, Any] = {"price": (1e6, 1e6), "budget_usd": 1.0, "on_bad_line": "skip"}
    stopped = await place.run([*simple(1), {"no": "prompt"}], concurrency=1, **budget)
    assert (stopped.done, stopped.bad_lines, stopped.stopped) == (1, 0, "budget")
    ended = await place.run(**budget)
    assert (ended.skipped, ended.bad_lines, ended.stopped) == (1, 1, None)


@pytest.mark.parametrize("rows", [("a", 7, "c"), {1: "a", 2: 7, 3: "c"}.values()])
async def test_bad_rows_of_what_has_a_length_are_none_of_all(place: Place, rows: Any) -> None:
    seen: list[Progress] = []
    assert (await place.run(rows, on_bad_line="skip", progress=seen.append)).total == 2
    assert seen[-1].total == 2


async def test_a_budget_that_the_last_row_uses_up_stops_nothing(place: Place) -> None:
    rows = {1: 7, 2: "a"}.values()
    ended = await place.run(rows, concurrency=1, price=(1e6, 1e6), budget_usd=1.0, on_bad_line="skip")
    assert (ended.done, ended.bad_lines, ended.stopped) == (1, 1, None)


async def test_bad_lines_beyond_the_limit_are_found_when_the_limit_goes(place: Place) -> None:
    await place.run([*simple(2), "", {"prompt": 7}], limit=2)
    with pytest.raises(BatchError, match="line 4: prompt must be a string"):
        await place.run()
    assert len(place.server.requests) == 2


async def test_few_rows_wait_for_their_turn_where_few_may_be_sent(place: Place) -> None:
    """They may be megabytes each."""
    taken = 0

    def rows() -> Iterator[str]:
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield "x"

    provider = place.provider(limits=Limits(requests_per_minute=60))
    running = asyncio.ensure_future(place.run(rows(), provider=provider, concurrency="auto"))
    await soon(lambda: place.server.requests and taken >= 16)
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert 16 <= taken < 64


async def test_rows_may_come_from_what_has_no_length_after_all(place: Place) -> None:
    """As a progress bar around a generator."""

    class Bar:
        def __len__(self) -> int:
            raise TypeError("nobody knows")

        def __iter__(self) -> Iterator[str]:
            return iter(["a", "b"])

    assert (await place.run(Bar())).done == 2


@pytest.mark.parametrize("kind", ["list", "generator", "asynchronous"])
async def test_rows_from_an_iterable(place: Place, kind: str) -> None:
    rows: list[Any] = ["one", {"prompt": "two", "custom_id": "b"}, [{"role": "user", "content": "three"}]]

    async def each() -> AsyncIterator[Any]:
        for row in rows:
            yield row

    def source() -> Any:
        return {"list": tuple(rows), "generator": iter(rows), "asynchronous": each()}[kind]

    place.server.answer(by_prompt({"two": error(500)}))
    first = await place.run(source())
    assert (first.done, first.failed, first.total) == (2, 1, 3)
    place.server.answer(said())
    second = await place.run(source())
    assert (second.done, second.skipped, second.total) == (1, 2, 3)
    assert sorted(ids(place.output)) == ["1", "3", "b"]
    assert (await place.run(source(), limit=2)).total == 2


async def test_rows_of_an_iterable_in_another_order_are_not_passed_over(place: Place) -> None:
    await place.run(iter(["a", "b"]))
    with pytest.raises(BatchError, match="Line 1 of the input is not the one that was answered"):
        await place.run(iter(["b", "a"]))
    named = [{"custom_id": name, "prompt": name} for name in "xy"]
    assert (await place.run(iter(["a", "b", *named]))).done == 2
    place.output.unlink()
    assert (await place.run(iter(named))).done == 2
    assert (await place.run(iter(named[::-1]))).skipped == 2
    assert asked(place.server) == ["a", "b", "x", "x", "y", "y"]


async def test_a_bad_row_of_an_iterable_ends_the_run_or_is_skipped(place: Place) -> None:
    rows = ("one", 7, "three", {"prompt": "four", "custom_id": "1"})
    with pytest.raises(BatchError, match=r"Row 2 of the source is not a request: .*What is done is kept"):
        await place.run(iter(rows))
    assert ids(place.output) == ["1"]
    result = await place.run(iter(rows), on_bad_line="skip")
    assert (result.done, result.skipped, result.bad_lines, result.total) == (1, 1, 2, 2)
    assert sorted(ids(place.errors)) == ["bad line 2", "bad line 4"]
    assert "an earlier row has the same custom_id, '1'" in place.errors.read_text()


async def test_bad_rows_of_a_list_are_told_before_anything_is_sent(place: Place) -> None:
    rows = ("one", 7, "three", {"prompt": "four", "custom_id": "1"})
    with pytest.raises(BatchError) as caught:
        await place.run(rows)
    assert place.server.requests == []
    assert "2 lines of the input are not requests" in str(caught.value)
    assert "line 2: " in str(caught.value)
    assert "line 4: an earlier row has the same custom_id, '1'" in str(caught.value)
    assert (await place.run(rows, limit=1)).done == 1  # what is beyond the limit is none of this run's
    assert (await place.run(rows, on_bad_line="skip")).bad_lines == 2


async def test_no_more_is_taken_from_an_iterable_than_the_limit(place: Place) -> None:
    taken = []

    def source() -> Iterator[str]:
        for number in range(5):
            taken.append(number)
            yield f"r{number}"

    assert (await place.run(source(), limit=2, concurrency=1)).total == 2
    assert taken == [0, 1]


async def test_what_an_iterable_raises_comes_out_and_what_was_done_is_kept(place: Place) -> None:
    def source() -> Iterator[str]:
        yield "a"
        raise LookupError("the database is gone")

    with pytest.raises(LookupError, match="the database is gone"):
        await place.run(source())
    assert ids(place.output) == ["1"]


async def test_sorting_at_the_end(place: Place) -> None:
    def script(request: Received) -> Answer:
        number = int(prompt(request)[1:])
        return error(400) if number % 5 == 0 else said(f"{number}")

    place.server.answer(script)
    rows = simple(40)
    await place.run(rows, concurrency=16, limit=20)
    await place.run(concurrency=16, sort=True)
    assert [line["x_rusty"]["line"] for line in read(place.output)] == [n + 1 for n in range(40) if n % 5]
    assert ids(place.errors) == [f"r{n}" for n in range(0, 40, 5)]


async def test_a_sort_that_finds_no_room_takes_no_figures_along(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(path: Path, _: object) -> None:
        raise BatchError(f"{path} cannot be written: No space left on device.")

    last = held(said(), lambda: len(ids(place.output)) == 3)
    place.server.answer(lambda request: last if prompt(request) == "r0" else said())
    report = place.output.with_name("r.html")
    with monkeypatch.context() as full:
        full.setattr(finish, "replace_atomically", no_room)
        with pytest.raises(BatchError, match="No space left"):
            await place.run(simple(4), sort=True, report=report)
    told = loads_strict(place.output.with_name("out.summary.json").read_bytes())
    assert (told["rows"]["done"], told["stopped"]) == (4, None)
    assert "rows done of 4" in report.read_text()
    assert ids(place.output)[-1] == "r0"
    await place.run(sort=True)
    assert ids(place.output) == ["r0", "r1", "r2", "r3"]
    assert loads_strict(place.output.with_name("out.summary.json").read_bytes()) == told


@pytest.mark.parametrize("sorted_at", [2, 3])
async def test_sorting_by_the_input_as_it_is_now(place: Place, sorted_at: int) -> None:
    """`a` stood in line 1 when it was answered."""
    before = [{"custom_id": name, "prompt": name} for name in "ab"]
    now = [{"custom_id": name, "prompt": name} for name in "zyab"]
    await place.run(before)
    await place.run(now, allow_changed=True, sort=sorted_at == 2)
    if sorted_at == 3:
        await place.run(now, sort=True)
    assert ids(place.output) == ["z", "y", "a", "b"]


@pytest.mark.parametrize("failing", [False, True])
async def test_sorting_by_an_iterator_as_it_is_now(place: Place, failing: bool) -> None:
    place.server.answer(error(400) if failing else said())
    rows = simple(4)
    await place.run(iter(rows))
    await place.run(iter(rows[::-1]), sort=True)
    assert ids(place.errors if failing else place.output) == ["r3", "r2", "r1", "r0"]


async def test_sorting_the_first_rows_of_an_input_that_was_turned_round(place: Place) -> None:
    rows = [{"custom_id": name, "prompt": name} for name in "abcdef"]
    await place.run(rows, concurrency=1)
    await place.run(rows[::-1], allow_changed=True, sort=True, limit=3)
    assert ids(place.output) == ["f", "e", "d", "a", "b", "c"]  # where the others stand was not looked at
    await place.run(rows[::-1], sort=True)
    assert ids(place.output) == [*"fedcba"]


async def test_gzipped_tables_with_a_template(place: Place) -> None:
    table = place.input.with_name("words.csv.gz")
    table.write_bytes(gzip.compress(b"word,id\nsea,1\nsky,2\n"))
    result = await place.run(table, template="Translate {word}", system_prompt="French")
    assert result.done == 2
    assert asked(place.server) == ["Translate sea", "Translate sky"]
    lines = sorted(read(place.output), key=lambda line: line["custom_id"])
    assert [line["x_rusty"]["fields"] for line in lines] == [{"word": "sea", "id": "1"}, {"word": "sky", "id": "2"}]
    assert place.server.requests[0].json["messages"][0] == {"role": "system", "content": "French"}


async def test_what_a_row_says_wins_over_what_holds_for_all(place: Place) -> None:
    rows = [{"prompt": "a", "temperature": 0.1, "extra_body": {"top_k": 1}}, {"prompt": "b", "extra_body": {"x": 1}}]
    rows.append({"prompt": "c", "extra_body": {"stream": True}})  # which is the run's to say: nothing is left of these
    rows.append({"prompt": "d", "top_p": 0.2, "seed": 1})  # for which the command has only --option
    await place.run(rows, temperature=0.9, extra_body={"top_k": 5, "top_p": 0.8, "seed": None})
    sent = {prompt(request): request.json for request in place.server.requests}
    assert (sent["a"]["temperature"], sent["a"]["top_k"]) == (0.1, 1)
    assert (sent["b"]["temperature"], sent["b"]["top_k"], sent["b"]["x"]) == (0.9, 5, 1)
    assert (sent["c"]["top_k"], "stream" in sent["c"]) == (5, False)
    assert (sent["c"]["top_p"], sent["d"]["top_p"], sent["d"]["top_k"]) == (0.8, 0.2, 5)
    assert "seed" not in sent["d"]  # which None takes out for all


async def test_a_table_whose_name_tells_another_form_is_looked_at_anew(place: Place) -> None:
    place.input = place.input.with_name("in.tsv")
    place.input.write_text("prompt\na,b\n")
    assert (await place.run()).done == 1
    place.input = place.input.rename(place.input.with_suffix(".csv"))
    with pytest.raises(BatchError, match="parameter delimiter"):
        await place.run()
    with pytest.raises(BatchError, match="not a request;"):
        await place.run(allow_changed=True)
