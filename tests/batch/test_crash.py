"""The real command line under `kill -9`: nothing is lost, nothing comes twice, little is asked for again.

By hand, with as many kills and rows as the promise names:
`RUSTY_AGENT_KILLS=200 RUSTY_AGENT_ROWS=20000 pytest tests/batch/test_crash.py --timeout 900`
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from rusty_agent.wire.codec import loads_strict
from tests.cli.process import run, start
from tests.processes import finish

from .endpoint import endpoint

KILLS = int(os.environ.get("RUSTY_AGENT_KILLS", "15"))
ROWS = int(os.environ.get("RUSTY_AGENT_ROWS", "3000"))
IN_FLIGHT = 32
MILLISECONDS = IN_FLIGHT * 100 * KILLS / ROWS  # an answer; so slow that there is work left for the last kill
TORN = (b"", b"", b'{"id":"batch_req_1","custom_id":"row-', b"\0" * 40, b"\0" * 40 + b"\n", b'{"custom_id":7}\n')

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def kill(child: subprocess.Popen[bytes], output: Path, chance: random.Random) -> bool:
    """Kill it: some while it starts, most while it works; whether it was still there."""
    if chance.random() < 0.8:  # wait until it has written something
        size = output.stat().st_size if output.exists() else 0
        give_up = time.monotonic() + 10
        while child.poll() is None and time.monotonic() < give_up:
            if output.exists() and output.stat().st_size > size:
                break
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.08))
    else:
        time.sleep(chance.uniform(0, 0.5))
    alive = child.poll() is None
    child.kill()
    finish(child)
    return alive


@pytest.mark.usefixtures("unmeasured")  # coverage's own file may be torn by a kill, and it would complain of that
def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("RUSTY_AGENT_SEED", "1")))
    source, output, errors = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl"
    source.write_text("".join(f'{{"custom_id":"row-{n}","prompt":"row {n}"}}\n' for n in range(ROWS)))
    batch = ["batch", str(source), "-o", str(output), "--concurrency", str(IN_FLIGHT), "--progress", "off"]
    with endpoint(MILLISECONDS) as server:
        batch += ["--base-url", server.url]
        kills = 0
        for _ in range(KILLS):
            kills += kill(start(*batch), output, chance)
            if lines(output):  # else a batch refuses what it has not written
                with output.open("ab") as file:  # what a loss of power may leave
                    file.write(chance.choice(TORN))
        written = len(lines(output))
        ended = run(*batch, seconds=600)
        asked, peak = server.told()
    assert ended.code == 0, ended.err
    assert 0 < written < ROWS + KILLS, "the kills came before anything was written, or after all was"
    assert kills >= KILLS * 2 // 3
    found = Counter(loads_strict(line)["custom_id"] for line in lines(output) + lines(errors))
    assert found == {f"row-{n}": 1 for n in range(ROWS)}
    assert set(asked) == set(range(ROWS))
    assert peak <= IN_FLIGHT
    again = asked.total() - ROWS  # what was in flight; what was written is with the system
    assert again <= kills * IN_FLIGHT, f"{again} asked for again after {kills} kills"
