"""Ray Data: what an actor does, what Ray is asked for, and (where Ray is installed) the two together."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rusty_agent import AsyncProvider, MissingAPIKeyError, RetryPolicy, RunStoppedError
from rusty_agent.batch.runner import run_batch
from rusty_agent.contrib.driver import Driver
from rusty_agent.contrib.ray import Generate, checkpoint, generate
from rusty_agent.testing import Answer, FaultServer, Hang, Received, answer, completion, error
from rusty_agent.wire.codec import dumps, loads

from ..events import held
from ..integration.scripts import start
from ..processes import finish
from .tables import Table, arrow

ONCE = RetryPolicy(max_retries=0)


@pytest.fixture(autouse=True)
def _arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setenv("RAY_TEST_KEY", "sk-test-0123456789")


def options(server: FaultServer, **more: Any) -> dict[str, Any]:
    return {"model": "m", "base_url": server.url, "api_key_env": "RAY_TEST_KEY", "retry": ONCE, **more}


def echo(request: Received) -> Answer:
    """Says what was asked; refuses to say «no»."""
    asked = request.json["messages"][-1]["content"]
    return error(400, "never") if asked == "no" else answer(completion(f"echo {asked}"))


async def answered(actor: Generate, **columns: list[Any]) -> dict[str, list[Any]]:
    table: Any = await actor(Table(columns))
    found: dict[str, list[Any]] = table.columns
    return found


# What an actor does.


async def test_rows_become_answers_and_errors() -> None:
    with FaultServer(echo) as server:
        actor = Generate(provider=options(server), prompt="q", temperature=0, extra_body={"a": 1})
        found = await answered(actor, q=["one", "no", None, "two"], id=[1, 2, 3, 4])
    assert found["id"] == [1, 2, 3, 4]
    assert found["answer"] == ["echo one", None, None, "echo two"]
    assert found["status"] == [200, 400, None, 200]
    assert found["error"][1].startswith("BadRequestError: ")
    assert found["error"][2] == "ValueError: the row has no prompt"
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-test-0123456789"}
    assert all(request.json["temperature"] == 0 and request.json["a"] == 1 for request in server.requests)


async def test_a_row_says_more_than_the_job() -> None:
    with FaultServer(echo) as server:
        actor = Generate(provider=options(server), body="b", extra_body={"seed": 1, "a": 1})
        chat = [{"role": "user", "content": "hi"}]
        found = await answered(actor, b=[{"messages": chat, "seed": 7, "model": "other"}, {"seed": 7}])
    assert found["answer"] == ["echo hi", None]
    assert found["error"][1] == "ValueError: body must be an object with messages"
    assert [request.json for request in server.requests] == [{"model": "other", "messages": chat, "seed": 7, "a": 1}]


async def test_answers_may_be_streamed_underneath() -> None:
    with FaultServer() as server:
        found = await answered(Generate(provider=options(server), prompt="q", stream=True), q=["one"])
    assert found["answer"] == ["Hello world"]
    assert server.requests[0].json["stream"] is True


async def test_all_batches_of_an_actor_share_its_limit() -> None:
    def together(request: Received) -> Answer:
        return held(echo(request), lambda: len(server.requests) >= 4)

    with FaultServer(together) as server:
        actor = Generate(provider=options(server), prompt="q", max_in_flight=4)
        found = await asyncio.gather(*(answered(actor, q=["one"] * 16) for _ in range(3)))
        assert [part["answer"] for part in found] == [["echo one"] * 16] * 3
        assert server.connections == 4


async def test_the_pace_is_the_actors() -> None:
    with FaultServer(echo) as server:
        actor = Generate(provider=options(server), prompt="q", rpm=1200)
        began = time.monotonic()
        await answered(actor, q=["one"] * 6)
        assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize(
    ("status", "fields", "reason"),
    [(401, {}, "authentication"), (429, {"code": "insufficient_quota"}, "quota")],
)
async def test_a_key_of_no_use_ends_the_job(status: int, fields: dict[str, Any], reason: str) -> None:
    """Errors in thousands of rows would count as done."""
    with FaultServer(error(status, **fields)) as server:
        actor = Generate(provider=options(server), prompt="q", max_in_flight=2)
        with pytest.raises(RunStoppedError) as caught:
            await answered(actor, q=["one"] * 50)
        assert caught.value.reason == reason
        assert len(server.requests) <= 4
        batches = [answered(actor, q=["one"]) for _ in range(3)]  # the next batches too
        again, *_ = errors = await asyncio.gather(*batches, return_exceptions=True)
        assert isinstance(again, RunStoppedError)
        assert errors == [again] * 3
        assert len(list(walk_tb(again.__traceback__))) == 3, "each batch makes the traceback longer"


async def test_an_error_rate_ends_the_job_when_asked_to() -> None:
    with FaultServer(error(400)) as server:
        assert (await answered(Generate(provider=options(server), prompt="q"), q=["one"] * 50))["answer"] == [None] * 50
        with pytest.raises(RunStoppedError, match="max_error_rate"):
            await answered(Generate(provider=options(server), prompt="q", max_error_rate=0.5), q=["one"] * 50)


async def test_an_actor_whose_every_row_fails_ends_the_job() -> None:
    """The model's name is wrong, or the address: rows with errors would count as done."""
    with FaultServer(error(404)) as server:
        actor = Generate(provider=options(server), prompt="q", max_in_flight=1)  # with more, others may get ahead
        with pytest.raises(RunStoppedError, match="none of the first 100 was answered"):
            await answered(actor, q=["one"] * 300)
        assert len(server.requests) == 100
    with FaultServer(echo) as server:
        actor = Generate(provider=options(server), prompt="q", max_in_flight=1)
        assert (await answered(actor, q=["one"] + ["no"] * 150))["status"] == [200] + [400] * 150


async def test_rows_that_ask_nothing_do_not_end_the_job() -> None:
    with FaultServer(echo) as server:
        actor = Generate(provider=options(server), messages="m", max_error_rate=0.5)
        found = await answered(actor, m=[None, ["hi"], [{"role": "user", "content": "one"}]] * 150)
    assert found["status"] == [None, None, 200] * 150
    assert {found["error"][1]} == {
        "ValueError: a list is one row's messages, but its first has no role (put each row on a line of its own)"
    }


async def test_rows_that_ask_nothing_do_not_keep_a_hopeless_job_alive() -> None:
    with FaultServer(error(404)) as server:
        actor = Generate(provider=options(server), messages="m", max_in_flight=1)
        with pytest.raises(RunStoppedError, match="none of the first 100 was answered"):
            await answered(actor, m=[["hi"], [{"role": "user", "content": "one"}]] * 150)
        assert len(server.requests) == 100


async def test_the_wait_that_an_endpoint_may_ask_for_is_the_policys() -> None:
    asks = RetryPolicy(max_retries=0, max_retry_after=600)
    with FaultServer(error(429, headers={"Retry-After": "300"})) as server:
        actor = Generate(provider=options(server, retry=asks), prompt="q", max_in_flight=1)
        assert (await answered(actor, q=["one"]))["status"] == [429]
        with pytest.raises(RunStoppedError, match="asks to wait for 300 s"):
            await answered(Generate(provider=options(server), prompt="q"), q=["one"])


async def test_the_key_is_looked_for_where_the_actor_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(echo) as server:
        actor = Generate(provider=options(server), prompt="q")
        monkeypatch.delenv("RAY_TEST_KEY")
        with pytest.raises(MissingAPIKeyError, match=r"RAY_TEST_KEY .*is not set where this Ray worker runs"):
            await answered(actor, q=["one"])
        assert server.requests == []
        keyless = Generate(provider={"model": "m", "base_url": server.url, "preset": "vllm"}, prompt="q")
        assert (await answered(keyless, q=["one"]))["answer"] == ["echo one"]


async def test_columns_are_checked_before_anything_is_sent() -> None:
    with FaultServer(echo) as server:
        actor = Generate(provider=options(server), prompt="q")
        with pytest.raises(ValueError, match="no column 'q'"):
            await answered(actor, z=["one"])
        with pytest.raises(ValueError, match="'error'"):
            await answered(actor, q=["one"], error=[None])
        with pytest.raises(ValueError, match=r'batch_format="pyarrow".*not dict'):  # Ray's default
            await actor({"q": ["one"]})
        with pytest.raises(ValueError, match=r"the columns are 'q', 'id': name .* with prompt="):  # else: only errors
            await answered(Generate(provider=options(server)), q=["one"], id=[1])
        assert server.requests == []


GOOD = {"model": "m", "base_url": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"provider": GOOD | {"api_key": "sk-1"}}, "api_key_env"),
        ({"provider": GOOD, "extra_headers": {"Authorization": "1"}}, "'authorization' looks like a key"),
        ({"provider": "m"}, "provider must be a dict of arguments for AsyncProvider.*not str"),
        ({"provider": GOOD | {"modle": "m"}}, "arguments for AsyncProvider.*modle"),
        ({"provider": GOOD | {"base_url": "ftp://x"}}, "base_url"),
        ({"provider": GOOD, "max_in_flight": 0}, "max_in_flight"),
        ({"provider": GOOD, "rpm": 0}, "requests_per_minute"),
        ({"provider": GOOD, "temperature": "hot"}, "temperature"),
        ({"provider": GOOD, "max_error_rate": 2}, "max_error_rate"),
    ],
)
def test_what_cannot_be_right_is_said_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Generate(prompt="q", **arguments)
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [("temprature", "temperature"), ("max_inflight", "max_in_flight"), ("include_results", "include_result")],
)
def test_an_argument_that_there_is_not(name: str, near: str) -> None:
    wrong: Any = {name: 1}
    with pytest.raises(TypeError, match=rf"^Generate takes no argument '{name}': did you mean '{near}'\?"):
        Generate(provider=GOOD, prompt="q", **wrong)


# What Ray is asked for.


CONTEXT = SimpleNamespace(checkpoint_config=None)


class Dataset:
    """Writes down what it is asked for."""

    context = SimpleNamespace(checkpoint_config=None)

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def repartition(self, *, target_num_rows_per_block: int, strict: bool = False) -> Dataset:
        self.asked |= {"rows": target_num_rows_per_block, "exactly": strict}
        return self

    def map_batches(self, function: Any, **arguments: Any) -> Dataset:
        self.asked |= arguments | {"function": function}
        return self


@pytest.fixture
def rays(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, data = ModuleType("ray"), ModuleType("ray.data")
    ray.data = data  # type: ignore[attr-defined]
    ray.is_initialized = lambda: True  # type: ignore[attr-defined]
    ray.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "node 1")  # type: ignore[attr-defined]
    data.Dataset = Dataset  # type: ignore[attr-defined]
    data.ActorPoolStrategy = SimpleNamespace  # type: ignore[attr-defined]
    data.DataContext = SimpleNamespace(get_current=lambda: CONTEXT)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)


def asked(**arguments: Any) -> dict[str, Any]:
    dataset: Any = Dataset()
    generate(dataset, provider=GOOD, prompt="q", **arguments)
    found: dict[str, Any] = dataset.asked
    return found


@pytest.mark.usefixtures("rays")
@pytest.mark.parametrize("in_flight", [1, 7, 32, 128, 1000, 5000])
@pytest.mark.parametrize("rows", [None, 1, 64, 1000])
def test_rows_at_hand_are_eight_times_those_in_flight(in_flight: int, rows: int | None) -> None:
    found = asked(max_in_flight=in_flight, rows_per_block=rows)
    assert found["rows"] == (rows or min(max(in_flight, 32), 256))
    assert found["exactly"], "Ray leaves blocks that come smaller as they are"
    assert 4 * found["batch_size"] >= found["rows"]  # a block is under way as a whole
    assert found["compute"].max_concurrent_calls_per_actor * found["rows"] >= 8 * in_flight
    assert found["num_cpus"] == 0


@pytest.mark.usefixtures("rays")
@pytest.mark.parametrize(
    ("actors", "limited", "least", "most"),
    [(None, False, 1, 8), (None, True, 1, 1), (3, True, 3, 3), ((2, 4), True, 2, 4), ((2, 4), False, 2, 4)],
)
def test_limits_are_divided_over_the_actors(actors: Any, limited: bool, least: int, most: int) -> None:
    limits: dict[str, Any] = {"rpm": 600, "tpm": 1200} if limited else {}
    found = asked(actors=actors, **limits)
    assert (found["compute"].min_size, found["compute"].max_size) == (least, most)
    given = found["fn_constructor_kwargs"]
    assert (given["rpm"], given["tpm"]) == ((600 / most, 1200 / most) if limited else (None, None))
    assert isinstance(found["function"](**given), Generate)


@pytest.mark.usefixtures("rays")
def test_actors_know_whom_they_work_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked()["fn_constructor_kwargs"]["driver"] == Driver.here("node 1")
    monkeypatch.setattr(sys.modules["ray"], "is_initialized", lambda: False)
    assert "driver" not in asked()["fn_constructor_kwargs"]


class GoneDriver:
    """A process that can be told to end."""

    def watch(self, node: str, gone: Callable[[], object]) -> bool:
        assert node == "node 1"
        self.end = gone
        return True


@pytest.mark.usefixtures("rays")
async def test_when_the_program_is_gone_nothing_more_is_sent() -> None:
    driver: Any = GoneDriver()
    with FaultServer(answer([Hang()])) as server:
        actor = Generate(provider=options(server), prompt="q", max_in_flight=2, driver=driver)
        work = asyncio.ensure_future(answered(actor, q=["one", "two", "three"]))
        await asyncio.to_thread(server.wait_for, 2)
        driver.end()
        with pytest.raises(RunStoppedError, match="the program that it was for is gone"):
            await asyncio.wait_for(work, 5)
        assert len(server.requests) == 2


@pytest.mark.usefixtures("rays")
def test_rows_that_were_read_before_the_checkpoint_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONTEXT, "checkpoint_config", object())
    with pytest.raises(ValueError, match="read before checkpoint"):
        asked()


@pytest.mark.usefixtures("rays")
def test_what_is_no_dataset_is_told() -> None:
    rows: Any = [{"q": "one"}]
    with pytest.raises(ValueError, match=r"ds must be a Ray Dataset, not list: .*from_items"):
        generate(rows, provider=GOOD, prompt="q")


@pytest.mark.usefixtures("rays")
def test_a_checkpoint_has_a_folder_of_its_own() -> None:
    with pytest.raises(ValueError, match="a folder used only for the checkpoint"):
        checkpoint("")


@pytest.mark.usefixtures("rays")
@pytest.mark.parametrize(
    "wrong",
    [
        {"actors": 0},
        {"actors": (3, 2)},
        {"actors": "3"},
        {"actors": (1,)},
        {"rows_per_block": 0},
        {"rpm": -1},
        {"rpm": "9"},
    ],
)
def test_what_ray_cannot_be_asked_for(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        asked(**wrong)


def test_what_ray_is_not_asked_with() -> None:
    with pytest.raises(TypeError, match=r"^generate takes no argument 'row_per_block': did you mean 'rows_per_block'"):
        asked(row_per_block=64)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ImportError, match=r"pip install 'rusty-agent\[ray\]'"):
        asked()


# Ray itself, in a process of its own, on the loopback interface only.

LOOPBACK = """
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""
JOB = """
import ray
from rusty_agent.contrib.ray import checkpoint, generate

ray.init(num_cpus=1, include_dashboard=False, logging_level="error", object_store_memory=2**27)
ray.data.DataContext.get_current().enable_progress_bars = False
checkpoint("checkpoint")
provider = dict(model="m", base_url=URL, api_key_env="RAY_TEST_KEY")
rows = ray.data.read_json("in.jsonl")
ds = generate(rows, provider=provider, prompt="prompt", actors=2, max_in_flight=8, retry=RetryPolicy(max_retries=0))
ds.write_parquet("out")
names = ("custom_id", "answer", "status", "error")
for row in ray.data.read_parquet("out").iter_rows():
    print(*(row[name] for name in names), sep="|")
checkpoint("other", id_column="nowhere")
try:
    generate(ray.data.read_json("in.jsonl"), provider=provider, prompt="prompt").write_parquet("never")
except Exception as error:
    print("no column 'nowhere'" in str(error))
try:
    generate(rows, provider=provider, prompt="prompt")
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'rusty-agent[ray]'")
async def test_a_job_of_ray_is_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [{"custom_id": f"id {n}", "prompt": "no" if n % 50 == 7 else f"row {n}"} for n in range(300)]
    Path("in.jsonl").write_bytes(b"".join(dumps(line) + b"\n" for line in lines))
    with FaultServer(echo) as server:
        child = start(server.url, JOB, "-W", "default", before=LOOPBACK)
        ended = await asyncio.to_thread(finish, child, seconds=55)  # Ray takes some ten seconds to start
        assert ended.code == 0, ended.err
        assert "Unclosed" not in ended.err + ended.out
        assert "contrib/ray.py:" not in ended.err, "Ray warns of something"  # it may show the last error's traceback
        assert len(server.requests) == 300
        provider = AsyncProvider("m", base_url=server.url, api_key="none", retry=ONCE)
        await run_batch("in.jsonl", "plain.jsonl", provider)
    *rows, unknown, refusal = ended.out.splitlines()
    assert unknown == "True"
    said = dict(row.split("|", 1) for row in rows)
    assert len(rows) == len(said) == 300
    for line in map(loads, Path("plain.jsonl").read_bytes().splitlines()):
        text = line["response"]["body"]["choices"][0]["message"]["content"]
        assert said.pop(line["custom_id"]) == f"{text}|200|None"
    assert len(said) == 6
    assert all(row.startswith("None|400|BadRequestError: ") for row in said.values())
    assert "Ray needs 2 CPUs and 1 GiB of memory; it has 1 and" in refusal
