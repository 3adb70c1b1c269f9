"""What a batch promises, one test for each line: formats, resuming, refusing, stopping."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import Limits, RetryPolicy
from rusty_agent.batch.job import Job
from rusty_agent.batch.lock import Lock
from rusty_agent.batch.runner import run_batch
from rusty_agent.errors import BatchError
from rusty_agent.progress.tally import Progress
from rusty_agent.testing import Answer, Hang, Received, answer, error, stream
from rusty_agent.wire.codec import dumps, loads_strict

from .runs import Place, asked, by_prompt, ids, prompt, read, said, simple, write_rows


async def test_results_are_lines_of_openais_batch_api(place: Place) -> None:
    line: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "note": 7}
    line["body"] = {"model": "other", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    body = {"id": "x", "object": "chat.completion"}
    place.server.answer(answer(dumps({**body, **_completion("yes")}), headers={"x-request-id": "req_1"}))
    result = await place.run([line], price=(1.0, 2.0))
    [written] = read(place.output)
    assert list(written) == ["id", "custom_id", "response", "error", "x_rusty"]
    assert written["id"].startswith("batch_req_")
    assert (written["custom_id"], written["error"]) == ("a", None)
    assert written["response"] == {"status_code": 200, "request_id": "req_1", "body": {**body, **_completion("yes")}}
    facts = written["x_rusty"]
    assert facts.pop("latency_s") > 0
    assert facts == {"line": 1, "attempts": 1, "cost_usd": 13e-6, "fields": {"note": 7}}
    [request] = place.server.requests
    assert request.json == {"model": "other", "messages": line["body"]["messages"], "temperature": 0}
    assert (result.done, result.failed, result.total, result.cost, result.stopped) == (1, 0, 1, 13e-6, None)
    assert not place.errors.exists()


def _completion(text: str, reason: str = "stop") -> dict[str, Any]:
    return {
        "model": "other",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }


async def test_failures_have_the_same_shape_in_a_file_of_their_own(place: Place) -> None:
    place.server.answer(
        by_prompt({"r1": error(400, "no such thing", headers={"x-request-id": "q"}), "r2": answer(b"<html>")})
    )
    result = await place.run(simple(3))
    assert (result.done, result.failed) == (1, 2)
    assert ids(place.output) == ["r0"]
    http, other = sorted(read(place.errors), key=lambda line: line["custom_id"])
    assert list(http) == list(other) == ["id", "custom_id", "response", "error", "x_rusty"]
    assert http["error"] is None
    assert (http["response"]["status_code"], http["response"]["request_id"]) == (400, "q")
    assert http["response"]["body"]["error"]["message"] == "no such thing"
    assert http["x_rusty"]["permanent"] is True
    assert http["x_rusty"]["line"] == 2
    assert other["response"] is None
    assert other["error"]["code"] == "invalid_response"
    assert other["x_rusty"]["permanent"] is False
    assert "test-key-12345" not in place.errors.read_text() + place.manifest.read_text()


async def test_finish_reason_length_is_a_result_and_flagged(place: Place) -> None:
    place.server.answer(answer(dumps({"id": "x", **_completion("cut", "length")})))
    result = await place.run(simple(1))
    assert read(place.output)[0]["x_rusty"]["truncated"] is True
    assert (result.done, result.summary["truncated"], result.summary["finish_reasons"]) == (1, 1, {"length": 1})


async def test_the_same_call_repeats_nothing_and_retries_what_failed_unless_permanent(place: Place) -> None:
    place.server.answer(by_prompt({"r1": error(400), "r2": error(500), "r3": answer(b"{")}))
    first = await place.run(simple(5))
    assert (first.done, first.failed) == (2, 3)
    place.server.answer(by_prompt({"r3": error(503)}))
    before = len(place.server.requests)
    second = await place.run()
    assert sorted(map(prompt, place.server.requests[before:])) == ["r2", "r3"]
    assert (second.done, second.failed, second.skipped, second.failed_earlier, second.total) == (1, 1, 2, 1, 5)
    assert (second.summary["rows"]["skipped"], second.summary["rows"]["failed_earlier"]) == (3, 1)
    assert sorted(ids(place.output)) == ["r0", "r2", "r4"]
    assert sorted(ids(place.errors)) == ["r1", "r3"]
    assert [line["response"]["status_code"] for line in read(place.errors) if line["custom_id"] == "r3"] == [503]
    place.server.answer(said())
    third = await place.run(retry_permanent=True)
    assert (third.done, third.skipped, third.failed_earlier) == (2, 3, 0)
    assert sorted(ids(place.output)) == ["r0", "r1", "r2", "r3", "r4"]
    assert not place.errors.exists()


async def test_a_run_with_nothing_left_to_do_sends_nothing_and_changes_no_result(place: Place) -> None:
    await place.run(simple(3))
    before = place.output.read_bytes()
    result = await place.run()
    assert (result.done, result.skipped, result.total) == (0, 3, 3)
    assert (len(place.server.requests), place.output.read_bytes()) == (3, before)


@pytest.mark.parametrize("first", [{"limit": 1}, {"max_failures": 0}], ids=["rows that it lacks", "stopped"])
async def test_a_summary_that_does_not_cover_all_is_replaced_when_nothing_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch, first: dict[str, Any]
) -> None:
    place.server.answer(by_prompt({"r1": error(500)}))
    report, summary = place.output.with_name("r.html"), place.output.with_name("out.summary.json")
    await place.run(simple(2), report=report, **first)
    place.server.answer(said())
    with monkeypatch.context() as killed:
        killed.setattr(Job, "sum_up", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await place.run()
    before = report.read_bytes()
    await place.run(report=report)
    told = loads_strict(summary.read_bytes())
    assert (told["stopped"], told["rows"]["total"], told["rows"]["skipped"]) == (None, 2, 2)
    assert report.read_bytes() != before
    for limit in (None, 1):  # from here on nothing is new
        await place.run(limit=limit)
        assert loads_strict(summary.read_bytes()) == told


async def test_changed_input_and_parameters_are_refused_with_an_explanation(place: Place) -> None:
    await place.run(simple(2), temperature=0.5)
    rows = [*simple(2), {"prompt": "more"}]
    with pytest.raises(BatchError) as refused:
        await place.run(rows, temperature=0.7)
    said = str(refused.value)
    assert "the input changed: 2 rows" in said
    assert "3 rows" in said
    assert "parameter temperature: 0.5 -> 0.7" in said
    assert "--allow-changed" in said
    assert len(place.server.requests) == 2
    result = await place.run(rows, temperature=0.7, allow_changed=True)
    assert (result.done, result.skipped) == (1, 2)
    assert (await place.run(rows, temperature=0.7)).skipped == 3  # which is what holds from now on


BAD = [{"prompt": "a"}, {"prompt": 7}, {"x": 1}, {"custom_id": "1", "prompt": "b"}, {"prompt": "c", "max_tokens": -1}]


async def test_bad_lines_duplicates_and_wrong_types_are_told_with_their_numbers_before_anything_is_sent(
    place: Place,
) -> None:
    with pytest.raises(BatchError) as refused:
        await place.run(BAD)
    said = str(refused.value)
    assert said.startswith("4 of the input's lines are no requests; nothing was sent.")
    assert "line 2: prompt must be a string, not int" in said
    assert "line 3: the object has neither prompt nor messages" in said
    assert "line 4: line 1 has the same custom_id, '1'" in said
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
    assert written[4] == {"code": "bad_line", "message": "an earlier line has the same custom_id"}
    assert asked(place.server) == ["a", "a", "d", "d"]
    with pytest.raises(BatchError, match="4 of the input's lines"):  # what was skipped once is still no request
        await place.run()


async def test_a_bad_line_that_was_mended_is_written_down_no_more(place: Place) -> None:
    named = {"custom_id": "bad line 2", "prompt": "x"}
    place.server.answer(by_prompt({"x": error(400)}))
    first = await place.run([named, 7, 8], on_bad_line="skip")
    assert (first.failed, ids(place.errors)) == (1, ["bad line 2", "bad line 3", "bad line 2"])
    second = await place.run([named, {"prompt": "b"}, 8], on_bad_line="skip", allow_changed=True)
    assert (second.done, second.failed_earlier, second.bad_lines) == (1, 1, 1)
    assert sorted(ids(place.errors)) == ["bad line 2", "bad line 3"]
    await place.run([named, {"prompt": "b"}], allow_changed=True)
    [left] = read(place.errors)
    assert (left["custom_id"], left["x_rusty"]["kind"]) == ("bad line 2", "BadRequestError")


async def test_names_with_lone_surrogates_are_known_again(place: Place) -> None:
    rows = ({"custom_id": "a\ud83d", "prompt": "x"},)
    assert (await place.run(rows)).done == 1
    assert ids(place.output) == ["a\ufffd"]
    assert (await place.run(rows)).skipped == 1
    more = (*rows, {"custom_id": "a\ud83e", "prompt": "y"})
    with pytest.raises(BatchError, match=r"line 2: custom_id .* was used before"):
        await place.run(more, allow_changed=True)
    assert asked(place.server) == ["x"]


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
    with pytest.raises(BatchError, match="changed while it was read"):
        await place.run(rows, concurrency=1)
    with pytest.raises(BatchError, match=r"the input changed|no request"):
        await place.run()


async def test_an_output_that_is_removed_is_told(place: Place) -> None:
    def remove(request: Received) -> Answer:
        if len(place.server.requests) == 20:
            place.output.unlink()
        return said()

    place.server.answer(remove)
    with pytest.raises(BatchError, match="was removed"):
        await place.run(simple(40))


async def test_a_limit_and_then_the_rest(place: Place) -> None:
    first = await place.run(simple(6), limit=2)
    assert (first.done, first.total) == (2, 2)
    assert sorted(ids(place.output)) == ["r0", "r1"]
    second = await place.run(limit=4)
    assert (second.done, second.skipped, second.total) == (2, 2, 4)
    third = await place.run()
    assert (third.done, third.skipped, third.total) == (2, 4, 6)
    assert (await place.run(limit=3)).total == 3
    assert asked(place.server) == [f"r{number}" for number in range(6)]


async def test_progress_counts_what_is_within_the_limit(place: Place) -> None:
    seen: list[Progress] = []
    place.server.answer(by_prompt({"r0": error(400), "r2": error(400), "r3": error(400)}))
    await place.run(simple(5))
    await place.run(limit=2, progress=seen.append)
    assert [(now.total, now.done, now.skipped, now.failed_earlier, now.eta) for now in seen] == [(2, 0, 2, 1, None)]


async def test_progress_of_a_changed_input_counts_the_rows_that_are_in_it(place: Place) -> None:
    await place.run(simple(4))
    rows = [{"custom_id": f"new {n}", "prompt": "x"} for n in range(3)]
    seen: list[Progress] = []
    result = await place.run([*rows, *simple(1)], allow_changed=True, progress=seen.append)
    assert (result.done, result.skipped, result.total) == (3, 1, 4)
    assert (seen[-1].done, seen[-1].skipped, seen[-1].total) == (3, 1, 4)


async def test_a_run_that_is_stopped_tells_of_all_that_was_answered_earlier(place: Place) -> None:
    place.server.answer(by_prompt({"r0": error(500), "r1": error(400)}))
    await place.run(simple(6))
    place.server.answer(error(401))
    result = await place.run(concurrency=1)
    assert (result.stopped, result.total, result.failed, result.skipped, result.failed_earlier) == (
        "authentication", 6, 1, 4, 1
    )  # fmt: skip
    assert result.summary["rows"] == {
        "total": 6, "done": 0, "failed": 1, "skipped": 5, "failed_earlier": 1, "bad_lines": 0
    }  # fmt: skip


async def test_a_stop_before_the_last_bad_line_is_one(place: Place) -> None:
    budget: dict[str, Any] = {"price": (1e6, 1e6), "budget_usd": 1.0, "on_bad_line": "skip"}
    stopped = await place.run([*simple(1), {"no": "prompt"}], concurrency=1, **budget)
    assert (stopped.done, stopped.bad_lines, stopped.stopped) == (1, 0, "budget")
    ended = await place.run(**budget)
    assert (ended.skipped, ended.bad_lines, ended.stopped) == (1, 1, None)


async def test_bad_rows_of_a_list_are_none_of_all(place: Place) -> None:
    seen: list[Progress] = []
    rows = ("a", 7, "c")
    assert (await place.run(rows, on_bad_line="skip", progress=seen.append)).total == 2
    assert seen[-1].total == 2


async def test_bad_lines_beyond_the_limit_are_found_when_the_limit_goes(place: Place) -> None:
    await place.run([*simple(2), "", {"prompt": 7}], limit=2)
    with pytest.raises(BatchError, match="line 4: prompt must be a string"):
        await place.run()
    assert len(place.server.requests) == 2


async def test_another_template_is_checked_anew(place: Place) -> None:
    rows = [{"a": "x", "b": "y"}, {"a": "z"}]
    await place.run(rows, template="{a}")
    with pytest.raises(BatchError, match=r"line 2: the template needs the column 'b'"):
        await place.run(template="{b}", allow_changed=True)
    assert asked(place.server) == ["x", "z"]


@pytest.mark.parametrize("kind", [list, deque, iter])
async def test_rows_may_be_appended_after_the_template_has_changed(
    place: Place, kind: Callable[[list[dict[str, str]]], Any]
) -> None:
    async def run(template: str, *columns: str) -> tuple[int, int]:
        rows = kind([{"x": column} for column in columns])
        async with place.provider() as llm:
            result = await run_batch(rows, place.output, llm, template=template, allow_changed=True)
        return result.skipped, result.done

    assert await run("old {x}", "a", "b") == (0, 2)
    assert await run("new {x}", "a", "b") == (2, 0)
    assert await run("new {x}", "a", "b", "c") == (2, 1)
    if kind is not iter:
        with pytest.raises(BatchError, match="is not the one that was answered"):
            await run("new {x}", "b", "c", "d", "e")


async def test_fresh_throws_away_what_is_there(place: Place) -> None:
    place.server.answer(by_prompt({"r0": error(400)}))
    await place.run(simple(2))
    place.server.answer(said("new"))
    result = await place.run([{"custom_id": "r0", "prompt": "other"}], fresh=True)
    assert (result.done, result.skipped, result.failed_earlier) == (1, 0, 0)
    assert ids(place.output) == ["r0"]
    assert not place.errors.exists()


async def test_fresh_throws_nothing_away_before_the_input_is_found_good(place: Place) -> None:
    await place.run(simple(2))
    before = place.output.read_bytes()
    for rows, options in (([{"x": 1}], {}), (simple(1), {"temperature": -1.0}), (simple(1), {"concurrency": 0})):
        with pytest.raises((BatchError, ValueError)):
            await place.run(rows, fresh=True, **options)
    write_rows(place.input, simple(2))
    with pytest.raises(BatchError, match="is its input"):
        await place.run(place.output, fresh=True)
    assert place.output.read_bytes() == before
    assert (await place.run()).skipped == 2


async def test_what_no_batch_has_written_is_left_alone(place: Place) -> None:
    place.output.write_text("dear diary\n")
    for fresh in (False, True):
        with pytest.raises(BatchError, match="holds no line of a batch, so it is left alone"):
            await place.run(simple(1), fresh=fresh)
    assert place.output.read_text() == "dear diary\n"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["out.manifest.json", "out.summary.json", "out.lock"])
@pytest.mark.parametrize("data", ["dear diary\n", "{}", "12 monkeys\n"])
async def test_what_would_be_replaced_is_a_batchs_own(place: Place, name: str, data: str, fresh: bool) -> None:
    mine = place.output.with_name(name)
    mine.write_text(data)
    with pytest.raises(BatchError, match=name.replace(".", r"\.")):
        await place.run(simple(1), fresh=fresh)
    with pytest.raises(BatchError):  # the input is refused, too
        await place.run([7], fresh=fresh)
    assert mine.read_text() == data
    assert not place.server.requests


async def test_two_batches_share_no_file(place: Place) -> None:
    other = Place(place.output.parent, place.server)
    other.output = place.errors
    await other.run(simple(2))
    before = place.errors.read_bytes()
    with pytest.raises(BatchError, match=r"out\.errors\.jsonl belongs to another batch, whose manifest is"):
        await place.run()
    place.errors.with_name("out.errors.manifest.json").unlink()
    with pytest.raises(BatchError, match=r"out\.errors\.jsonl holds answers, so it is left alone"):
        await place.run()
    assert place.errors.read_bytes() == before
    place.errors.unlink()
    await place.run()
    with pytest.raises(BatchError, match="belongs to another batch"):
        await other.run()


async def test_files_called_tmp_are_left_alone(place: Place) -> None:
    names = ("out.jsonl", "out.errors.jsonl", "out.manifest.json", "out.summary.json", "r.html")
    mine = [place.output.with_name(f"{name}.tmp") for name in names]
    for path in mine:
        path.write_text("mine")
    await place.run(simple(3), sort=True, report=place.output.with_name("r.html"))
    assert [path.read_text() for path in mine] == ["mine"] * len(mine)


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl", "out.manifest.json", "out.summary.json", "out.lock"])
async def test_the_input_is_not_overwritten(place: Place, name: str) -> None:
    source = write_rows(place.output.with_name(name), simple(1))
    before = source.read_bytes()
    with pytest.raises(BatchError):
        await place.run(source)
    assert source.read_bytes() == before


async def test_a_report_that_could_not_be_written_is_refused_before_anything_is_paid_for(place: Place) -> None:
    write_rows(place.input, simple(1))
    before = place.input.read_bytes()
    for report in (place.input, place.output, place.output.parent, place.output.parent / "no" / "r.html"):
        with pytest.raises(BatchError, match="report"):
            await place.run(report=report)
    assert list(place.output.parent.iterdir()) == [place.input]
    assert (place.input.read_bytes(), len(place.server.requests)) == (before, 0)


async def test_a_report_replaces_reports_alone(place: Place) -> None:
    answers, page = place.output.with_name("answers.jsonl"), place.output.with_name("page.html")
    answers.write_text("paid for")
    with pytest.raises(BatchError, match=r"answers\.jsonl, where the report is .* no report, so it is left alone"):
        await place.run(simple(1), report=answers)
    assert (answers.read_text(), place.server.requests) == ("paid for", [])
    page.touch()
    for count in (1, 2):
        await place.run(simple(count), report=page, allow_changed=True)
        assert f"rows done of {count}" in page.read_text()


async def test_a_second_run_is_refused_while_the_first_has_the_lock(place: Place) -> None:
    with Lock(place.output.with_name("out.lock")), pytest.raises(BatchError, match="Another batch writes here"):
        await place.run(simple(1))
    assert not place.server.requests


@pytest.mark.parametrize("left", ["lock", "manifest", "manifest.tmp", "empty output", "empty both"])
async def test_a_first_run_that_was_killed_between_two_files(place: Place, left: str) -> None:
    await place.run(simple(1))
    for path in place.output.parent.iterdir():
        if path != place.input and path.suffix != ".lock" and (left == "lock" or path != place.manifest):
            path.unlink()
    if left == "manifest.tmp":
        place.manifest.rename(place.manifest.with_name("out.manifest.json.rusty-agent.tmp"))
    if left.startswith("empty"):
        place.output.touch()
    if left == "empty both":
        place.errors.touch()
    result = await place.run()
    assert (result.done, ids(place.output)) == (1, ["r0"])
    assert not place.errors.exists()


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
    with pytest.raises(BatchError, match=r"Row 2 of the source is no request: .*What was done until here is kept"):
        await place.run(iter(rows))
    assert ids(place.output) == ["1"]
    result = await place.run(iter(rows), on_bad_line="skip")
    assert (result.done, result.skipped, result.bad_lines, result.total) == (1, 1, 2, 2)
    assert sorted(ids(place.errors)) == ["bad line 2", "bad line 4"]
    assert "custom_id '1' was used before" in place.errors.read_text()


async def test_bad_rows_of_a_list_are_told_before_anything_is_sent(place: Place) -> None:
    rows = ("one", 7, "three", {"prompt": "four", "custom_id": "1"})
    with pytest.raises(BatchError) as caught:
        await place.run(rows)
    assert place.server.requests == []
    assert "2 of the input's lines are no requests" in str(caught.value)
    assert "line 2: " in str(caught.value)
    assert "line 4: custom_id '1' was used before" in str(caught.value)
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


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (error(401, "bad key"), "authentication"),
        (error(429, "no money", code="insufficient_quota"), "quota"),
        (error(402, "pay first"), "quota"),
    ],
)
async def test_a_refused_key_and_a_used_up_quota_stop_the_run_at_once(
    place: Place, script: Answer, reason: str
) -> None:
    place.server.answer(script)
    provider = place.provider(retry=RetryPolicy(max_retries=3), limits=Limits(in_flight=4))
    result = await place.run(simple(200), provider=provider, concurrency=8)
    assert result.stopped == reason
    assert str(result.message).startswith("The run was stopped: ")
    assert 1 <= len(place.server.requests) <= 4  # what waited was not sent
    assert len(ids(place.errors)) == result.failed == len(place.server.requests)
    place.server.answer(said())
    assert (await place.run()).done == 200  # none of it was permanent


async def test_a_budget_stops_before_it_is_spent(place: Place) -> None:
    result = await place.run(simple(100), price=(0.0, 1e5), budget_usd=10.0, concurrency=4)  # 0.50 USD an answer
    assert result.stopped == "budget"
    assert result.cost is not None
    assert 8.0 <= result.cost <= 10.0
    assert result.cost == result.done * 0.5
    assert "will use up the budget of $10" in str(result.message)
    assert (await place.run(price=(0.0, 1e5), budget_usd=1e3)).skipped == result.done


async def test_a_budget_that_nobody_can_watch_stops_the_run(place: Place) -> None:
    place.server.answer(said(usage=None))
    result = await place.run(simple(50), price=(1.0, 1.0), budget_usd=10.0, concurrency=1)
    assert result.stopped == "budget"
    assert "does not tell tokens" in str(result.message)
    assert len(place.server.requests) <= 3


@pytest.mark.parametrize(
    ("options", "reason"), [({"max_failures": 2}, "failures"), ({"max_error_rate": 0.5}, "error_rate")]
)
async def test_too_many_failures_stop_the_run(place: Place, options: dict[str, Any], reason: str) -> None:
    place.server.answer(error(500))
    result = await place.run(simple(100), concurrency=2, **options)
    assert result.stopped == reason
    assert 3 <= result.failed <= 25
    assert result.total == 100


async def test_a_batch_that_nobody_answers_is_stopped_and_goes_on_when_mended(place: Place) -> None:
    """A wrong model would fail each of a million rows."""
    place.server.answer(error(404, "no such model"))
    result = await place.run(simple(1000), concurrency=4)
    assert (result.stopped, result.done) == ("failures", 0)
    assert 100 <= result.failed <= 104
    assert "none of the first 100 was answered" in str(result.message)
    assert "no such model" in str(result.message)
    place.server.answer(by_prompt({}))
    result = await place.run(simple(1000), retry_permanent=True)
    assert (result.stopped, result.done) == (None, 1000)


async def test_rows_may_fail_by_the_hundred_where_others_were_answered(place: Place) -> None:
    place.server.answer(by_prompt({f"r{number}": error(400) for number in range(1, 301)}))
    result = await place.run(simple(301), concurrency=1)
    assert (result.stopped, result.done, result.failed) == (None, 1, 300)


async def test_a_cancelled_run_keeps_what_is_done_and_goes_on_later(place: Place) -> None:
    place.server.answer(by_prompt({f"r{number}": Answer((Hang(),)) for number in range(4, 8)}))
    running = asyncio.create_task(place.run(simple(10)))
    await asyncio.to_thread(place.server.wait_for, 8)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    done = sorted(ids(place.output))
    assert done == ["r0", "r1", "r2", "r3"]
    place.server.answer(said())
    result = await place.run()
    assert (result.done, result.skipped) == (6, 4)


@pytest.mark.parametrize(
    "answered", [said(), Answer((Hang(),)), answer([b"{", Hang()], framing="chunked")], ids=["all", "nothing", "a part"]
)
async def test_a_provider_that_is_closed_meanwhile_stops_the_run_and_fails_no_row(
    place: Place, answered: Answer
) -> None:
    place.server.answer(answered)
    provider = place.provider()

    async def rows() -> AsyncIterator[dict[str, str]]:
        yield {"custom_id": "a", "prompt": "a"}
        while not place.server.requests:
            await asyncio.sleep(0.001)
        await provider.aclose()
        yield {"custom_id": "b", "prompt": "b"}
        yield {"custom_id": "c", "prompt": "c"}

    result = await place.run(rows(), provider=provider)
    assert (result.failed, result.stopped) == (0, "interrupt")
    assert result.message == "The run was stopped: its provider was closed. The same call, with an open one, goes on."
    assert result.done == len(read(place.output)) < 2
    assert not place.errors.exists()


async def test_what_was_answered_when_the_run_is_cancelled_is_written(place: Place) -> None:
    """Whoever answers last cancels the run in the same moment."""
    running: asyncio.Task[Any]
    counted = 0

    def cancel(*_: object) -> None:
        nonlocal counted
        counted += 1
        if counted == 3:
            running.cancel()

    provider = place.provider()
    answered = provider._answer

    async def answer_and_cancel(*arguments: Any, **options: Any) -> Any:
        result = await answered(*arguments, **options)
        cancel()
        return result

    provider._answer = answer_and_cancel  # type: ignore[method-assign]
    running = asyncio.create_task(place.run(simple(3), provider=provider, concurrency=1))
    with suppress(asyncio.CancelledError):
        await running
    assert sorted(ids(place.output)) == ["r0", "r1", "r2"]


async def test_an_error_of_the_progress_function_ends_the_run_which_can_go_on(place: Place) -> None:
    def show(_: object) -> None:
        raise LookupError("no such widget")

    with pytest.raises(LookupError, match="no such widget"):
        await place.run(simple(5), progress=show)
    assert len(ids(place.output)) == 5
    assert (await place.run()).skipped == 5


async def test_results_are_durable_before_they_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from rusty_agent.batch import journal

    synced: list[int] = []
    datasync = journal._datasync

    def note(number: int) -> None:
        datasync(number)
        synced.append(len(ids(place.output)))

    monkeypatch.setattr(journal, "_datasync", note)
    counted: list[tuple[int, int]] = []
    provider = place.provider()
    from rusty_agent.progress.tally import Tally

    succeeded = Tally.succeeded

    def count(tally: Tally, **facts: Any) -> None:
        succeeded(tally, **facts)
        counted.append((tally.snapshot().done, max(synced, default=0)))

    monkeypatch.setattr(Tally, "succeeded", count)
    result = await place.run(simple(12), provider=provider, sync="row", concurrency=4)
    assert result.done == 12
    assert len(counted) == 12
    assert all(done <= durable for done, durable in counted)


@pytest.mark.parametrize("sync", ["row", "group", "off"])
async def test_every_sync_writes_all(place: Place, sync: str) -> None:
    place.server.answer(by_prompt({"r1": error(400)}))
    result = await place.run(simple(5), sync=sync)
    assert (result.done, result.failed) == (4, 1)
    assert (len(ids(place.output)), ids(place.errors)) == (4, ["r1"])


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


async def test_sorting_by_an_iterator_as_it_is_now(place: Place) -> None:
    rows = simple(4)
    await place.run(iter(rows))
    await place.run(iter(rows[::-1]), sort=True)
    assert ids(place.output) == ["r3", "r2", "r1", "r0"]


async def test_sorting_the_first_rows_of_an_input_that_was_turned_round(place: Place) -> None:
    rows = [{"custom_id": name, "prompt": name} for name in "abcdef"]
    await place.run(rows, concurrency=1)
    await place.run(rows[::-1], allow_changed=True, sort=True, limit=3)
    assert ids(place.output) == ["f", "e", "d", "a", "b", "c"]  # where the others stand was not looked at
    await place.run(rows[::-1], sort=True)
    assert ids(place.output) == [*"fedcba"]


async def test_streamed_underneath_the_lines_look_the_same(place: Place) -> None:
    place.server.answer(stream("Hello", " world"))
    result = await place.run(simple(2), stream=True)
    for line in read(place.output):
        body = line["response"]["body"]
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hello world", "refusal": None}
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["usage"]["completion_tokens"] == 2
        assert line["x_rusty"]["ttft_s"] > 0
    assert result.summary["ttft_s"]["count"] == 2
    assert all(request.json["stream_options"] == {"include_usage": True} for request in place.server.requests)


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
    await place.run(rows, temperature=0.9, extra_body={"top_k": 5})
    sent = {prompt(request): request.json for request in place.server.requests}
    assert (sent["a"]["temperature"], sent["a"]["top_k"]) == (0.1, 1)
    assert (sent["b"]["temperature"], sent["b"]["top_k"], sent["b"]["x"]) == (0.9, 5, 1)


async def test_the_report_and_the_summary_lie_beside_the_output(place: Place, tmp_path: Path) -> None:
    result = await place.run(simple(3), report=tmp_path / "report.html", provider=place.provider(limits=Limits(None)))
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!")
    outside = page.replace("http://127.0.0.1", "").replace("http://www.w3.org/2000/svg", "")
    assert not [word for word in ("http://", "https://", "src=", "@import") if word in outside]
    assert loads_strict((tmp_path / "out.summary.json").read_bytes()) == loads_strict(dumps(result.summary))
    assert (result.summary["input"], result.summary["output"]) == (str(place.input), str(place.output))
    assert result.summary["rows"] == {
        "total": 3,
        "done": 3,
        "failed": 0,
        "skipped": 0,
        "failed_earlier": 0,
        "bad_lines": 0,
    }


async def test_all_files_lie_in_one_folder_though_the_working_folder_changes(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    def rows() -> Iterator[str]:
        yield "a"
        os.chdir(elsewhere)
        yield "b"

    async with place.provider() as llm:
        await run_batch(rows(), "out.jsonl", llm, report="report.html")
    names = {path.name for path in tmp_path.iterdir()} - {"elsewhere"}
    assert names == {"out.jsonl", "out.lock", "out.manifest.json", "out.summary.json", "report.html"}
    assert list(elsewhere.iterdir()) == []


async def test_an_answer_that_cannot_be_written_is_a_failure_and_no_crash(place: Place) -> None:
    deep = b'{"error":{"message":"deep","x":' + b"[" * 990 + b"]" * 990 + b"}}"
    place.server.answer(answer(deep, status=400))
    result = await place.run(simple(1))
    assert result.failed == 1
    assert ids(place.errors) == ["r0"]


@pytest.mark.parametrize("options", [{"limit": 2}, {"on_bad_line": "skip"}], ids=["limit", "skip"])
async def test_answers_are_not_given_to_other_rows(place: Place, options: dict[str, Any]) -> None:
    rows: list[Any] = ["a", "b", 5, "d"]
    await place.run(rows if "on_bad_line" in options else ["a", "b", "c", "d"], **options)
    with pytest.raises(BatchError, match="Line 1 of the input is not the one that was answered"):
        await place.run(["new", "a", "b", "d"], allow_changed=True)
    place.input.write_bytes(b'\n"a"\n"b"\n"c"\n"d"\n')  # a blank line is no row, but counts as a line
    with pytest.raises(BatchError, match="Line 2 of the input"):
        await place.run(allow_changed=True)
    mended = await place.run(["a", "b", "c", "d", "e"], allow_changed=True)
    assert mended.failed == 0
    assert sorted(ids(place.output)) == ["1", "2", "3", "4", "5"]


async def test_a_row_that_is_none_any_more_where_another_was_answered(place: Place) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    await place.run(iter(["a", "b"]))
    rows = ("a", {"prompt": "b", "response_format": deep})
    with pytest.raises(BatchError, match="Line 2 of the input is not the one that was answered"):
        await place.run(rows, on_bad_line="skip", allow_changed=True)


async def test_names_given_later_do_not_take_the_answers_of_other_lines(place: Place) -> None:
    await place.run([{"prompt": "water"}, {"prompt": "bread"}])
    crossed = [{"custom_id": "2", "prompt": "water"}, {"custom_id": "1", "prompt": "bread"}]
    with pytest.raises(BatchError, match="Line 1 of the input is not the one that was answered"):
        await place.run([*crossed, {"custom_id": "3", "prompt": "new"}], allow_changed=True)
    named = [
        {"custom_id": "1", "prompt": "water"},
        {"custom_id": "2", "prompt": "bread"},
        {"custom_id": "x", "prompt": "new"},
    ]
    assert (await place.run(named, allow_changed=True)).skipped == 2


async def test_errors_that_were_put_into_the_output_are_no_answers(place: Place) -> None:
    place.server.answer(by_prompt({"r1": error(400)}))
    await place.run(simple(2))
    place.output.write_bytes(place.output.read_bytes() + place.errors.read_bytes())
    assert (await place.run()).failed_earlier == 1
    assert ids(place.output) == ["r0"]
    place.server.answer(said())
    assert (await place.run(retry_permanent=True)).done == 1
    assert sorted(ids(place.output)) == ["r0", "r1"]


async def test_what_a_streamed_answer_would_lack_is_asked_for_whole(place: Place) -> None:
    def both(request: Received) -> Answer:
        return stream("yes") if request.json.get("stream") else said()

    place.server.answer(both)
    rows = [{"prompt": "a", "extra_body": {"n": 2}}, {"prompt": "b", "extra_body": {"logprobs": True}}, {"prompt": "c"}]
    result = await place.run(rows, stream=True)
    assert {prompt(request): bool(request.json.get("stream")) for request in place.server.requests} == {
        "a": False,
        "b": False,
        "c": True,
    }
    assert ["ttft_s" in line["x_rusty"] for line in sorted(read(place.output), key=lambda line: line["custom_id"])] == [
        False,
        False,
        True,
    ]
    assert result.summary["ttft_s"] is not None


async def test_answers_that_tell_no_tokens_count_as_much_as_the_others(place: Place) -> None:
    place.server.answer(lambda request: said() if prompt(request) == "r0" else said(usage=None))
    result = await place.run(simple(100), price=(0.0, 1e5), budget_usd=10.0, concurrency=1)  # 0.50 USD an answer
    assert result.stopped == "budget"
    assert len(place.server.requests) <= 20


@pytest.mark.parametrize("budget", [2.0, 2.4])
async def test_a_budget_that_is_used_up_by_the_last_row_stops_nothing(place: Place, budget: float) -> None:
    result = await place.run(simple(4), price=(0.0, 1e5), budget_usd=budget, concurrency=1, sort=True)
    assert (result.done, result.stopped, result.message) == (4, None, None)
    assert result.summary["stopped"] is None


async def test_an_overload_that_asks_for_a_long_wait_stops_the_run(place: Place) -> None:
    place.server.answer(
        lambda request: said() if len(place.server.requests) < 9 else error(503, headers={"Retry-After": "3600"})
    )
    result = await place.run(simple(300))
    assert result.stopped == "quota"
    assert "asks to wait for 3,600 s" in str(result.message)
    assert len(place.server.requests) < 30


async def test_a_table_whose_name_tells_another_form_is_looked_at_anew(place: Place) -> None:
    place.input = place.input.with_name("in.tsv")
    place.input.write_text("prompt\na,b\n")
    assert (await place.run()).done == 1
    place.input = place.input.rename(place.input.with_suffix(".csv"))
    with pytest.raises(BatchError, match="parameter delimiter"):
        await place.run()
    with pytest.raises(BatchError, match="no request;"):
        await place.run(allow_changed=True)


async def test_a_report_on_a_file_whose_name_is_no_text(place: Place) -> None:
    place.input = place.input.with_name("i\udcff.jsonl")
    report = place.input.with_name("report.html")
    assert (await place.run(simple(1), report=report)).done == 1
    assert report.read_bytes().decode().startswith("<!DOCTYPE html>")


async def test_a_damaged_line_is_no_reason_to_refuse_our_own_file(place: Place) -> None:
    place.server.answer(error(400))
    await place.run(simple(1))
    line = place.errors.read_bytes()
    place.errors.write_bytes(line[:60] + b"\0" * 10 + line[70:])
    place.server.answer(said())
    assert (await place.run()).done == 1
