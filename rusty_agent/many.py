"""Many prompts: `map` and `gather` of `AsyncProvider`.

In: any number of prompts, and the parameters that they share. Out: items as they finish, or results in order. Never
touched: how one call is made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack, overload

from .checks import checked_flag, count_of, is_many, is_table
from .keys import hide_secrets
from .outcome import Outcome
from .parameters import Concurrency, Inputs, RunParameters, check_names, shows
from .requests import Common
from .types import GenerateResult, MapItem

if TYPE_CHECKING:
    from .calls import Calls
    from .net.attempt import Request
    from .net.caller import Caller
    from .progress.show import ProgressOption
    from .requests import Requests

__all__ = ["CUT_SHORT", "AsyncMapItems", "ManyPrompts", "RunItems"]

CUT_SHORT = "This run was abandoned, cancelled or failed before its end, so some items are missing. Start a new one."


class ManyPrompts:
    """The methods of `AsyncProvider` for many prompts at once."""

    _requests: Requests
    _calls: Calls

    @shows(RunParameters)
    def map(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        ordered: bool = True,
        **parameters: Unpack[RunParameters],
    ) -> AsyncGenerator[MapItem, None]:
        """Answer many prompts, several at once; yield an item for each.

        Nothing is sent before you iterate. Leaving the loop early cancels the calls under way, but only when Python
        drops the generator; wrap it in `contextlib.aclosing` to cancel them at once.

        Args:
            prompts: Strings (not together with `messages`), lists of messages, or dicts of arguments of `generate_text`
                (which win over those given here): a list, an iterator, or an asynchronous iterator, of any length. They
                are taken only as fast as they are answered. An iterator runs on `AsyncProvider`'s event loop and must
                not block it; `Provider` runs it on the caller's thread.
            concurrency: How many prompts are worked on at once. `"auto"`: as many as the endpoint takes, found out by
                trying, at most `Limits.in_flight` (256 if that is not set).
            ordered: Yield in the order of the prompts; up to 16 times `concurrency` answers then wait behind a slow
                one. False: yield as they finish.
            **parameters: See `RunParameters`.

        Yields:
            A `MapItem` for each prompt. If the prompt failed, the item holds the error.

        Raises:
            RunStoppedError: Too many prompts failed, the key was refused, the account is spent, the endpoint is away or
                asks for too long a wait, or the provider was closed. The items of all prompts sent come first.
            RuntimeError: You read on in a run that was left, cancelled or failed before its end.
            MissingAPIKeyError: The provider was unpickled, and this process has no key for it.
            TypeError: There is no such argument.
            ValueError: An argument is invalid; nothing was sent.
            Exception: Raised by the iterator of prompts or by the progress function. The items of all calls under way
                come first.
        """
        hide_secrets(parameters)
        drain = False  # when the run is stopped, the prompts that are left need no items
        return self._map(prompts, concurrency, checked_flag(ordered, "ordered"), drain, **parameters)

    @overload
    async def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[False] = False,
        include_usage: Literal[False] = False,
        **parameters: Unpack[RunParameters],
    ) -> list[str]: ...
    @overload
    async def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[True],
        include_usage: Literal[False] = False,
        **parameters: Unpack[RunParameters],
    ) -> list[str | Exception]: ...
    @overload
    async def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[False] = False,
        include_usage: Literal[True],
        **parameters: Unpack[RunParameters],
    ) -> list[GenerateResult]: ...
    @overload
    async def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[True],
        include_usage: Literal[True],
        **parameters: Unpack[RunParameters],
    ) -> list[GenerateResult | Exception]: ...
    @overload
    async def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: bool = False,
        include_usage: bool = False,
        **parameters: Unpack[RunParameters],
    ) -> list[Any]: ...
    @shows(RunParameters)
    async def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: bool = False,
        include_usage: bool = False,
        **parameters: Unpack[RunParameters],
    ) -> list[Any]:
        """Answer many prompts, several at once; return the answers in the order of the prompts.

        Args:
            prompts: As `map`'s.
            concurrency: As `map`'s.
            return_exceptions: Put errors into the list in place of answers. False: the first error cancels the calls
                under way and is raised, with a note that says which prompt it was, counted from 0.
            include_usage: Return `GenerateResult`s instead of texts.
            **parameters: As `map`'s.

        Returns:
            A text, a result or an error for each prompt. With `return_exceptions`, prompts that were not sent because
            the run was stopped get a `RunStoppedError`.

        Raises:
            RustyAgentError: A prompt failed, and `return_exceptions` is False.
            MissingAPIKeyError: The provider was unpickled, and this process has no key for it.
            TypeError: There is no such argument.
            ValueError: An argument is invalid.
            Exception: Raised by the iterator of prompts or by the progress function.
        """
        hide_secrets(parameters)
        checked_flag(return_exceptions, "return_exceptions")
        checked_flag(include_usage, "include_usage")
        results: list[Any] = []
        ordered, drain = False, True
        items = self._map(prompts, concurrency, ordered, drain, **parameters)
        async with aclosing(items):
            async for item in items:
                if item.error is not None and not return_exceptions:
                    item.error.add_note(f"This was prompt {item.index} of gather.")
                    try:
                        raise item.error
                    finally:
                        del item  # or a cycle of the error and this frame would keep the other answers
                results.extend([None] * (item.index + 1 - len(results)))
                results[item.index] = item.error or (item.result if include_usage else str(item.result))
        return results

    def _map(
        self,
        prompts: Inputs,
        concurrency: Concurrency,
        ordered: bool,
        drain: bool,
        /,  # positional only, so that **given may hold these names, and `check_names` refuses them
        *,
        stream: bool = False,
        max_failures: int | None = None,
        max_error_rate: float | None = None,
        progress: ProgressOption = False,
        price: tuple[float, float] | None = None,
        **given: Any,
    ) -> AsyncGenerator[MapItem, None]:
        if not is_many(prompts):
            raise ValueError(f"prompts must be an iterable, such as a list, not a single {type(prompts).__name__}")
        if is_table(prompts):
            raise ValueError('a DataFrame yields only its column names: pass one column, such as frame["prompt"]')
        method = ManyPrompts.gather if drain else ManyPrompts.map
        check_names(given, ("include_usage", *signature(method).parameters), method.__name__)
        from .progress.price import Price  # single calls need none of these
        from .run import Run
        from .stop_rule import StopRule

        common = Common(self._requests, {"stream": stream, **given})

        def answer(caller: Caller, prompt: Any) -> Awaitable[GenerateResult]:
            return self._answer(caller, common.prepare(_arguments(prompt)))

        run = Run(
            answer,
            self._calls.limiter,
            concurrency=concurrency,
            rule=StopRule(max_failures, max_error_rate, common.policy.max_retry_after),
            price=None if price is None else Price.of(price),
            total=count_of(prompts),
            streamed=stream,
            drain=drain,
            progress=progress,
            closed=lambda: self._calls.transport.ended,
        )
        return AsyncMapItems(run.items(prompts, ordered=ordered))

    async def _answer(self, caller: Caller, request: Request) -> GenerateResult:
        """The whole answer to one prompt of a run."""
        call = self._calls.start(request, caller)
        await call.begin(whole=True)
        return Outcome(call)._result()


class RunItems:
    """The items of a run, for both faces. Dropping them ends the run, so they cannot be copied."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("The items of a run are tied to it and cannot be copied or pickled. Copy what they yield.")


class AsyncMapItems(RunItems, AsyncGenerator[MapItem, None]):
    """The items of a run. Reading on after a cancellation raises; a plain generator would seem to have ended."""

    def __init__(self, items: AsyncGenerator[MapItem, None]) -> None:
        self._items = items
        self._ended = False
        self._cut = False

    async def asend(self, value: None) -> MapItem:
        return await self.__anext__()

    async def __anext__(self) -> MapItem:
        if self._cut:
            raise RuntimeError(CUT_SHORT)
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            self._ended = True
            raise
        except BaseException:
            self._cut = not getattr(self._items, "ag_running", False)  # else another task is reading, and goes on
            raise

    async def athrow(self, *error: Any) -> MapItem:
        self._leave()
        return await self._items.athrow(*error)

    async def aclose(self) -> None:
        self._leave()
        await self._items.aclose()

    def _leave(self) -> None:
        if getattr(self._items, "ag_running", False):
            raise RuntimeError("The run is being read by another task: cancel that task, which also closes the run.")
        self._cut = not self._ended


def _arguments(prompt: Any) -> dict[str, Any]:
    """One prompt of a run as arguments of `generate_text`."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if isinstance(prompt, Mapping):
        if "role" in prompt:
            raise ValueError("a single message is not a prompt: pass each conversation as a list of its messages")
        return dict(prompt)
    if isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        return {"messages": prompt}
    raise ValueError(
        f"a prompt must be a string, a list of messages or a dict of arguments, not {type(prompt).__name__}"
    )
