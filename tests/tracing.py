"""Leaving coverage's tracer out; and one that plays Ctrl-C."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def untraced() -> Iterator[None]:
    """Without coverage's tracer: it triples the time of what runs the same lines again and again."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


def interrupted(step: int, call: Callable[[], object]) -> bool:
    """Whether Ctrl-C came before the end of a call: at this step of Python's own, counted from 1."""
    steps = 0

    def trace(*_: object) -> Any:
        nonlocal steps
        steps += 1
        if steps == step:
            raise KeyboardInterrupt
        return trace

    gc.disable()  # else it might come in a `__del__` of what others left
    with untraced():
        sys.settrace(trace)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
            gc.enable()
    return False
