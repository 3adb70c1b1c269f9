"""Nothing of the model outlives the program, however that ends; and nothing of it makes a noise."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rusty_agent import AsyncProvider, Provider
from rusty_agent.local import child

from ..processes import finish
from .process import SMALL, line, pid_of, start, until, vanishes

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("model"), pytest.mark.timeout(120)]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork and no signals")


async def test_a_dropped_provider(model: Path) -> None:
    llm = AsyncProvider.local(model, **SMALL)
    assert await llm.generate_text("Hi", max_tokens=1)
    pid = pid_of(llm)
    del llm
    gc.collect()
    assert await asyncio.to_thread(vanishes, pid)  # meanwhile the loop closes the connections


def test_a_dropped_blocking_provider(model: Path) -> None:
    provider = Provider.local(model, **SMALL)
    pid = pid_of(provider)
    del provider
    gc.collect()
    assert vanishes(pid)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("p = Provider.local(**SMALL); tell(child_of(p).pid); tell(p.generate_text('Hi', max_tokens=2))"),
        pytest.param("p = Provider.local(**SMALL); tell(child_of(p).pid); s = p.stream_text(LONG); tell(next(s))"),
        pytest.param(
            "async def main():\n"
            "    llm = AsyncProvider.local(**SMALL)\n"
            "    text = await llm.generate_text('Hi', max_tokens=2)\n"
            "    tell(child_of(llm).pid)\n"
            "    return llm\n"
            "llm = asyncio.run(main())\n"
        ),
        pytest.param(
            "async def main():\n"
            "    async with AsyncProvider.local(**SMALL) as llm:\n"
            "        tell(child_of(llm).pid)\n"
            "        async for piece in llm.stream_text(LONG):\n"
            "            break\n"
            "asyncio.run(main())\n"
        ),
    ],
    ids=["blocking", "blocking, in a stream", "asyncio, not closed", "asyncio, left in a stream"],
)
def test_the_end_of_the_program(script: str) -> None:
    program = start(script)
    pid = int(line(program))
    ended = finish(program)
    assert (ended.code, ended.err) == (0, "")
    assert vanishes(pid)


@pytest.mark.usefixtures("unmeasured")
def test_the_end_of_the_program_while_the_model_loads() -> None:
    program = start(
        "async def main():\n"
        "    llm = AsyncProvider.local(**SMALL)\n"
        "    call = asyncio.create_task(llm.generate_text('Hi'))\n"
        "    await asyncio.sleep(0.1)\n"
        "    tell(child_of(llm).pid)\n"
        "asyncio.run(main())\n"
    )
    pid = int(line(program))
    assert finish(program) == (0, "", "")
    assert vanishes(pid)


@posix
@pytest.mark.parametrize(
    "state",
    ["p = Provider.local(**SMALL)", "p = AsyncProvider.local(**SMALL); child_of(p); time.sleep(0.15)"],
    ids=["loaded", "loading"],
)
@pytest.mark.usefixtures("unmeasured")
def test_the_program_is_killed(state: str) -> None:
    program = start(f"{state}; tell(child_of(p).pid); time.sleep(60)")
    pid = int(line(program))
    program.kill()
    assert vanishes(pid)
    finish(program)


@posix
@pytest.mark.usefixtures("unmeasured")
def test_ctrl_c_is_the_programs_alone() -> None:
    program = start(
        "p = Provider.local(**SMALL)\n"
        "pid = child_of(p).pid\n"
        "tell(pid)\n"
        "try:\n"
        "    for piece in p.stream_text(LONG, max_tokens=400): time.sleep(0.02)\n"
        "except KeyboardInterrupt:\n"
        "    tell(p.generate_text('Hi', max_tokens=2) != '', child_of(p).pid == pid)\n"
    )
    pid = int(line(program))
    assert not vanishes(pid, 0.3)
    os.killpg(program.pid, signal.SIGINT)
    _, out, err = finish(program)
    assert err == ""
    assert out.split() == ["True", "True"]
    assert vanishes(pid)


_FORK = """
def fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: there are, and they are dealt with
        return os.fork()
"""


@posix
@pytest.mark.usefixtures("unmeasured")
def test_a_fork_shares_the_process_and_does_not_stop_it() -> None:
    program = start(
        _FORK + "p = Provider.local(**SMALL)\n"
        "pid = child_of(p).pid\n"
        "tell(pid)\n"
        "if fork() == 0:\n"
        "    text, child = p.generate_text('Hi', max_tokens=2), child_of(p)\n"
        "    tell('fork', text != '', child.pid == pid, child.gone_within(1))\n"
        "    p.close()\n"
        "    sys.exit()\n"  # with all that happens at exit
        "os.wait()\n"
        "tell('parent', p.generate_text('Hi', max_tokens=2) != '', child_of(p).pid == pid)\n"
    )
    pid = int(line(program))
    _, out, err = finish(program)
    assert err == ""
    assert out.splitlines() == ["fork True True False", "parent True True"]
    assert vanishes(pid)


@posix
def test_a_fork_knows_that_the_process_has_ended() -> None:
    program = start(
        _FORK + "p = Provider.local(**SMALL)\n"
        "first = child_of(p)\n"
        "p.generate_text('Hi', max_tokens=2)\n"
        "os.kill(first.pid, signal.SIGKILL)\n"
        "while not first.gone: time.sleep(0.01)\n"
        "if fork() == 0:\n"
        "    tell(p.generate_text('Hi', max_tokens=2) != '', child_of(p) is not first)\n"
        "    sys.exit()\n"
        "os.wait()\n"
    )
    assert finish(program, seconds=60) == (0, "True True\n", "")


@posix
def test_a_fork_that_outlives_the_program_starts_its_own() -> None:
    program = start(
        "parent = os.getpid()\n" + _FORK + "p = Provider.local(**SMALL)\n"
        "tell(child_of(p).pid)\n"
        "if fork() == 0:\n"
        "    tell('forked')\n"
        "    while os.getppid() == parent: time.sleep(0.01)\n"
        "    try: p.generate_text('Hi', max_tokens=2)\n"
        "    except LocalModelError as error: tell(error)\n"
        "    tell(p.generate_text('Hi', max_tokens=2) != '')\n"
        "    tell(child_of(p).pid)\n"
        "    sys.exit()\n"
        "time.sleep(60)\n"
    )
    pid = int(line(program))
    assert line(program) == "forked"
    program.kill()
    assert vanishes(pid)
    _, out, err = finish(program)
    told, worked, own = out.splitlines()
    assert "the process that this one was forked from" in told
    assert worked == "True"
    assert err == ""
    assert vanishes(int(own))


@posix
def test_a_fork_while_the_model_loads_starts_its_own() -> None:
    program = start(
        _FORK + "p = AsyncProvider.local(**SMALL)\n"
        "first = child_of(p)\n"
        "while first.pid is None: time.sleep(0.01)\n"
        "if fork() == 0:\n"
        "    tell(asyncio.run(p.generate_text('Hi', max_tokens=2)) != '', child_of(p).pid != first.pid)\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "tell(asyncio.run(p.generate_text('Hi', max_tokens=2)) != '', child_of(p) is first)\n"
    )
    _, out, err = finish(program, seconds=60)
    assert err == ""
    assert out.splitlines() == ["True True", "True True"]


def test_the_child_ends_with_its_stdin(model: Path) -> None:
    config = {"model": str(model), "name": "m", "key": "k", "mark": "here:", "path": sys.path, **SMALL}
    with subprocess.Popen(
        [sys.executable, "-P", child.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(config).encode() + b"\n")
        process.stdin.flush()
        said = b""
        while b"here:" not in said:
            said = process.stdout.readline()
        assert int(said.split()[1]) > 0
        assert process.poll() is None
        process.stdin.close()
        assert until(lambda: process.poll() is not None, 2)
    assert process.returncode == 0


@pytest.mark.parametrize("address", ["http://0.0.0.0:8080", "http://127.0.0.1:0", "http://127.0.0.1"])
def test_a_child_that_the_network_can_reach_or_that_tells_no_port_is_refused(address: str) -> None:
    with pytest.raises(RuntimeError, match="instead of a port on"):
        child._loopback_port(address)


def test_a_child_that_is_told_nothing_ends() -> None:
    assert subprocess.run([sys.executable, "-P", child.__file__], stdin=subprocess.DEVNULL, timeout=10).returncode == 0
