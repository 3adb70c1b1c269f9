"""A batch's store under `kill -9`: `test_journal.py` runs this in its own process, which forks the children it kills.

In: the output's path, a seed. Out: an AssertionError that says what was lost or doubled. In each round a child goes on
with the batch where the last one was killed. Through a pipe it reports the rows for which `commit` has returned.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rusty_agent.batch.files import Files
from rusty_agent.batch.index import repair, scan
from rusty_agent.batch.journal import Journal, Sync
from rusty_agent.batch.lock import Lock

from .lines import HOLE, result

KILLS = 15
SYNCS: tuple[Sync, ...] = ("row", "group", "off")


def row(number: int) -> bytes:
    return result(str(number), number, "x" * (number % 900))


async def write(files: Files, sync: Sync, promises: int, left: Iterator[int]) -> None:
    """Append the rows that are left, as fast as possible, in eight tasks."""
    journal = Journal(files.output, sync)

    async def work() -> None:
        for number in left:
            journal.append(row(number))
            if sync == "row" or number % 50 == 0:
                await journal.commit()
                os.write(promises, b"%d\n" % number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(8)))
    await journal.aclose()


def child(files: Files, sync: Sync, promises: int, rows: int | None) -> None:
    """Go on from what the files say, to the end or until killed."""
    with Lock(files.lock):
        index = scan(files)
        repair(files, index)
        numbers = count() if rows is None else iter(range(rows))
        left = (number for number in numbers if str(number) not in index.done)
        asyncio.run(write(files, sync, promises, left))


def run(files: Files, sync: Sync, *, rows: int | None = None, patient: bool = False, seconds: float = 0) -> set[str]:
    """Run one round; return its promises. Without `rows` the child is killed: if `patient`, after its first promise."""
    heard, told = os.pipe()
    number = os.fork()
    if not number:
        child(files, sync, told, rows)
        os._exit(0)
    os.close(told)
    promised = os.read(heard, 1) if patient else b""
    if rows is None:
        time.sleep(seconds)
        os.kill(number, signal.SIGKILL)
    with open(heard, "rb") as pipe:
        promised += pipe.read()
    os.waitpid(number, 0)
    return set(promised[: promised.rfind(b"\n") + 1].decode().split())


def main() -> None:
    """Kill, check and go on, several times; then let a child finish."""
    files = Files.of(Path(sys.argv[1]))
    files.manifest.touch()
    chance = random.Random(int(sys.argv[2]))
    promised: set[str] = set()
    done: set[str] = set()
    for number in range(KILLS):
        patient = number % 4 > 0
        promised |= run(files, SYNCS[number % 3], patient=patient, seconds=chance.uniform(0, 0.01 if patient else 0.1))
        done = scan(files).done
        assert promised <= done, f"promised and lost: {promised - done}"
        damage = chance.choice([b"", b"", result("torn")[: chance.randrange(1, 80)], b"\n" + HOLE + b"\n", HOLE])
        if done:  # else the file would look as if no batch had written it
            with files.output.open("ab") as file:  # what a loss of power may leave
                file.write(damage)
    assert 0 < len(promised) < len(done), "the kills came when nothing was promised, or nothing else under way"
    rows = max(map(int, done)) + 100
    run(files, "group", rows=rows)
    lines = files.output.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == rows, f"{len(lines)} lines for {rows} rows"
    assert set(lines) == set(map(row, range(rows)))


if __name__ == "__main__":
    main()
