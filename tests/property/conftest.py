"""Nothing is measured here: a hundred examples run the same lines a hundred times, which other tests run once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tracing import untraced


@pytest.fixture(scope="module", autouse=True)
def _untraced() -> Iterator[None]:
    with untraced():
        yield
