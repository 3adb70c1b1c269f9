"""`map` and `gather` through both faces, over real connections: prompts in, items out."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rusty_agent import BadRequestError, Progress, Provider, RetryPolicy, RunStoppedError
from rusty_agent.testing import Pause, answer, completion, error
from rusty_agent.wire.codec import dumps

from ..frames import DataFrame, GeoDataFrame
from .faces import KEY, Face, Serve
from .prompts import echo, gather, items


def test_gather_keeps_the_order(face: Face, serve: Serve) -> None:
    prompts = [f"p{number}" for number in range(150)]
    assert gather(face, face.provider(serve(echo)), prompts, concurrency=20) == prompts


def test_gather_takes_every_kind_of_prompt(face: Face, serve: Serve) -> None:
    server = serve(echo)
    conversation = [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]
    one_by_one = iter(["a", conversation, {"prompt": "c", "temperature": 0, "max_tokens": 7}])
    results = gather(face, face.provider(server), one_by_one, include_usage=True, temperature=0.5)
    assert [result.text for result in results] == ["a", "b", "c"]
    assert [result.total_tokens for result in results] == [8, 8, 8]
    sent = sorted((request.json for request in server.requests), key=lambda body: str(body["messages"][-1]["content"]))
    assert [body["temperature"] for body in sent] == [0.5, 0.5, 0]
    assert sent[1]["messages"] == conversation
    assert [body.get("max_tokens") for body in sent] == [None, None, 7]


def test_fields_of_extra_body_are_laid_over_each_other(face: Face, serve: Serve) -> None:
    server = serve(echo)
    prompts = [{"prompt": "a", "extra_body": {"top_k": 1}}, "b", {"prompt": "c", "extra_body": {}}]
    gather(face, face.provider(server), prompts, extra_body={"top_k": 5, "min_p": 0.1}, concurrency=1)
    sent = [(request.json["top_k"], request.json["min_p"]) for request in server.requests]
    assert sent == [(1, 0.1), (5, 0.1), (5, 0.1)]


def test_gather_streams_underneath(face: Face, serve: Serve) -> None:
    server = serve(echo)
    assert gather(face, face.provider(server), ["ab", "cd"], stream=True) == ["ab", "cd"]
    assert all(request.json["stream_options"] == {"include_usage": True} for request in server.requests)


def test_errors_in_their_places(face: Face, serve: Serve) -> None:
    results = gather(face, face.provider(serve(echo)), ["a", "bad 1", "c", 3, ""], return_exceptions=True)
    assert results[0::2] == ["a", "c", ""]
    assert isinstance(results[1], BadRequestError)
    assert isinstance(results[3], ValueError)
    assert "int" in str(results[3])


def test_map_yields_in_order_or_as_they_finish(face: Face, serve: Serve) -> None:
    provider = face.provider(serve(echo))
    found = items(face, provider, (f"p{number}" for number in range(100)), concurrency=16)
    assert [item.index for item in found] == list(range(100))
    assert [str(item.result) for item in found] == [item.input for item in found]
    found = items(face, provider, (f"p{number}" for number in range(100)), concurrency=16, ordered=False)
    assert sorted(item.index for item in found) == list(range(100))


def test_an_asynchronous_iterator(face: Face, serve: Serve) -> None:
    async def prompts() -> AsyncIterator[str]:
        for number in range(20):
            await asyncio.sleep(0)
            yield f"p{number}"

    provider = face.provider(serve(echo))
    assert [str(item.result) for item in items(face, provider, prompts())] == [f"p{number}" for number in range(20)]
    assert gather(face, provider, prompts()) == [f"p{number}" for number in range(20)]


@pytest.mark.parametrize("prompts", ["one", b"one", {"prompt": "one"}, None, 1])
def test_one_prompt_is_not_many(face: Face, serve: Serve, prompts: Any) -> None:
    provider = face.provider(serve(echo))
    with pytest.raises(ValueError, match="prompts must be an iterable"):
        gather(face, provider, prompts)
    with pytest.raises(ValueError, match="prompts must be an iterable"):
        items(face, provider, prompts)


def test_prompts_that_are_only_counted_through(face: Face, serve: Serve) -> None:
    class DataSet:  # as torch's
        def __getitem__(self, index: int) -> str:
            return ["p0", "p1"][index]

    prompts: Any = DataSet()
    assert gather(face, face.provider(serve(echo)), prompts) == ["p0", "p1"]


def test_what_would_give_other_things_than_prompts(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server)
    with pytest.raises(ValueError, match=r"a DataFrame yields only its column names"):
        gather(face, provider, DataFrame())
    with pytest.raises(ValueError, match=r"a DataFrame yields only its column names"):
        items(face, provider, GeoDataFrame())
    with pytest.raises(ValueError, match=r"^a single message is not a prompt"):
        gather(face, provider, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "many"}, 'concurrency must be "auto"'),
        ({"max_failures": -1}, "max_failures"),
        ({"max_error_rate": 2}, "max_error_rate"),
        ({"price": (1, -1)}, "output"),
        ({"price": 0.5}, "price must be two numbers"),
        ({"price": (1,)}, "price must be two numbers"),
        ({"progress": "loud"}, "progress"),
        ({"temperature": -1}, "temperature"),
        ({"timeout": -5}, "timeout"),
        ({"retry": 3}, "retry"),
    ],
)
def test_wrong_options_are_told_before_anything_is_sent(
    face: Face, serve: Serve, options: dict[str, Any], word: str
) -> None:
    server = serve(echo)
    provider = face.provider(server)
    with pytest.raises(ValueError, match=word):
        provider.map(["a"], **options)  # already here, not when it is iterated over
    with pytest.raises(ValueError, match=word):
        gather(face, provider, ["a"], **options)
    assert server.requests == []


def test_a_word_is_no_flag(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server)
    with pytest.raises(ValueError, match="ordered must be True or False"):
        provider.map(["a"], ordered="no")
    for flag in ("return_exceptions", "include_usage"):
        with pytest.raises(ValueError, match=f"{flag} must be True or False"):
            gather(face, provider, ["a"], **{flag: "no"})
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ordered", ": map does"),
        ("drain", ""),
        ("concurency", "concurrency"),
        ("max_concurrency", "did you mean 'concurrency'"),
        ("return_exception", "return_exceptions"),
        ("prompt", "prompts"),
        ("temprature", "temperature"),
        ("top_k", "goes into extra_body"),
    ],
)
def test_gather_takes_no_other_arguments(face: Face, serve: Serve, name: str, hint: str) -> None:
    provider = face.provider(serve(echo))
    with pytest.raises(TypeError, match=f"^gather takes no argument '{name}'.*{hint}"):
        gather(face, provider, ["a"], **{name: True})
    if name != "ordered":
        with pytest.raises(TypeError, match=f"^map takes no argument '{name}'"):
            provider.map(["a"], **{name: True})


def test_progress_tells_and_its_errors_end_the_run(face: Face, serve: Serve) -> None:
    provider = face.provider(serve(echo))
    told: list[Progress] = []
    options: dict[str, Any] = {"concurrency": 7, "price": (1, 2), "return_exceptions": True}
    gather(face, provider, ["a", "b", "bad"], progress=told.append, **options)
    last = told[-1]
    assert last.limit == 7
    assert (last.done, last.failed, last.total, last.prompt_tokens, last.completion_tokens) == (2, 1, 3, 6, 10)
    assert last.cost == pytest.approx(26e-6)
    assert last.ttft_p50 is None

    def broken(_: Progress) -> None:
        raise LookupError("of the caller's own")

    with pytest.raises(LookupError, match="of the caller's own"):
        gather(face, provider, ["a"], progress=broken)


@pytest.mark.parametrize("served", [True, False])
def test_progress_knows_how_long_answers_take_and_how_often_they_were_tried(
    face: Face, serve: Serve, served: bool
) -> None:
    late = answer([Pause(0.1), dumps(completion())], framing="chunked")
    provider = face.provider(serve(error(500), late if served else error(500)), retry=RetryPolicy(1, base_delay=0))
    told: list[Progress] = []
    gather(face, provider, ["a"], progress=told.append, return_exceptions=True)
    assert (told[-1].done, told[-1].retries) == (served, 1)
    assert ((told[-1].latency_p50 or 0) >= 0.1) is served


class Unsized:
    """As a progress bar around a generator: it has a `__len__`, and no length."""

    def __len__(self) -> int:
        raise TypeError("nobody knows")

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b"])


@pytest.mark.parametrize(
    ("prompts", "total"),
    [(["a", "b"], 2), ({"a": 1, "b": 1}.keys(), 2), (Unsized(), None), (lambda: iter(Unsized()), None)],
)
def test_progress_knows_the_total_where_there_is_one(face: Face, serve: Serve, prompts: Any, total: int | None) -> None:
    told: list[Progress] = []
    prompts = prompts() if callable(prompts) else prompts
    assert len(items(face, face.provider(serve(echo)), prompts, progress=told.append)) == 2
    assert told[-1].total == total


def test_a_generator_of_a_blocking_caller_runs_on_its_own_thread(serve: Serve) -> None:
    """SQLite refuses cursors on other threads; and what blocks here must not block the loop."""
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    context = contextvars.ContextVar("context", default="none")
    context.set("mine")
    threads = set()
    with sqlite3.connect(":memory:") as database:
        database.execute("create table prompts (text)")
        database.executemany("insert into prompts values (?)", [(f"p{number}",) for number in range(200)])

        def prompts() -> Iterator[str]:
            for (text,) in database.execute("select text from prompts"):
                threads.add((threading.get_ident(), context.get()))
                yield text

        assert [str(item.result) for item in provider.map(prompts())] == [f"p{number}" for number in range(200)]
        assert provider.gather(prompts()) == [f"p{number}" for number in range(200)]
    database.close()
    assert threads == {(threading.get_ident(), "mine")}


@pytest.mark.parametrize("stopped", [False, True], ids=["left", "stopped"])
def test_a_generator_of_a_blocking_caller_ends_with_the_run_and_on_its_own_thread(serve: Serve, stopped: bool) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    ended = []

    def prompts() -> Iterator[str]:
        try:
            yield "first"
            while True:
                yield "bad"
        finally:
            ended.append(threading.get_ident())

    gc.disable()  # which would end what is held by a cycle, on whatever thread it runs
    try:
        items = provider.map(prompts(), concurrency=2, max_failures=3 if stopped else None)
        if stopped:
            with pytest.raises(RunStoppedError):
                list(items)
        else:
            next(items)
        del items
        assert ended == [threading.get_ident()]
    finally:
        gc.enable()


def test_prompts_may_come_from_another_call(serve: Serve) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    prompts = (provider.generate_text(f"p{number}") for number in range(5))
    assert [str(item.result) for item in provider.map(prompts)] == [f"p{number}" for number in range(5)]


def test_a_prompt_is_sent_before_the_next_one_is_there(serve: Serve) -> None:
    server = serve(echo)
    provider = Provider("m", api_key=KEY, base_url=server.url)

    def prompts() -> Iterator[str]:
        for number in range(3):
            server.wait_for(number)
            yield f"p{number}"

    assert [str(item.result) for item in provider.map(prompts(), concurrency=4)] == ["p0", "p1", "p2"]


def test_prompts_are_taken_only_as_fast_as_they_are_worked_off(serve: Serve) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield f"p{number}"

    for seen, _ in enumerate(provider.map(prompts(), concurrency=4, ordered=False)):
        if seen == 20:
            break
        time.sleep(0.005)
    assert taken < 50  # 21, those under way, waiting here and taken ahead (4 × 4), and some that overtook the last


def test_blocking_runs_from_many_threads(serve: Serve) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    found: dict[int, list[str]] = {}

    def work(number: int) -> None:
        found[number] = [str(item.result) for item in provider.map(f"{number}-{n}" for n in range(30))]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [f"{number}-{n}" for n in range(30)] for number in range(8)}


@pytest.mark.parametrize("prompts", [["a", "b"], [{"prompt": "a"}]], ids=["strings", "dicts"])
def test_shared_messages_do_not_replace_prompts(serve: Serve, prompts: list[Any]) -> None:
    server = serve(echo)
    shared = [{"role": "user", "content": "shared"}]
    provider = Provider("m", api_key=KEY, base_url=server.url)
    with pytest.raises(ValueError, match="instead of this one"):
        provider.gather(prompts, messages=shared)
    assert not server.requests
    own = [[{"role": "user", "content": "own"}], {"temperature": 0}]
    assert provider.gather(own, messages=shared) == ["own", "shared"]


def test_an_answer_is_never_masked(serve: Serve) -> None:
    """Keys may be words: LM Studio's is `lm-studio`."""
    text = "Install it with `pip install lm-studio`."
    body = {**completion(text), "note": "the key lm-studio"}
    provider = Provider("m", api_key="lm-studio", base_url=serve(answer(body)).url)
    result = provider.generate_text("hi", include_usage=True)
    assert result.text == result.raw["choices"][0]["message"]["content"] == text
    assert result.raw["note"] == "the key ***"
