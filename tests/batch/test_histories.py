"""Any history of runs, limits, failures and damage: one line for each row at any time, and its answer in the end."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from rusty_agent import AsyncProvider
from rusty_agent.batch.runner import run_batch
from rusty_agent.errors import APIStatusError
from rusty_agent.net.attempt import Request
from rusty_agent.net.caller import Caller
from rusty_agent.testing import completion
from rusty_agent.types import GenerateResult
from rusty_agent.wire.codec import loads_strict
from tests.unit.batch.lines import unsynced

from .runs import ids, simple, write_rows

ROWS = 6
ALL = [f"r{number}" for number in range(ROWS)]


class Scripted(AsyncProvider):
    """Fails some prompts with a status, and answers the others, without any endpoint."""

    def __init__(self, failing: dict[str, int]) -> None:
        super().__init__("m", api_key="test-key-12345", base_url="http://127.0.0.1:9/v1")
        self.failing = failing
        self.asked: list[str] = []

    async def _answer(self, _: Caller, request: Request) -> GenerateResult:
        prompt = request.fields["messages"][-1]["content"]
        self.asked.append(prompt)
        await asyncio.sleep(0)
        if prompt in self.failing:
            raise APIStatusError("said", status_code=self.failing[prompt], headers={"a": "b"})
        return GenerateResult(text="yes", finish_reason="stop", raw=completion("yes"))


@define
class Episode:
    """One run, and what happens to its output afterwards."""

    limit: int | None
    failing: dict[str, int]
    retry_permanent: bool
    cut: int
    tail: bytes


EPISODES = st.builds(
    Episode,
    limit=st.none() | st.integers(1, ROWS + 1),
    failing=st.dictionaries(st.sampled_from(ALL), st.sampled_from([400, 500])),
    retry_permanent=st.booleans(),
    cut=st.sampled_from([0, 0, 1, 2, 40, 700]),
    tail=st.sampled_from([b"", b"", b'{"id":', b"\0\0\0\n", b'{"custom_id":"r1"}\n', b'{"custom_id":7}\n{']),
)


def found(path: Path) -> dict[str, bool]:
    """Whose lines a file holds, and whether they are of errors for good; what is damaged or torn is passed over."""
    rows: dict[str, bool] = {}
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        with suppress(ValueError, TypeError, KeyError):
            value = loads_strict(line if line.endswith(b"\n") else b"")
            if isinstance(value["custom_id"], str) and value["id"].startswith("batch_req_"):
                rows[value["custom_id"]] = value.get("x_rusty", {}).get("permanent") is True
    return rows


async def play(folder: Path, episode: Episode) -> None:
    """One run, held against what must come of it."""
    output, errors = folder / "out.jsonl", folder / "out.errors.jsonl"
    first = ALL[: episode.limit]
    passed_over = set(found(output))
    if not episode.retry_permanent:
        passed_over |= {row for row, permanent in found(errors).items() if permanent}
    provider = Scripted(episode.failing)
    result = await run_batch(
        folder / "in.jsonl",
        output,
        provider,
        concurrency=2,
        limit=episode.limit,
        retry_permanent=episode.retry_permanent,
    )
    assert sorted(provider.asked) == [row for row in first if row not in passed_over]
    lines = ids(output) + ids(errors)
    assert len(lines) == len(set(lines))
    assert set(first) <= set(lines) <= set(ALL)
    assert (result.stopped, result.total) == (None, len(first))
    assert result.done + result.failed + result.skipped + result.failed_earlier == result.total


def damage(output: Path, episode: Episode) -> None:
    data = output.read_bytes()
    output.write_bytes(data[: len(data) - episode.cut] + episode.tail)
    if not found(output):  # a batch refuses what holds no line of its own
        output.write_bytes(b"")


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(EPISODES, max_size=4))
def test_any_history_ends_with_one_answer_for_each_row(episodes: list[Episode]) -> None:
    with tempfile.TemporaryDirectory() as name, unsynced():
        folder = Path(name)
        write_rows(folder / "in.jsonl", simple(ROWS))
        for episode in episodes:
            asyncio.run(play(folder, episode))
            damage(folder / "out.jsonl", episode)
        asyncio.run(play(folder, Episode(None, {}, True, 0, b"")))
        assert sorted(ids(folder / "out.jsonl")) == ALL
        assert not (folder / "out.errors.jsonl").exists()
