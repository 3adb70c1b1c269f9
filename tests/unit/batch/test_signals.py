"""The two steps of stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rusty_agent.batch.signals import DRAIN_SECONDS, Signals
from tests.simulation.virtual import run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX ones here")
BOTH = (signal.SIGINT, signal.SIGTERM)


class Heard:
    def __init__(self, *, wanted: bool = True) -> None:
        self.words: list[str] = []
        self.signals = Signals(lambda: self.words.append("stop"), lambda: self.words.append("abandon"), wanted=wanted)

    @contextmanager
    def handling(self) -> Iterator[None]:
        with self.signals:
            self.signals.begin()
            yield


async def strike(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("windows", [False, True])
async def test_the_first_stops_and_the_second_abandons(windows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if windows:  # whose loops handle no signals

        def refuse(*_: object) -> None:
            raise NotImplementedError

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "add_signal_handler", refuse)
        monkeypatch.setattr(loop, "remove_signal_handler", refuse)
    before = [signal.getsignal(number) for number in BOTH]
    heard = Heard()
    with heard.handling():
        await strike(signal.SIGTERM)
        assert heard.words == ["stop"]
        await strike(signal.SIGINT)
        assert heard.words == ["stop", "abandon"]
    assert [signal.getsignal(number) for number in BOTH] == before


def test_what_is_under_way_has_its_time() -> None:
    async def main() -> None:
        heard = Heard()
        with heard.handling():
            await strike(signal.SIGINT)
            await asyncio.sleep(DRAIN_SECONDS - 0.1)
            assert heard.words == ["stop"]
            await asyncio.sleep(0.1)
            assert heard.words == ["stop", "abandon"]
        late = Heard()
        with late.handling():
            await strike(signal.SIGINT)
        await asyncio.sleep(DRAIN_SECONDS)
        assert late.words == ["stop"]  # it has ended before its time was over

    run(main())


async def test_until_it_begins_they_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with Heard().signals:
        assert [signal.getsignal(number) for number in BOTH] == before


async def test_signals_are_left_alone_unless_wanted() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with Heard(wanted=False).handling():
        assert [signal.getsignal(number) for number in BOTH] == before


async def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        heard = Heard()
        with heard.handling():
            await strike(signal.SIGTERM)
            assert heard.words == []
            await strike(signal.SIGINT)
        assert heard.words == ["stop"]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_cannot() -> None:
    errors: list[str] = []

    def make() -> None:
        Heard(wanted=False)
        try:
            Heard()
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert errors == ["handle_signals: only the main thread can handle signals; leave it out in other threads"]


async def test_only_one_batch_of_a_loop_handles_signals() -> None:
    first, second, third = Heard(), Heard(), Heard(wanted=False)
    with first.handling():
        with pytest.raises(ValueError, match="another batch on this event loop"), second.handling():
            pass
        with third.handling():
            await strike(signal.SIGTERM)
    assert (first.words, second.words, third.words) == (["stop"], [], [])
    with second.handling():
        await strike(signal.SIGTERM)
    assert second.words == ["stop"]
