"""A batch that goes on: what is not asked again, what is tried again, and when nobody can tell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from rusty_agent.batch.job import Job
from rusty_agent.batch.runner import run_batch
from rusty_agent.errors import BatchError
from rusty_agent.progress.tally import Progress
from rusty_agent.testing import answer, error
from rusty_agent.wire.codec import loads_strict

from .runs import Place, asked, by_prompt, ids, prompt, read, said, simple, write_rows


async def test_the_same_call_repeats_nothing_and_retries_what_failed_unless_permanent(place: Place) -> None:
    place.server.answer(by_prompt({"r1": error(400), "r2": error(500), "r3": answer(b"{")}))
    first = await place.run(simple(5))
    assert (first.done, first.failed) == (2, 3)
    place.server.answer(by_prompt({"r3": error(503)}))
    before = len(place.server.requests)
    second = await place.run()
    assert sorted(map(prompt, place.server.requests[before:])) == ["r2", "r3"]
    assert (second.done, second.failed, second.skipped, second.failed_earlier, second.total) == (1, 1, 2, 1, 5)
    assert (second.summary["rows"]["skipped"], second.summary["rows"]["failed_earlier"]) == (2, 1)
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


@pytest.mark.parametrize(
    "first", [{"limit": 1}, {"max_failures": 0}, {}], ids=["rows that it lacks", "stopped", "failures answered since"]
)
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


@pytest.mark.parametrize("wrong", [{"custom_id": "bad", "prompt": "bad"}, {"x": 1}], ids=["failed row", "bad line"])
async def test_a_summary_tells_of_what_is_wrong_with_the_input_as_it_is_now(place: Place, wrong: Any) -> None:
    place.server.answer(by_prompt({"bad": error(400)}))
    summary = place.output.with_name("out.summary.json")
    await place.run([*simple(2), wrong], on_bad_line="skip")
    await place.run(simple(2), allow_changed=True)
    assert not place.errors.exists()
    told = loads_strict(summary.read_bytes())["rows"]
    assert told == {"total": 2, "done": 0, "failed": 0, "skipped": 2, "failed_earlier": 0, "bad_lines": 0}
    await place.run([*simple(2), {"x": 1}], on_bad_line="skip", allow_changed=True)
    assert loads_strict(summary.read_bytes())["rows"] == told | {"bad_lines": 1}


async def test_changed_input_and_parameters_are_refused_with_an_explanation(place: Place) -> None:
    await place.run(simple(2), temperature=0.5)
    rows = [*simple(2), {"prompt": "more"}]
    with pytest.raises(BatchError) as refused:
        await place.run(rows, temperature=0.7)
    said = str(refused.value)
    assert "the input changed: 2 rows" in said
    assert "3 rows" in said
    assert "parameter temperature: 0.5 -> 0.7" in said
    assert "allow_changed=True" in said
    assert len(place.server.requests) == 2
    result = await place.run(rows, temperature=0.7, allow_changed=True)
    assert (result.done, result.skipped) == (1, 2)
    assert (await place.run(rows, temperature=0.7)).skipped == 3  # which is what holds from now on


async def test_no_further_fields_are_the_same_in_either_form(place: Place) -> None:
    """The command gives none as `{}`, a script not at all."""
    await place.run(simple(2), limit=1, extra_body={})
    assert (await place.run()).skipped == 1
    assert (await place.run(extra_body={})).skipped == 2


async def test_a_mistyped_model_is_mended_by_naming_another(place: Place) -> None:
    place.server.answer(error(404))
    first = await place.run(simple(3), extra_body={"model": "gtp"})
    assert (first.failed, first.done) == (3, 0)
    assert list(first.summary["failure_messages"]) == ["NotFoundError 404"]
    place.server.answer(said())
    second = await place.run(extra_body={"model": "gpt"})
    assert (second.done, second.failed_earlier, second.total) == (3, 0, 3)
    assert not place.errors.exists()
    with pytest.raises(BatchError, match=r"parameter extra_body\.model: 'gpt' -> 'gtp'"):
        await place.run(extra_body={"model": "gtp"})


@pytest.mark.parametrize("answered", [True, False])
async def test_what_failed_for_good_is_tried_again_when_it_is_asked_otherwise(place: Place, answered: bool) -> None:
    place.server.answer(by_prompt({"r1": error(404), "r2": error(400)} | ({} if answered else {"r0": error(404)})))
    assert (await place.run(simple(3), temperature=0.5)).done == answered
    place.server.answer(by_prompt({"r2": error(400)}))
    second = await place.run(temperature=0.7, allow_changed=True)
    assert (second.done, second.failed, second.failed_earlier) == (2 - answered, 1, 0)
    place.server.answer(said())
    rows = [*simple(2), {"custom_id": "r2", "prompt": "shorter"}]
    write_rows(place.input, rows)
    assert (await place.run(temperature=0.7, allow_changed=True)).done == 1
    assert sorted(ids(place.output)) == ["r0", "r1", "r2"]


async def test_names_with_lone_surrogates_are_known_again(place: Place) -> None:
    rows = ({"custom_id": "a\ud83d", "prompt": "x"},)
    assert (await place.run(rows)).done == 1
    assert ids(place.output) == ["a\ufffd"]
    assert (await place.run(rows)).skipped == 1
    more = (*rows, {"custom_id": "a\ud83e", "prompt": "y"})
    with pytest.raises(BatchError, match="line 2: an earlier row has the same custom_id"):
        await place.run(more, allow_changed=True)
    assert asked(place.server) == ["x"]


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
    assert [(now.total, now.done, now.skipped, now.failed_earlier, now.eta) for now in seen] == [(2, 0, 1, 1, None)]


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
        "total": 6, "done": 0, "failed": 1, "skipped": 4, "failed_earlier": 1, "bad_lines": 0
    }  # fmt: skip


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
    assert await run("new {x}", "a", "b", "c", "d") == (3, 1)
    with pytest.raises(BatchError, match="Line 1 of the input is not the one that was answered"):
        await run("newest {x}", "b", "c", "d", "e")


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
    with pytest.raises(BatchError, match="is the input"):
        await place.run(place.output, fresh=True)
    assert place.output.read_bytes() == before
    assert (await place.run()).skipped == 2


@pytest.mark.parametrize("left", ["lock", "manifest", "manifest.tmp", "empty output", "empty both"])
async def test_a_first_run_that_was_killed_between_two_files(place: Place, left: str) -> None:
    await place.run(simple(1))
    place.output.with_name("out.lock").write_text("12345\n")
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


async def test_a_row_that_failed_for_good_is_known_again_though_it_has_no_name(place: Place) -> None:
    place.server.answer(by_prompt({"a": error(400)}))
    first = await place.run(iter(["a", "b"]))
    assert (first.done, first.failed) == (1, 1)
    assert (await place.run(iter(["a", "b"]))).failed_earlier == 1
    with pytest.raises(BatchError, match="Line 1 of the input is not the one that was answered"):
        await place.run(iter(["z", "b"]))


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


async def test_a_damaged_line_is_no_reason_to_refuse_our_own_file(place: Place) -> None:
    place.server.answer(error(400))
    await place.run(simple(1))
    line = place.errors.read_bytes()
    place.errors.write_bytes(line[:60] + b"\0" * 10 + line[70:])
    place.server.answer(said())
    assert (await place.run()).done == 1


async def test_a_bad_line_that_came_into_a_changed_input(place: Place) -> None:
    await place.run(simple(2))
    place.input.write_bytes(b"no JSON\n" + place.input.read_bytes())
    result = await place.run(allow_changed=True, on_bad_line="skip")
    assert (result.done, result.skipped, result.bad_lines, result.total) == (0, 2, 1, 2)


async def test_the_total_of_rows_whose_number_is_known_is_told_of_a_stopped_run(place: Place) -> None:
    place.server.answer(error(401))
    result = await place.run(dict(enumerate(simple(9))).values(), concurrency=1)
    assert (result.stopped, result.failed, result.total) == ("authentication", 1, 9)
