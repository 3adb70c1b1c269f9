"""The background loop's thread: before it runs, in the moment of a fork, and asked by itself."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from itertools import count

import pytest

from rusty_agent.errors import APIConnectionError
from rusty_agent.sync import thread as thread_module
from rusty_agent.sync.bridge import read_alone
from rusty_agent.sync.loop import new_loop
from rusty_agent.sync.thread import LoopThread, loop_thread

from ...integration.scripts import run
from ...tracing import interrupted


@pytest.fixture(autouse=True)
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a busy machine is never too slow."""
    monkeypatch.setattr(thread_module, "_HOLD_SECONDS", 30)
    monkeypatch.setattr(thread_module, "_EXIT_SECONDS", 30)


posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def test_one_that_does_not_run_yet_is_nobodys_own_and_holds_up_nobody() -> None:
    """`Thread.start` returns before its function has said who it is."""
    thread = LoopThread()
    before = time.monotonic()
    thread.refuse_own_thread()
    thread.hold()()
    thread.stop()
    assert time.monotonic() - before < 10


def test_one_whose_loop_has_broken_down_holds_up_no_fork() -> None:
    thread = LoopThread()
    thread.started = True
    thread.loop = asyncio.new_event_loop()
    thread.loop.close()
    thread.hold()()


def test_it_is_started_once_and_goes_on_after_an_interrupt_and_ends_all_when_it_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thread, begun, ended = LoopThread(), threading.Event(), []

    async def generate() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            ended.append("generator")

    generator = generate()

    async def work() -> None:
        await anext(generator)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    def interrupt() -> None:
        raise KeyboardInterrupt

    thread.start_thread()
    monkeypatch.setattr(threading, "Thread", None)
    thread.start_thread()
    thread.loop.call_soon_threadsafe(interrupt)
    asyncio.run_coroutine_threadsafe(work(), thread.loop)
    assert begun.wait(10)
    thread.stop()
    assert ended == ["task", "generator"]
    assert thread.loop.is_closed()
    assert thread._thread is not None
    assert not thread._thread.is_alive()


def test_a_call_of_a_signal_handler_while_the_first_one_begins_it_shares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LoopThread] = []
    inner: list[LoopThread] = []
    outer: list[LoopThread] = []

    class Interrupted(LoopThread):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            if self is made[0]:
                inner.append(loop_thread())

    monkeypatch.setattr(thread_module, "_current", None)
    monkeypatch.setattr(thread_module, "LoopThread", Interrupted)
    caller = threading.Thread(target=lambda: outer.append(loop_thread()), daemon=True)
    caller.start()
    caller.join(10)
    assert outer == inner != []
    assert [thread.started for thread in made] == [False, True]
    outer[0].stop()


def test_what_keeps_a_loop_from_being_made_is_told_and_the_next_call_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(thread_module, "_current", None)
    with monkeypatch.context() as patch, pytest.raises(APIConnectionError, match="Too many open files"):
        patch.setattr(thread_module, "new_loop", refuse)
        loop_thread()
    thread = loop_thread()
    assert thread.started
    thread.stop()


def test_a_thread_that_cannot_be_started_is_told_and_the_next_call_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers limit threads, too."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(thread_module, "_current", None)
    with monkeypatch.context() as patch, pytest.raises(APIConnectionError, match="can't start new thread"):
        patch.setattr(threading.Thread, "start", refuse)
        loop_thread()
    thread = loop_thread()
    assert thread.started
    thread.stop()


def test_nobody_is_kept_from_starting_it_by_whoever_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own thread may be: a `__del__` that is run there makes a call."""
    free = []

    def look() -> asyncio.AbstractEventLoop:
        free.append(thread_module._starting.acquire(timeout=1))
        thread_module._starting.release()
        return new_loop()

    monkeypatch.setattr(thread_module, "_current", None)
    monkeypatch.setattr(thread_module, "new_loop", look)
    loop_thread().stop()
    assert free == [True]


def test_a_call_of_the_garbage_collectors_while_its_loop_is_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for whoever waits for that loop."""
    made: list[LoopThread] = []

    def collect() -> asyncio.AbstractEventLoop:
        with pytest.raises(RuntimeError, match="own event loop thread"):
            loop_thread()
        return new_loop()

    monkeypatch.setattr(thread_module, "_current", None)
    monkeypatch.setattr(thread_module, "_starting", threading.RLock())  # or all other tests would hang, too
    monkeypatch.setattr(thread_module, "new_loop", collect)
    caller = threading.Thread(target=lambda: made.append(loop_thread()), daemon=True)
    caller.start()
    caller.join(10)
    assert made
    made[0].stop()


@posix
@pytest.mark.parametrize("fast", [False, True])
def test_too_many_open_files_are_an_error_wherever_they_are_too_many(fast: bool) -> None:
    """libuv aborts the process where it can open some of what it needs, but not all."""
    if fast:
        pytest.importorskip("uvloop")
    for left in range(8):
        ended = run(
            "",
            f"""
            import resource
            from rusty_agent.sync import loop, thread
            if not {fast}:
                loop._FastLoop = loop._Loop
            resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
            taken = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for _ in range({left}):
                os.close(taken.pop())
            try:
                thread.loop_thread()
            except OSError as error:
                print(repr(error.__cause__))
            for one in taken:
                os.close(one)
            """,
        )
        assert (ended.code, ended.err, ended.out) == (0, "", "OSError(24, 'Too many open files')\n")


def test_nobody_waits_for_it_when_python_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = loop_thread()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "is_finalizing", lambda: True)
        with pytest.raises(RuntimeError, match="shutting down"):
            thread.refuse_when_over()


def test_it_stands_still_until_it_is_let_go() -> None:
    thread, moved, worked = loop_thread(), threading.Event(), threading.Event()

    def work() -> None:
        time.sleep(0.1)
        worked.set()

    thread.loop.call_soon_threadsafe(work)
    go_on = thread.hold()
    assert worked.is_set()  # it stands between two steps: whatever lock this one held is free
    thread.loop.call_soon_threadsafe(moved.set)
    assert not moved.wait(0.1)
    go_on()
    assert moved.wait(5)


def test_ctrl_c_while_it_is_made_to_stand_still_lets_it_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for a lock that nobody releases, and every call for it."""
    monkeypatch.setattr(thread_module, "_HOLD_SECONDS", 0.001)
    thread = LoopThread()
    thread.start_thread()
    for step in count(1):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), thread.loop).result(10)
        if not interrupted(step, thread.hold):
            break
    assert step > 1
    thread.stop()


def test_it_is_not_held_by_itself() -> None:
    """A fork in a hook would wait for as long as it may."""
    thread = loop_thread()

    async def hold() -> Callable[[], None]:
        return thread.hold()

    asyncio.run_coroutine_threadsafe(hold(), thread.loop).result(10)()


def test_a_reader_on_the_loops_own_thread_is_refused() -> None:
    """It would wait for itself, for ever; the stream may have been made elsewhere."""
    thread, lost = loop_thread(), []

    async def read() -> None:
        read_alone("stream", thread, threading.Lock(), lambda: lost.append("read"), lambda: lost.append("lost"))

    with pytest.raises(RuntimeError, match="own event loop thread"):
        asyncio.run_coroutine_threadsafe(read(), thread.loop).result(5)
    assert lost == []


@posix
def test_a_fork_before_the_first_call() -> None:
    ended = run(
        "",
        """
        from rusty_agent.sync.thread import loop_thread
        child = os.fork()
        print(loop_thread().started, flush=True)
        if not child:
            sys.exit(0)
        print(os.waitpid(child, 0)[1])
        """,
    )
    assert (ended.out, ended.err) == ("True\nTrue\n0\n", "")


@posix
def test_the_loop_stands_still_while_a_fork_is_made() -> None:
    """And a child, in which nobody stands still, keeps nothing of it: its locks may be held for ever."""
    ended = run(
        "",
        """
        import threading
        def moves(seconds):
            moved = threading.Event()
            loop.call_soon_threadsafe(moved.set)
            return moved.wait(seconds)
        def before():
            print(moves(0.1), flush=True)
        from rusty_agent.sync import thread
        thread._HOLD_SECONDS = 30
        loop = thread.loop_thread().loop
        child = os.fork()
        if not child:
            print(thread._held, flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], moves(5), thread._held)
        """,
        before="os.register_at_fork(before=lambda: before())",  # such a hook that is older runs later
    )
    assert (ended.out, ended.err) == ("False\n{}\n0 True {}\n", "")


@posix
@pytest.mark.parametrize(
    ("loop", "end"),
    [("SelectorEventLoop", "raise SystemExit"), ("SelectorEventLoop", "return None"), ("Loop", "return None")],
)
def test_a_fork_in_a_signal_handler_while_the_first_call_begins_leaves_the_parents_loop_alone(
    loop: str, end: str
) -> None:
    """At any step: what a child runs of a loop, or destroys, it takes from the selector that both share."""
    module = "uvloop" if loop == "Loop" else "asyncio"
    pytest.importorskip(module)
    ended = run(
        "",
        f"""
        import asyncio, gc, {module}
        from contextlib import suppress
        from itertools import count
        from rusty_agent.sync import thread
        thread.new_loop = {module}.{loop}
        parent = os.getpid()
        def forked(step):
            steps = 0
            def trace(frame, *_):
                nonlocal steps
                if frame.f_globals.get("__name__", "").startswith("rusty_agent"):
                    steps += 1
                    if steps == step:
                        sys.settrace(None)
                        if not os.fork():
                            {end}
                    return trace
            sys.settrace(trace)
            try:
                return thread.loop_thread(), steps >= step
            finally:
                sys.settrace(None)
        def moves(made, seconds):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), made.loop).result(seconds)
        for step in count(1):
            thread._current = made = None
            with suppress(SystemExit):
                made, again = forked(step)
            if os.getpid() != parent:
                if made is not None:
                    with suppress(TimeoutError):
                        moves(made, 0.1)
                gc.collect()  # the child has let go of all that it was about
                os._exit(0)
            if not again:
                break
            os.wait()
            moves(made, 10)
            made.stop()
        print(step > 10)
        """,
    )
    assert (ended.out, ended.err) == ("True\n", "")
