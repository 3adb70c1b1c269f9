"""Running without coverage's tracer, and with one that plays Ctrl-C."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def untraced() -> Iterator[None]:
    """Switch coverage's tracer off: it triples the time of code that runs the same lines again and again."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


def interrupted(step: int, call: Callable[[], object]) -> bool:
    """Run a call with Ctrl-C at this step of Python's tracer, counted from 1; return whether the call was cut short."""
    steps = 0

    def trace(*_: object) -> Any:
        nonlocal steps
        steps += 1
        if steps == step:
            raise KeyboardInterrupt
        return trace

    gc.disable()  # else Ctrl-C might come in the `__del__` of an object that another test has left
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
