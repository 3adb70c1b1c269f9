"""Programs end quietly, and long before what they left open would (`finish` waits 20 s for them)."""

from __future__ import annotations

import pytest

from rusty_agent.testing import Hang, answer, completion, stream
from rusty_agent.testing.answers import events

from ..processes import STRICT
from .faces import Serve
from .scripts import run

pytestmark = pytest.mark.usefixtures("unmeasured")

ENDLESS = stream(*"abcdefghij" * 1000, gap=0.01)
LATE_END = answer([*events("a"), Hang()], content_type="text/event-stream", framing="cut")

ASYNC = """
import asyncio
provider = AsyncProvider("m", base_url=URL)
"""
DEAF = """
import logging, socket, time
logging.getLogger("asyncio").setLevel("ERROR")  # a step with so long a prompt may be slow, which is no matter here
deaf = socket.create_server(("127.0.0.1", 0))  # lets clients connect, and reads nothing
URL = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
deaf.detach()
LONG = "x" * 8_000_000
"""
PROGRAMS = {
    "an upload that is stuck, at the end of asyncio.run": (
        None,
        DEAF
        + ASYNC
        + """
async def main():
    global task
    task = asyncio.create_task(provider.generate_text(LONG))
    await asyncio.sleep(0.1)
    print("over")
asyncio.run(main())
""",
        "over\n",
    ),
    "an upload that is stuck, left by a timeout and a block": (
        None,
        DEAF
        + ASYNC
        + """
async def main():
    async with provider:
        try:
            await asyncio.wait_for(provider.generate_text(LONG), 0.1)
        except TimeoutError:
            print("timeout")
asyncio.run(main())
""",
        "timeout\n",
    ),
    "a blocking upload that is stuck, at exit": (
        None,
        DEAF
        + """
stream = Provider("m", base_url=URL).stream_text(LONG)
time.sleep(0.1)
print("over")
""",
        "over\n",
    ),
    "asyncio.run twice with one provider": (
        None,
        ASYNC
        + """
for _ in range(2):
    print(asyncio.run(provider.generate_text("hi")))
""",
        "Hello world\nHello world\n",
    ),
    "a provider that is dropped inside the loop": (
        None,
        """
import asyncio
async def main():
    return await AsyncProvider("m", base_url=URL).generate_text("hi")
print(asyncio.run(main()))
""",
        "Hello world\n",
    ),
    "many providers, none closed": (
        None,
        """
import asyncio
async def main():
    for _ in range(50):
        await AsyncProvider("m", base_url=URL).generate_text("hi")
    print(len(os.listdir("/proc/self/fd")) < 30 if sys.platform == "linux" else True)
asyncio.run(main())
""",
        "True\n",
    ),
    "an open stream at the end of asyncio.run": (
        ENDLESS,
        ASYNC
        + """
async def main():
    global stream
    stream = provider.stream_text("hi")
    print(await anext(stream))
asyncio.run(main())
""",
        "a\n",
    ),
    "an open iterator at the end of asyncio.run": (
        ENDLESS,
        ASYNC
        + """
async def main():
    global iterator
    iterator = aiter(provider.stream_text("hi"))
    print(await anext(iterator))
asyncio.run(main())
""",
        "a\n",
    ),
    "runs that were left, at the end of asyncio.run": (  # which closes generators in any order: in most, the wrong one
        None,
        ASYNC
        + """
kept = []
async def main(concurrency):
    kept.append(provider.map(["hi"] * 60, concurrency=concurrency))
    async for item in kept[-1]:
        break
for _ in range(5):
    asyncio.run(main(2))
    asyncio.run(main("auto"))
print("over")
""",
        "over\n",
    ),
    "a pending task at the end of asyncio.run": (
        ENDLESS,
        ASYNC
        + """
async def main():
    task = asyncio.create_task(provider.stream_text("hi").result())
    await asyncio.sleep(0.1)
    print("over")
asyncio.run(main())
""",
        "over\n",
    ),
    "a body that lingers after its end mark": (
        LATE_END,
        ASYNC
        + """
print(asyncio.run(provider.generate_text("hi", stream=True)))
""",
        "a\n",
    ),
    "a loop that is closed without ceremony": (
        None,
        ASYNC
        + """
loop = asyncio.new_event_loop()
print(loop.run_until_complete(provider.generate_text("hi")))
loop.close()
import warnings
warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, for the socket that the program left to it
""",
        "Hello world\n",
    ),
    "a blocking provider, never closed": (
        None,
        """
provider = Provider("m", base_url=URL)
print(provider.generate_text("hi"))
print(*provider.stream_text("hi"), sep="|")
""",
        "Hello world\nHello| world\n",
    ),
    "a blocking stream, open at exit": (
        ENDLESS,
        """
stream = Provider("m", base_url=URL).stream_text("hi")
print(next(stream))
""",
        "a\n",
    ),
    "a blocking stream in a loop that fails": (
        ENDLESS,
        """
try:
    for piece in Provider("m", base_url=URL).stream_text("hi"):
        raise SystemExit(0)
finally:
    print("left")
""",
        "left\n",
    ),
    "a blocking call in a daemon thread at exit": (
        ENDLESS,
        """
import threading, time
provider = Provider("m", base_url=URL)
threading.Thread(target=lambda: list(provider.stream_text("hi")), daemon=True).start()
time.sleep(0.3)
print("over")
""",
        "over\n",
    ),
    "calls of a __del__ that runs when Python shuts down": (
        None,
        """
class Bot:
    def __init__(self):
        self.provider = Provider("m", base_url=URL)
        self.stream = self.provider.stream_text("hi")
        print(self.provider.generate_text("hi"), flush=True)
    def __del__(self, write=os.write):
        p, s = self.provider, self.stream
        for call in (p.close, lambda: p.generate_text("hi"), lambda: p.stream_text("hi"), s.close):
            try:
                call()
            except RuntimeError as error:
                write(1, b"refused\\n" if "shutting down" in str(error) else b"odd\\n")
            else:
                write(1, b"quiet\\n")
sys.modules["theirs"] = type(sys)("theirs")
sys.modules["theirs"].bot = Bot()
""",
        "Hello world\nquiet\nrefused\nrefused\nquiet\n",
    ),
    "a provider's block in a generator that is left open": (
        None,
        """
def chat():
    with Provider("m", base_url=URL) as provider:
        while True:
            yield provider.generate_text("hi")
answers = chat()
print(next(answers))
""",
        "Hello world\n",
    ),
    "a blocking body that lingers after its end mark": (
        LATE_END,
        """
print(*Provider("m", base_url=URL).stream_text("hi"))
""",
        "a\n",
    ),
}


@pytest.mark.parametrize("read", ["stream.result()", "list(stream)", "list(items)"])
def test_reading_on_in_an_exit_handler_raises(serve: Serve, read: str) -> None:
    """One that was registered before the import runs when the background loop has ended."""
    ended = run(
        serve(lambda request: ENDLESS if request.json.get("stream") else answer(completion())).url,
        """
        provider = Provider("m", base_url=URL)
        stream, items = provider.stream_text("hi"), provider.map(["hi"] * 10_000)
        print(next(stream), next(items).result)
        """,
        before=f"""
import atexit
def read():
    try:
        {read}
    except RuntimeError as error:
        print("loop has ended" in str(error))
atexit.register(read)
""",
    )
    assert (ended.code, ended.out, ended.err) == (0, "a Hello world\nTrue\n", "")


@pytest.mark.parametrize("flags", [(), STRICT], ids=["plain", "strict"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_at_once_and_prints_nothing_else(serve: Serve, name: str, flags: tuple[str, ...]) -> None:
    script, program, expected = PROGRAMS[name]
    server = serve(*([] if script is None else [script]))
    ended = run(server.url, program, *flags)
    assert (ended.code, ended.out, ended.err) == (0, expected, "")
