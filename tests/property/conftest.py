"""No coverage is measured here: a hundred examples run the same lines a hundred times, and other tests run them too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tracing import untraced


@pytest.fixture(scope="module", autouse=True)
def _untraced() -> Iterator[None]:
    with untraced():
        yield
