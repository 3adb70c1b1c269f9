"""A real model, spoken to through both faces."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from rusty_agent import APIConnectionError, AsyncProvider, BadRequestError, GenerateResult, LocalModelError, Provider

from .process import LONG, SMALL, child_of, pid_of, vanishes

pytestmark = pytest.mark.real_model


def test_a_script_generates(local: Provider, model: Path) -> None:
    assert isinstance(local.generate_text("Say hello.", max_tokens=3), str)
    result = local.generate_text("Say hello.", max_tokens=3, temperature=0, include_usage=True)
    assert result.text
    assert result.completion_tokens == 3
    assert result.finish_reason == "length"
    assert result.model == local.model == model.stem


def test_a_script_streams(local: Provider) -> None:
    stream = local.stream_text("Count to ten.", max_tokens=8, temperature=0, include_usage=True)
    pieces = list(stream)
    assert len(pieces) > 1
    assert stream.completion_tokens == 8
    assert "".join(pieces) == local.generate_text("Count to ten.", max_tokens=8, temperature=0)


async def test_a_coroutine_generates_and_streams(local: Provider) -> None:
    llm = local._core
    result = await llm.stream_text("Count to ten.", max_tokens=8, temperature=0).result()
    assert isinstance(result, GenerateResult)
    assert result.text == await llm.generate_text("Count to ten.", max_tokens=8, temperature=0)


async def test_more_calls_than_slots_are_all_answered(local: Provider) -> None:
    texts = await asyncio.gather(*(local._core.generate_text(f"{n}!", max_tokens=2) for n in range(5)))
    assert len(texts) == 5


def test_threads_share_one_process(local: Provider) -> None:
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(local.generate_text("Hi", max_tokens=2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 4


def test_a_loop_after_a_loop(local: Provider) -> None:
    pid = pid_of(local)
    for _ in range(2):
        assert asyncio.run(local._core.generate_text("Hi", max_tokens=2))
    assert pid_of(local) == pid


async def test_a_stream_that_is_left_frees_the_model(local: Provider) -> None:
    streams = [local._core.stream_text(LONG, max_tokens=400) for _ in range(SMALL["parallel"])]
    for stream in streams:
        await anext(stream)
        await stream.aclose()
    async with asyncio.timeout(10):
        await local._core.generate_text("Hi", max_tokens=1)


async def test_each_call_may_use_the_whole_context(local: Provider) -> None:
    """Each of these takes more than its share of a context that were divided, or shared."""
    llm, half = local._core, SMALL["context"] // 2
    calls = (llm.generate_text("fox " * half, max_tokens=2, include_usage=True) for _ in range(SMALL["parallel"]))
    for result in await asyncio.gather(*calls):
        assert result.text
        assert half < result.prompt_tokens < SMALL["context"]
    with pytest.raises(BadRequestError, match="context"):
        await local._core.generate_text("fox " * 600)


def test_the_key_is_required_and_shows_nowhere(local: Provider) -> None:
    child = child_of(local)
    request = urllib.request.Request(
        f"http://127.0.0.1:{child.port}/v1/chat/completions", data=b"{}", headers={"content-type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    caught.value.close()
    assert caught.value.code == 401
    key = local._core._requests.config.key
    assert key is not None
    process = Path(f"/proc/{child.pid}")
    if process.exists():
        for place in ("cmdline", "environ"):
            assert key.reveal().encode() not in (process / place).read_bytes()


async def test_the_first_callers_share_one_start_and_the_loop_goes_on(model: Path) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    llm = AsyncProvider.local(model, **SMALL)
    heart = asyncio.create_task(beat())
    calls = [asyncio.create_task(llm.generate_text("Hi", max_tokens=1)) for _ in range(4)]
    await asyncio.sleep(0)
    pid = pid_of(llm)
    assert len(await asyncio.gather(*calls)) == 4
    heart.cancel()
    assert beats > 5
    assert pid_of(llm) == pid
    await llm.aclose()
    assert vanishes(pid)


async def test_async_with_loads_the_default_model(model: Path) -> None:
    async with AsyncProvider.local(**SMALL) as llm:
        assert child_of(llm).port is not None
        assert llm.model == model.stem


async def test_giving_up_while_it_loads(model: Path) -> None:
    llm = AsyncProvider.local(model, **SMALL)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await llm.generate_text("Hi")
    pid = pid_of(llm)
    await llm.aclose()
    assert vanishes(pid)
    with pytest.raises(APIConnectionError, match="closed"):
        await llm.generate_text("Hi")


async def test_a_model_that_takes_too_long_is_given_up(model: Path) -> None:
    with pytest.raises(LocalModelError, match=r"not ready within 0\.05 s"):
        async with AsyncProvider.local(model, start_timeout=0.05, **SMALL):
            pass


@pytest.mark.parametrize(
    ("damage", "face"),
    [("garbage", "async"), ("header only", "sync"), ("no tensors", "async"), ("half", "sync")],  # each starts a process
)
async def test_a_broken_file_is_an_error(model: Path, tmp_path: Path, damage: str, face: str) -> None:
    whole = model.read_bytes()
    content = {
        "garbage": b"GGUF" + bytes(range(256)) * 100,
        "header only": whole[:4],
        "no tensors": whole[:5000],
        "half": whole[: len(whole) // 2],
    }[damage]
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(LocalModelError, match=r"broken\.gguf' could not be loaded: .* exit code 1.* It said: «") as e:
        if face == "async":
            await AsyncProvider.local(path, **SMALL).generate_text("Hi")
        else:
            await asyncio.to_thread(Provider.local, path, **SMALL)
    assert len(str(e.value)) < 1500
