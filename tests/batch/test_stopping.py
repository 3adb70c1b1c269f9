"""What stops a batch before its end, and what is kept then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from rusty_agent import AsyncProvider, Limits, RetryPolicy
from rusty_agent.testing import Answer, Hang, Pause, answer, error, events

from .runs import Place, by_prompt, ids, prompt, read, said, simple


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (error(401, "bad key"), "authentication"),
        (error(400, "API key not valid. Please pass a valid API key."), "authentication"),
        (error(400, "Your credit balance is too low to access the API."), "quota"),
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
    again = await place.run()
    assert (again.done, again.failed_earlier) == (200, 0)  # none of it was permanent


async def test_a_budget_stops_before_it_is_spent(place: Place) -> None:
    result = await place.run(simple(100), price=(0.0, 1e5), budget_usd=10.0, concurrency=4)  # 0.50 USD an answer
    assert result.stopped == "budget"
    assert result.cost is not None
    assert 8.0 <= result.cost <= 10.0
    assert result.cost == result.done * 0.5
    assert "will use up the budget of $10.00." in str(result.message)
    assert (await place.run(price=(0.0, 1e5), budget_usd=1e3)).skipped == result.done


@pytest.mark.parametrize("concurrency", [64, "auto"])
async def test_what_waits_for_its_turn_takes_nothing_of_a_budget(place: Place, concurrency: int | str) -> None:
    provider = place.provider(limits=Limits(in_flight=1))
    options: dict[str, Any] = {"price": (0.0, 1e5), "budget_usd": 8.0, "concurrency": concurrency}
    result = await place.run(simple(100), provider=provider, **options)  # 0.50 USD an answer
    assert result.stopped == "budget"
    assert result.done in (15, 16)  # one that is let in as the run is stopped counts as under way, and is not sent
    assert result.cost == result.done * 0.5


async def test_a_budget_that_nobody_can_watch_stops_the_run(place: Place) -> None:
    place.server.answer(said(usage=None))
    result = await place.run(simple(50), price=(1.0, 1.0), budget_usd=10.0, concurrency=1)
    assert result.stopped == "budget"
    assert "reports no token counts" in str(result.message)
    assert len(place.server.requests) <= 3


@pytest.mark.parametrize(
    ("options", "reason", "failed"), [({"max_failures": 2}, "failures", 3), ({"max_error_rate": 0.5}, "error_rate", 20)]
)
async def test_too_many_failures_stop_the_run(place: Place, options: dict[str, Any], reason: str, failed: int) -> None:
    place.server.answer(error(500))
    result = await place.run(simple(100), concurrency=1, **options)
    assert (result.stopped, result.failed, result.total) == (reason, failed, 100)


async def test_answers_of_another_model_do_not_speak_for_the_one_of_this_run(place: Place) -> None:
    await place.run(simple(150), limit=1)
    place.server.answer(error(404, "no such model"))
    result = await place.run()
    assert (result.stopped, result.failed) == (None, 149)
    for _ in range(2):  # nor when the call is repeated
        mistyped = AsyncProvider("mistyped", api_key="test-key-12345", base_url=place.server.url)
        result = await place.run(provider=mistyped, allow_changed=True, retry_permanent=True)
        assert (result.stopped, result.skipped) == ("failures", 1)
    place.server.answer(by_prompt({f"r{number}": error(404) for number in range(2, 150)}))
    result = await place.run(allow_changed=True)
    assert (result.stopped, result.done, result.skipped, result.failed) == (None, 1, 1, 148)
    result = await place.run(retry_permanent=True)  # by now it has answered itself
    assert (result.stopped, result.skipped, result.failed) == (None, 2, 148)


async def test_a_batch_that_nobody_answers_is_stopped_and_goes_on_when_mended(place: Place) -> None:
    """A wrong model would fail each of a million rows."""
    place.server.answer(error(404, "no such model"))
    result = await place.run(simple(1000), concurrency=1)  # with more, others may go on while one of the first is slow
    assert (result.stopped, result.done, result.failed) == ("failures", 0, 100)
    assert "none of the first 100 was answered" in str(result.message)
    assert "no such model" in str(result.message)
    place.server.answer(by_prompt({}))
    result = await place.run(simple(1000), retry_permanent=True)
    assert (result.stopped, result.done) == (None, 1000)


async def test_rows_may_fail_by_the_hundred_where_others_were_answered(place: Place) -> None:
    place.server.answer(by_prompt({f"r{number}": error(400) for number in range(1, 301)}))
    result = await place.run(simple(301), concurrency=1)
    assert (result.stopped, result.done, result.failed) == (None, 1, 300)


async def test_rows_may_be_refused_for_their_content_by_the_hundred(place: Place) -> None:
    """The model and the address are right: only the right ones refuse so."""
    filtered = error(400, "The response was filtered", code="content_filter")
    place.server.answer(by_prompt({f"r{number}": filtered for number in range(150)}))
    result = await place.run(simple(151))
    assert (result.stopped, result.done, result.failed) == (None, 1, 150)


async def test_many_rows_refused_at_once_do_not_stop_a_batch_whose_others_take_their_time(place: Place) -> None:
    slow = Answer((Pause(0.7), *said().steps))
    place.server.answer(by_prompt({f"r{number}": error(400) if number % 5 else slow for number in range(200)}))
    result = await place.run(simple(200), concurrency=64)
    assert (result.stopped, result.done, result.failed) == (None, 40, 160)


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


async def test_a_row_that_is_answered_leaves_the_errors_however_the_run_ends(place: Place) -> None:
    async def rows() -> AsyncIterator[dict[str, str]]:
        yield simple(1)[0]
        while not ids(place.output):
            await asyncio.sleep(0.001)
        raise LookupError("the database is gone")

    place.server.answer(error(500))
    assert (await place.run(iter(simple(1)))).failed == 1
    place.server.answer(said())
    with pytest.raises(LookupError, match="the database is gone"):
        await place.run(rows())
    assert ids(place.output) == ["r0"]
    assert not place.errors.exists()


async def test_a_row_that_is_answered_leaves_the_errors_of_a_cancelled_run(place: Place) -> None:
    place.server.answer(error(500))
    assert (await place.run(simple(2))).failed == 2
    place.server.answer(by_prompt({"r1": Answer((Hang(),))}))
    running = asyncio.create_task(place.run())
    while not ids(place.output):
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (ids(place.output), ids(place.errors)) == (["r0"], ["r1"])


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
    assert (
        result.message == "The run was stopped: its provider was closed. "
        "Run the batch again with an open one, without fresh=True, to continue."
    )
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


async def test_answers_that_tell_no_tokens_count_as_much_as_the_others(place: Place) -> None:
    place.server.answer(lambda request: said() if prompt(request) == "r0" else said(usage=None))
    result = await place.run(simple(100), price=(0.0, 1e5), budget_usd=10.0, concurrency=1)  # 0.50 USD an answer
    assert result.stopped == "budget"
    assert len(place.server.requests) <= 20


async def test_what_a_failure_has_cost_is_spent_of_the_budget(place: Place) -> None:
    place.server.answer(
        answer(b"".join(events("cut off", finish_reason=None, done=False)), content_type="text/event-stream")
    )
    options: dict[str, Any] = {"price": (0.0, 1e5), "budget_usd": 3.0, "concurrency": 1, "stream": True}
    result = await place.run(simple(100), **options)
    assert (result.stopped, result.done) == ("budget", 0)
    assert result.cost == pytest.approx(sum(line["x_rusty"]["cost_usd"] for line in read(place.errors)))
    assert result.cost is not None
    assert 0 < result.cost <= 3


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
