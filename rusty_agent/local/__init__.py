"""A real model on this machine: llama.cpp's server in a child process, reached over HTTP like any endpoint.

In: a GGUF file. Out: a provider for it. Never touched: prompts and answers, which go the same way as for any endpoint.

Users come here by `AsyncProvider.local` and `Provider.local`. llama.cpp is C++ and may crash on a bad file. So only the
child loads it (`child.py`), and a crash is an error here (`ending.py`).
"""

from __future__ import annotations

import os
import secrets
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from ..checks import checked_count, is_number
from ..presets import Preset
from ..wire.sse import MAX_EVENT_BYTES
from .model import find_model, require_runtime
from .process import ServerOptions
from .server import LocalServer
from .transport import LocalTransport

if TYPE_CHECKING:
    from ..policy import RetryPolicy, Timeout
    from ..provider import AsyncProvider

__all__ = ["attach"]

AnyProvider = TypeVar("AnyProvider", bound="AsyncProvider")

_PRESET = Preset("local", "http://127.0.0.1/v1", "RUSTY_AGENT_LOCAL_KEY", key_required=False)
_REQUEST_SECONDS = 600.0  # a small machine may take minutes until the first token


def attach(
    kind: type[AnyProvider],
    model_path: str | PathLike[str] | None = None,
    *,
    threads: int | None = None,
    context: int = 4096,
    parallel: int = 4,
    start_timeout: float = 120.0,
    timeout: Timeout | float | None = None,
    retry: RetryPolicy | None = None,
    max_event_bytes: int = MAX_EVENT_BYTES,
) -> AnyProvider:
    """A provider of this class for a model on this machine, see `AsyncProvider.local`. It starts nothing yet.

    Raises:
        LocalModelError: The extra is not installed, or there is no model.
        ValueError: An option is invalid.
    """
    options = ServerOptions(
        threads=min(_cores(), 8) if threads is None else checked_count(threads, "threads"),
        context=checked_count(context, "context"),
        parallel=checked_count(parallel, "parallel"),
        start_timeout=_seconds(start_timeout, "start_timeout"),
    )
    if options.context * options.parallel >= 2**31:
        raise ValueError(f"context times parallel must be less than 2**31, not {options.context * options.parallel}")
    require_runtime()
    model = find_model(model_path)
    key = secrets.token_urlsafe(32)
    provider = kind(
        model.stem,
        api_key=key,
        preset=_PRESET,
        timeout=_REQUEST_SECONDS if timeout is None else timeout,
        retry=retry,
        max_event_bytes=max_event_bytes,
    )
    provider._calls.transport = LocalTransport(LocalServer(model, key, options))
    return provider


def _cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds(value: Any, option: str) -> float:
    if not (is_number(value) and 0 < value < 1e6):
        raise ValueError(f"{option} must be a positive number of seconds, not {value!r}")
    return float(value)
