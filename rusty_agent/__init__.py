"""Generate and stream text from any OpenAI-compatible endpoint.

Two faces over one asyncio core:

* `AsyncProvider` and `AsyncTextStream` for programs with an event loop;
* `Provider` and `TextStream` for scripts, notebooks and threads.

A name is imported on its first use, so that `import rusty_agent` alone costs about ten milliseconds and
never touches aiohttp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "AsyncProvider": "provider",
    "BatchResult": "batch.runner",
    "Progress": "progress.tally",
    "run_batch": "batch.runner",
    "AsyncTextStream": "stream",
    "Provider": "sync.provider",
    "TextStream": "sync.stream",
    **dict.fromkeys(("AttemptReport", "Limits", "RetryPolicy", "Timeout"), "policy"),
    **dict.fromkeys(
        (
            "Finish",
            "GenerateResult",
            "MapItem",
            "RawChunk",
            "ReasoningDelta",
            "RefusalDelta",
            "StreamEvent",
            "TextDelta",
            "ToolCall",
            "ToolCallDelta",
            "Usage",
            "UsageUpdate",
        ),
        "types",
    ),
    **dict.fromkeys(("BatchParameters", "Parameters", "RunParameters"), "parameters"),
    **dict.fromkeys(("PRESETS", "Preset"), "presets"),
}
"""The module of each public name that is not in `errors`."""

__all__ = [
    "PRESETS",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncProvider",
    "AsyncTextStream",
    "AttemptReport",
    "AuthenticationError",
    "BadRequestError",
    "BatchError",
    "BatchParameters",
    "BatchResult",
    "Finish",
    "GenerateResult",
    "Limits",
    "LocalModelError",
    "MapItem",
    "MissingAPIKeyError",
    "NotFoundError",
    "Parameters",
    "PermissionDeniedError",
    "Preset",
    "Progress",
    "Provider",
    "RateLimitError",
    "RawChunk",
    "ReasoningDelta",
    "RefusalDelta",
    "ResponseError",
    "RetryPolicy",
    "RunParameters",
    "RunStoppedError",
    "RustyAgentError",
    "ServerError",
    "StreamEvent",
    "StreamInterruptedError",
    "TextDelta",
    "TextStream",
    "Timeout",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "UsageUpdate",
    "__version__",
    "run_batch",
]

if TYPE_CHECKING:
    from .batch.runner import BatchResult, run_batch
    from .errors import (
        APIConnectionError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        BatchError,
        LocalModelError,
        MissingAPIKeyError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        ResponseError,
        RunStoppedError,
        RustyAgentError,
        ServerError,
        StreamInterruptedError,
    )
    from .parameters import BatchParameters, Parameters, RunParameters
    from .policy import AttemptReport, Limits, RetryPolicy, Timeout
    from .presets import PRESETS, Preset
    from .progress.tally import Progress
    from .provider import AsyncProvider
    from .stream import AsyncTextStream
    from .sync.provider import Provider
    from .sync.stream import TextStream
    from .types import (
        Finish,
        GenerateResult,
        MapItem,
        RawChunk,
        ReasoningDelta,
        RefusalDelta,
        StreamEvent,
        TextDelta,
        ToolCall,
        ToolCallDelta,
        Usage,
        UsageUpdate,
    )

else:  # hidden from type checkers: with it they would accept any name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f".{_HOME.get(name, 'errors')}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
