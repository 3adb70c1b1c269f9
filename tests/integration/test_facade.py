"""The blocking face where blocking faces break: threads, notebooks, forks, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NoReturn

import pytest

from rusty_agent import AttemptReport, NotFoundError, Provider, RetryPolicy, RustyAgentError, TextStream
from rusty_agent.sync import bridge, many
from rusty_agent.sync import stream as stream_module
from rusty_agent.sync.bridge import Crossing
from rusty_agent.sync.loop import new_loop
from rusty_agent.sync.thread import loop_thread
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, Received, answer, completion, error, stream
from rusty_agent.testing.answers import Step, chunk, event, events

from ..events import until
from ..processes import STRICT, finish
from .answers import FAILS_LATE, STARTED
from .faces import Serve
from .scripts import run, start

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and fork")


def provider(server: FaultServer) -> Provider:
    return Provider("m", api_key="k" * 8, base_url=server.url)


def echo(request: Received) -> Answer:
    """Answer with the prompt, streamed in three pieces or whole."""
    text = request.json["messages"][-1]["content"]
    if request.json.get("stream"):
        return stream(text[:2], text[2:4], text[4:])
    return answer(completion(text))


def test_64_threads_share_one_provider(serve: Serve) -> None:
    shared = provider(serve(echo))

    def work(number: int) -> bool:
        prompt = f"prompt {number}"
        return shared.generate_text(prompt) == "".join(shared.stream_text(prompt)) == prompt

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(work, range(256)))
    assert sum(thread.name == "rusty-agent" for thread in threading.enumerate()) == 1


async def test_inside_a_running_loop_as_in_a_notebook(serve: Serve) -> None:
    shared = provider(serve())
    assert shared.generate_text("hi") == "Hello world"
    assert list(shared.stream_text("hi")) == ["Hello", " world"]


def test_a_blocking_call_on_the_loops_own_thread_is_refused(serve: Serve) -> None:
    shared = provider(serve())
    refused: list[BaseException] = []

    def hook(_: AttemptReport) -> None:
        for call in (lambda: shared.generate_text("hi"), lambda: list(shared.stream_text("hi"))):
            try:
                call()
            except RuntimeError as error:
                refused.append(error)

    shared.generate_text("hi", retry=RetryPolicy(on_attempt=hook))
    assert ["own event loop thread" in str(error) for error in refused] == [True, True]


def test_context_variables_travel_with_the_call(serve: Serve) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []
    variable.set("the caller's")
    policy = RetryPolicy(on_attempt=lambda _: seen.append(variable.get()))
    shared = provider(serve())
    shared.generate_text("hi", retry=policy)
    list(shared.stream_text("hi", retry=policy))
    assert seen == ["the caller's"] * 2


def test_the_consumer_is_woken_once_per_arrival(serve: Serve) -> None:
    """A burst of a thousand tokens crosses in a few arrivals, not in a thousand."""
    burst = b"".join(events(*["x"] * 1000))
    opened = provider(serve(answer([burst], content_type="text/event-stream", framing="chunked"))).stream_text("hi")
    time.sleep(0.1)
    assert opened._handover._arrivals.qsize() < 10
    assert len(list(opened)) == 1000


def test_a_slow_consumer_holds_the_server_back(serve: Serve) -> None:
    """At most the hand-over's bound and aiohttp's buffer are read ahead, of 64 MB that the server would send."""
    sent: list[int] = []
    block = b"".join(events(*["x" * 1000] * 100, done=False, finish_reason=None, usage=False))

    class Counting(bytes):
        def __len__(self) -> int:
            sent.append(1)
            return super().__len__()

    server = serve(Answer((b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *[Counting(block)] * 500), close=True))
    opened = provider(server).stream_text("hi")
    assert len(next(opened)) == 1000
    before = 0
    while len(sent) > before:  # until the server is stuck in its write
        before = len(sent)
        time.sleep(0.3)
    assert opened._stream._attempt is not None
    assert len(opened.partial_text) < 4 * 2**20
    opened.close()


def test_a_slow_consumer_holds_the_server_back_also_when_an_event_takes_several_reads(serve: Serve) -> None:
    begin, end = event(chunk({"content": "x" * 2**20})).split(b'"}', 1)
    steps: list[Step] = [begin, Pause(0.005), b'"}' + end, Pause(0.005)] * 100
    server = serve(Answer((b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *steps), close=True))
    opened = provider(server).stream_text("hi")
    assert len(next(opened)) == 2**20
    time.sleep(0.5)
    assert opened._stream._received < 4 * 2**20
    opened.close()


_THREADS_PATCHED = "import _thread; start = _thread.start_new_thread; _thread.start_new_thread = lambda *a: start(*a)"


@pytest.mark.parametrize("before", ['sys.modules["uvloop"] = None', _THREADS_PATCHED], ids=["missing", "greenlets"])
def test_uvloop_is_left_out_where_it_is_missing_or_threads_are_greenlets(serve: Serve, before: str) -> None:
    """A greenlet of gevent or eventlet on a loop of libuv's lets no other one run."""
    ended = run(
        serve().url,
        """
        print(Provider("m", base_url=URL).generate_text("hi"))
        loop = sys.modules["rusty_agent.sync.thread"].loop_thread().loop
        print(type(loop).__bases__[-1].__module__.split(".")[0])
        """,
        before=before,
    )
    assert (ended.out, ended.err) == ("Hello world\nasyncio\n", "")


@posix
@pytest.mark.parametrize("flags", [(), STRICT], ids=["plain", "strict"])
@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
@pytest.mark.usefixtures("unmeasured")
def test_a_forked_child_uses_the_parents_provider(serve: Serve, how: str, flags: tuple[str, ...]) -> None:
    program = (
        """
        provider = Provider("m", base_url=URL)
        print(provider.generate_text("hi"), flush=True)
        opened = provider.stream_text("slow")  # open while the child is made
        def work():
            print(provider.generate_text("hi"), *provider.stream_text("hi"), sep="|", flush=True)
            try:
                print(list(opened))
            except RuntimeError as error:
                print("parent process" in str(error), flush=True)
    """
        + (
            """
        child = os.fork()
        if not child:
            work()
            sys.exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
        """
            if how == "os.fork"
            else """
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join()
        print(child.exitcode, flush=True)
        """
        )
        + """
        print(*opened, provider.generate_text("hi"), sep="|")
    """
    )

    def script(request: Received) -> Answer:
        body = request.json
        if not body.get("stream"):
            return answer(completion())
        return stream("Hello", " world", gap=0.15 if body["messages"][0]["content"] == "slow" else 0)

    ended = run(serve(script).url, program, *flags)
    assert ended.err == ""
    assert ended.out.splitlines() == [
        "Hello world",
        "Hello world|Hello| world",
        "True",
        "0",
        "Hello| world|Hello world",
    ]


@posix
@pytest.mark.usefixtures("unmeasured")
def test_forks_while_other_threads_call(serve: Serve) -> None:
    """A lock of the facade may be held by another thread in the moment of the fork."""
    ended = run(
        serve().url,
        """
        import threading
        provider = Provider("m", base_url=URL)
        stop = False
        def work():
            while not stop:
                provider.generate_text("hi")
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        codes = []
        for _ in range(20):
            child = os.fork()
            if not child:
                os._exit(0 if provider.generate_text("hi") == "Hello world" else 1)
            codes.append(os.waitpid(child, 0)[1])
        stop = True
        for thread in threads:
            thread.join()
        print(codes == [0] * 20)
        """,
    )
    assert (ended.out, ended.err) == ("True\n", "")


@posix
@pytest.mark.parametrize("call", ["generate_text", "stream_text"])
@pytest.mark.parametrize("when", ["silent", "streaming"])
@pytest.mark.usefixtures("unmeasured")
def test_ctrl_c_interrupts_a_call_and_closes_its_connection(serve: Serve, call: str, when: str) -> None:
    server = serve(
        Answer((Hang(),))
        if when == "silent"
        else answer([events("a")[1], Hang()], content_type="text/event-stream", framing="cut")
    )
    child = start(
        server.url,
        f"""
        try:
            for piece in Provider("m", base_url=URL).{call}("hi"):
                print(piece, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        *STRICT,
    )
    request = server.wait_for(1, 20)[0]
    assert child.stdout is not None
    if when == "streaming" and call == "stream_text":
        assert child.stdout.readline() == b"a\n"
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    assert request.gone.wait(10)
    assert child.stdout.readline() == b"interrupted\n"
    assert finish(child).err == ""


@pytest.mark.usefixtures("unmeasured")
def test_spawned_processes_work(serve: Serve) -> None:
    ended = run(
        serve().url,
        """
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing
        provider = Provider("m", base_url=URL)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            print(pool.submit(len, "abc").result())
        print(provider.generate_text("hi"))
        """,
    )
    assert (ended.out, ended.err) == ("3\nHello world\n", "")


async def test_several_loops_at_once(serve: Serve) -> None:
    from rusty_agent import AsyncProvider

    server = serve(echo)
    shared = AsyncProvider("m", api_key="k" * 8, base_url=server.url)

    def in_a_loop_of_its_own(number: int) -> list[str]:
        async def main() -> list[str]:
            return await asyncio.gather(*(shared.generate_text(f"{number}-{i}") for i in range(8)))

        return asyncio.run(main())

    here = asyncio.gather(*(shared.generate_text(f"h-{i}") for i in range(8)))
    there = await asyncio.gather(*(asyncio.to_thread(in_a_loop_of_its_own, number) for number in range(4)))
    assert await here == [f"h-{i}" for i in range(8)]
    assert there == [[f"{number}-{i}" for i in range(8)] for number in range(4)]
    await shared.aclose()


def test_one_loop_thread_however_many_threads_start_it(serve: Serve) -> None:
    barrier = threading.Barrier(32)

    def get() -> object:
        barrier.wait()
        return loop_thread()

    with ThreadPoolExecutor(32) as pool:
        assert len({id(thread) for thread in pool.map(lambda _: get(), range(32))}) == 1
    assert os.getpid() == loop_thread().process


@pytest.mark.parametrize("call", ["generate_text", "stream_text"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_while_a_call_begins_leaves_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, call: str, when: str
) -> None:
    server = serve(Answer((Hang(),)))
    begin = Crossing.begin

    def interrupted(crossing: Crossing[object]) -> None:
        if when == "after":
            begin(crossing)
            server.wait_for(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Crossing, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:  # a notebook keeps its traceback, and all that this refers to
        getattr(provider(server), call)("hi")
    if when == "after":
        assert server.requests[0].gone.wait(10)
    del caught
    gc.collect()  # an unfinished coroutine would complain
    assert len(server.requests) == (when == "after")


@pytest.mark.parametrize(
    "ask",
    [
        lambda shared: shared.generate_text("hi"),
        lambda shared: list(shared.stream_text("hi")),
        lambda shared: list(shared.map(["hi"])),
    ],
    ids=["generate_text", "stream_text", "map"],
)
def test_ctrl_c_goes_on_when_the_call_has_been_cleaned_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Provider], object]
) -> None:
    """Or what the call shows and logs at its end would come after the traceback."""
    server = serve(Answer((Hang(),)))
    shared = provider(server)

    def interrupted(*_: object) -> NoReturn:
        server.wait_for(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(bridge, "_CLEAN_UP_SECONDS", 10)
    monkeypatch.setattr(bridge, "_get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(shared)
    assert shared._core._calls.under_way == set()


def test_an_error_goes_with_its_handler(serve: Serve) -> None:
    """Without a garbage collection: it holds what had arrived."""
    shared = provider(serve(error(404)))
    gc.disable()
    try:
        try:
            shared.generate_text("hi")
        except NotFoundError as raised:
            kept = weakref.ref(raised)
        enough = time.monotonic() + 5
        while kept() is not None and time.monotonic() < enough:  # the loop's thread may have to let go of it first
            time.sleep(0.01)
        assert kept() is None
    finally:
        gc.enable()


def read_and_leave(opened: TextStream) -> None:
    for _ in opened:
        break


def read_a_closed_one(opened: TextStream) -> None:
    opened.open()
    opened.close()
    opened.result()


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (error(404), TextStream.result),
        (FAILS_LATE, TextStream.result),
        (STARTED, read_and_leave),
        (STARTED, read_a_closed_one),
    ],
    ids=["failed", "failed late", "left", "closed"],
)
def test_a_stream_that_did_not_end_well_goes_at_once(
    serve: Serve, sent: Answer, read: Callable[[TextStream], object]
) -> None:
    """Without a garbage collection: it holds what had arrived, and its error all that it came through."""
    shared = provider(serve(sent))
    gc.disable()
    try:
        opened = shared.stream_text("hi")
        for _ in range(2):
            with suppress(RustyAgentError):
                read(opened)
        kept: list[weakref.ref[Any]] = [weakref.ref(opened), weakref.ref(opened._stream)]
        del opened
        until(lambda: [each() for each in kept] == [None, None])  # the loop's thread may have to let go of it first
    finally:
        gc.enable()


def test_ctrl_c_while_a_part_is_made_makes_no_noise(server: FaultServer) -> None:
    blocking = provider(server)
    parts: tuple[object, ...] = (
        blocking._core._calls.transport,
        aiter(blocking._core.stream_text("hi")),
        iter(blocking.stream_text("hi")),
        blocking.map(iter(["hi"])),
    )
    for part in parts:
        object.__new__(type(part))  # dropped at once; what its `__del__` raises would fail this test


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_while_the_loop_begins_leaves_one(serve: Serve, when: str) -> None:
    ended = run(
        serve().url,
        f"""
        import threading
        start = threading.Thread.start
        def interrupted(thread):
            if {when!r} == "after":
                start(thread)
            raise KeyboardInterrupt
        provider = Provider("m", base_url=URL)
        threading.Thread.start = interrupted
        try:
            provider.generate_text("hi")
        except KeyboardInterrupt:
            threading.Thread.start = start
        print(provider.generate_text("hi"), *provider.stream_text("hi"), sep="|")
        print(sum(thread.name == "rusty-agent" for thread in threading.enumerate()))
        """,
        *STRICT,
        before="import warnings; warnings.simplefilter('ignore', RuntimeWarning)",  # of the coroutine never begun
    )
    assert (ended.out, ended.err) == ("Hello world|Hello| world\n1\n", "")


@pytest.mark.parametrize("call", ["generate_text", "stream_text"])
def test_a_loop_that_breaks_down_is_replaced(serve: Serve, call: str) -> None:
    """As when a program closes all descriptors, those that it does not know included."""
    ended = run(
        serve(lambda request: Answer((Hang(),)) if b"hang" in request.body else answer(completion())).url,
        f"""
        import threading, time
        threading.excepthook = lambda _: None  # shows what has ended a thread
        loop = sys.modules["rusty_agent.sync.thread"].loop_thread().loop
        def break_down(*_):
            raise OSError("bad descriptor")
        provider = Provider("m", base_url=URL)
        def soon():
            while not provider._core._calls.under_way:
                time.sleep(0.01)
            time.sleep(0.2)
            loop._selector.select = break_down
            loop.call_soon_threadsafe(int)
        threading.Thread(target=soon).start()
        try:
            list(provider.{call}("hang"))
        except RuntimeError as error:
            print(error)
        print(provider.generate_text("hi"))
        """,
        before='sys.modules["uvloop"] = None',
    )
    said = "rusty_agent's event loop has ended: it is too late to wait for an answer.\n"
    assert (ended.out, ended.err) == (f"{said}Hello world\n", "")


@pytest.mark.parametrize("call", ["generate_text", "stream_text"])
def test_ctrl_c_in_the_moment_in_which_a_wait_begins(serve: Serve, call: str) -> None:
    """Such a signal does not interrupt the wait; nor does `interrupt_main`."""
    ended = run(
        serve(Answer((Hang(),))).url,
        f"""
        import _thread, threading
        try:
            threading.Timer(0.3, _thread.interrupt_main).start()
            list(Provider("m", base_url=URL).{call}("hi"))
        except KeyboardInterrupt as error:
            print("interrupted", error.__context__)
        """,
    )
    assert (ended.out, ended.err) == ("interrupted None\n", "")


@posix
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_forked_child_that_ends_normally(serve: Serve, loop: str) -> None:
    """The parent's loop has looked a name up: uvloop would have done so in threads that the child waits for at exit."""
    ended = run(
        serve().url.replace("127.0.0.1", "localhost"),
        """
        provider = Provider("m", base_url=URL)
        print(provider.generate_text("hi"), flush=True)
        codes = []
        for _ in range(5):
            child = os.fork()
            if not child:
                sys.exit(0)
            codes.append(os.waitpid(child, 0)[1])
        print(codes)
        """,
        before='sys.modules["uvloop"] = None' if loop == "asyncio" else "",
    )
    assert (ended.out, ended.err) == ("Hello world\n[0, 0, 0, 0, 0]\n", "")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.usefixtures("unmeasured")
def test_a_name_server_that_does_not_answer_does_not_hold_up_the_exit(loop: str) -> None:
    ended = run(
        "http://nowhere.invalid/v1",
        """
        import socket, time
        socket.getaddrinfo = lambda *_: time.sleep(60)
        try:
            Provider("m", base_url=URL, timeout=0.2).generate_text("hi")
        except APITimeoutError as error:
            print(error.limit)
        """,
        *STRICT,
        before='sys.modules["uvloop"] = None' if loop == "asyncio" else "",
    )
    assert (ended.out, ended.err) == ("total\n", "")


def test_the_loops_look_ups() -> None:
    async def look_up() -> None:
        loop = asyncio.get_running_loop()
        for host in ("127.0.0.1", "localhost"):
            found = await loop.getaddrinfo(host, 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
            assert found[0][4] == ("127.0.0.1", 80)
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        assert await loop.getnameinfo(("127.0.0.1", 80), numeric) == ("127.0.0.1", "80")
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("nowhere.invalid", 80)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(look_up())


@pytest.mark.parametrize("module", [stream_module, many])
def test_whoever_comes_to_read_as_another_thread_reads_the_end_does_not_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    provider = Provider("m", api_key="sk-test-0123456789", base_url=serve().url)
    source = provider.map(["hi"]) if module is many else provider.stream_text("hi")
    read_alone, left = module.read_alone, []

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(module, "read_alone", read_alone)
        assert list(source)  # in this very moment
        return read_alone(*arguments)

    monkeypatch.setattr(module, "read_alone", late)
    reader = threading.Thread(target=lambda: left.append(list(source)), daemon=True)
    reader.start()
    reader.join(10)
    assert left == [[]]
