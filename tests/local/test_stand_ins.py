"""The model's process in states that no real one is in for long: a script stands in for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from yarl import URL

from rusty_agent import APIConnectionError, APITimeoutError, AsyncProvider, LocalModelError, Provider, RustyAgentError
from rusty_agent.local import process, transport
from rusty_agent.local.process import Child, ServerOptions
from rusty_agent.local.server import LocalServer, _after_fork
from rusty_agent.sync import bridge, provider

from ..captured import captured
from ..processes import finish
from .process import line, pid_of, start, vanishes

pytestmark = pytest.mark.usefixtures("runtime", "unmeasured")

OPTIONS = ServerOptions(threads=1, context=512, parallel=1, start_timeout=60)
_LOADING = "import json, sys; config = json.loads(sys.stdin.readline())"
_LOADED = f"{_LOADING}; print(config['mark'], 1, flush=True)"


def _stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    script = folder / "child.py"
    script.write_text(f"{code}; sys.stdin.read()")
    monkeypatch.setattr(process, "_SCRIPT", script)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is never ready."""
    _stand_in(monkeypatch, tmp_path, _LOADING)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is ready at once, on port 1."""
    _stand_in(monkeypatch, tmp_path, _LOADED)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python lends no threads, as once the main one has ended; other threads and exit handlers go on."""
    monkeypatch.setattr("concurrent.futures.thread._shutdown", True)


@pytest.mark.usefixtures("loaded", "no_threads")
async def test_it_is_stopped_where_python_lends_no_threads_any_more(gguf: Path) -> None:
    async with AsyncProvider.local(gguf) as llm:
        pid = pid_of(llm)
    assert vanishes(pid)


@pytest.mark.parametrize("state", ["loads", "closed"])
async def test_no_captured_local_shows_the_headers_of_a_call_that_fails(
    state: str, gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _stand_in(monkeypatch, tmp_path, "import sys; sys.exit('bad file')" if state == "loads" else _LOADED)
    llm = AsyncProvider.local(gguf)
    if state == "closed":
        await llm.aclose()
    with pytest.raises(RustyAgentError) as caught:
        await llm.generate_text("hi", extra_headers={"Authorization": "Bearer key-of-a-call"})
    assert "key-of-a-call" not in captured(caught.value)
    await llm.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
async def test_one_that_does_not_end_when_asked_is_killed(
    gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "_STOP_SECONDS", 0.1)
    _stand_in(monkeypatch, tmp_path, f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {_LOADED}")
    async with AsyncProvider.local(gguf) as llm:
        pid = pid_of(llm)
    assert vanishes(pid)


@pytest.mark.usefixtures("loaded", "no_threads")
async def test_its_end_is_told_where_python_lends_no_threads_any_more(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_DYING_SECONDS", 30)
    async with AsyncProvider.local(gguf) as llm:
        os.kill(pid_of(llm), signal.SIGTERM)
        told = await llm._calls.transport.diagnose(APIConnectionError("broke"), URL("http://127.0.0.1:1"))
    assert isinstance(told, LocalModelError)


@pytest.mark.usefixtures("loading")
async def test_the_limit_of_the_whole_call_holds_while_it_loads(gguf: Path) -> None:
    async with asyncio.timeout(10):
        llm = AsyncProvider.local(gguf)
        with pytest.raises(APITimeoutError, match="total limit"):
            await llm.generate_text("Hi", timeout=0.05)
        await llm.aclose()


@pytest.mark.usefixtures("loading")
async def test_a_block_that_is_not_entered_leaves_no_process(gguf: Path) -> None:
    """Whoever gives up entering it may keep the provider, or the error, whose traceback does."""
    llm = AsyncProvider.local(gguf)
    entering = asyncio.create_task(llm.__aenter__())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(llm.generate_text("Hi"))
    pid = await asyncio.to_thread(pid_of, llm)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert vanishes(pid)
    with pytest.raises((LocalModelError, APIConnectionError), match="closed"):
        await waiting


@pytest.mark.usefixtures("loading")
async def test_closing_asks_it_to_end_before_anything_else(gguf: Path) -> None:
    """Its caller may be cancelled, as while all of Python's threads are taken."""
    loop, go_on = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        llm = AsyncProvider.local(gguf)
        pid = pid_of(llm)
        loop.set_default_executor(threads)
        threads.submit(go_on.wait, 30)
        closing = asyncio.create_task(llm.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        gone = vanishes(pid)
        go_on.set()
    assert gone


@pytest.mark.usefixtures("loading")
def test_ctrl_c_while_it_loads_stops_it(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def interrupted(function: Any) -> Any:
        if pids:
            return bridge.run(function)
        pids.append(pid_of(function.__self__))
        raise KeyboardInterrupt

    monkeypatch.setattr(provider, "run", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        Provider.local(gguf)
    assert vanishes(pids[0])
    del caught  # a shell keeps its traceback, and so the provider


@pytest.mark.usefixtures("loading")
def test_the_limit_of_loading_holds_where_it_passes_before_there_is_a_process(gguf: Path) -> None:
    class Late(Child):
        def _spawn(self) -> subprocess.Popen[bytes]:
            self._give_up()
            return super()._spawn()

    late = Late(gguf, "key", OPTIONS)
    late.settled.result(10)
    assert "not ready within 60 s" in str(late.error())


def test_the_limit_of_loading_holds_for_one_that_talks(
    gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _stand_in(monkeypatch, tmp_path, f"{_LOADING}; print('a word of the runtime', flush=True)")
    late = Child(gguf, "key", attrs.evolve(OPTIONS, start_timeout=1))
    late.settled.result(10)
    assert "not ready within 1 s" in str(late.error())


def test_whatever_keeps_it_from_starting_is_told(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that embeds Python may have no `sys.executable`."""
    monkeypatch.setattr(sys, "executable", None)
    never = Child(gguf, "key", OPTIONS)
    never.settled.result(10)
    assert "could not be started with None" in str(never.error())


def test_why_the_runtime_fails_is_told(gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    failed = Child(gguf, "key", OPTIONS)
    failed.settled.result(10)
    assert "exit code 1. It said: «ImportError: libgomp.so.1 is missing»" in str(failed.error())


@pytest.mark.usefixtures("loaded")
async def test_a_thread_that_cannot_be_started_is_told_and_the_next_call_tries_again(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    llm = AsyncProvider.local(gguf)
    with monkeypatch.context() as patch, pytest.raises(LocalModelError, match="can't start new thread"):
        patch.setattr(threading.Thread, "start", refuse)
        await llm.generate_text("Hi")
    async with llm:
        assert pid_of(llm)


def test_one_that_was_stopped_is_not_started_again(gguf: Path) -> None:
    server = LocalServer(gguf, "key", OPTIONS)
    server.stop()
    with pytest.raises(LocalModelError, match="stopped along with its provider"):
        server.child()


def test_one_is_found_while_another_one_begins(gguf: Path) -> None:
    class Found:
        @property
        def port(self) -> None:
            children.append(self)

    server = LocalServer(gguf, "key", OPTIONS)
    children: Any = server._children
    children.extend([Found(), Found()])
    assert server.find(1) is None
    children.clear()


def test_a_fork_takes_no_lock_that_a_thread_of_its_parent_holds(gguf: Path) -> None:
    server = LocalServer(gguf, "key", OPTIONS)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(server._lock.acquire).result()
        _after_fork()
        assert server._lock.acquire(blocking=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_fork_while_it_is_being_started_hides_its_end_from_nobody(tmp_path: Path) -> None:
    """The pipes that it would inherit are open before the `Child` knows of them, and stay open in it."""
    script = tmp_path / "child.py"
    script.write_text(f"{_LOADED}; sys.stdin.read()")
    program = start(
        f"""
import threading
from pathlib import Path
from rusty_agent.local import process
warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
begun, forked, pipes, make_pipe = threading.Event(), threading.Event(), [], os.pipe
def pipe():
    pipes.append(make_pipe())
    if len(pipes) == 2:  # its standard input and output
        begun.set()
        forked.wait(0.3)
    return pipes[-1]
os.pipe = pipe
process._FORK_SECONDS = 30
process._SCRIPT = Path({str(script)!r})
options = process.ServerOptions(threads=1, context=512, parallel=1, start_timeout=60)
mine = process.Child(Path("m.gguf"), "key", options)
begun.wait(10)
fork = os.fork()
if not fork:
    time.sleep(60)
    os._exit(0)
forked.set()
mine.settled.result(10)
os.kill(mine.pid, signal.SIGKILL)
tell(mine.gone_within(10))
os.kill(fork, signal.SIGKILL)
os.waitpid(fork, 0)
"""
    )
    assert finish(program) == (0, "True\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends no child with its parent")
def test_it_ends_with_a_program_that_is_killed_while_loading_stops_its_threads(tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    (tmp_path / "xllamacpp.py").write_text(
        "import ctypes\n"
        "from unittest.mock import MagicMock as CommonParams\n"
        "def Server(params):\n"
        f"    open({str(loads)!r}, 'w').close()\n"
        "    ctypes.PyDLL(None).sleep(60)\n"  # with Python's lock
    )
    program = start(
        f"""
from pathlib import Path
from rusty_agent.local import process
sys.path.insert(0, {str(tmp_path)!r})
options = process.ServerOptions(threads=1, context=512, parallel=1, start_timeout=60)
mine = process.Child(Path("m.gguf"), "key", options)
while not os.path.exists({str(loads)!r}):
    time.sleep(0.01)
tell(mine.pid)
time.sleep(60)
"""
    )
    pid = int(line(program))
    program.kill()
    assert vanishes(pid)
    finish(program)
