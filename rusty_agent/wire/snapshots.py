"""Pieces of text that tell the whole text so far → what is new in each.

In: the deltas of one answer. Out: the same, with text that is new. Never touched: any other delta.
"""

from __future__ import annotations

from typing import Any

from .delta import Delta

__all__ = ["Snapshots", "tells_all_so_far"]

_MODELS = ("qwen-mt-plus", "qwen-mt-turbo")


def tells_all_so_far(model: Any) -> bool:
    """Whether each chunk of this model's streams holds all of the text so far, as only its name tells.

    So do two of Alibaba's (https://help.aliyun.com/zh/model-studio/qwen-mt-api). It cannot be seen in time: a first
    `ha` and then `haha` may be a beginning, told twice, or a laugh.
    """
    return isinstance(model, str) and any(name in model for name in _MODELS)


class Snapshots:
    """Cuts off one answer's pieces what is known; nothing more once one of them has not begun with it."""

    def __init__(self) -> None:
        self._told: str | None = ""  # None: these pieces are pieces, as other endpoints may serve such a model

    def sift(self, deltas: list[Delta], *, failed: bool) -> list[Delta]:
        """Take the next deltas, return what is new of them; `failed` does not matter, as nothing is held back."""
        out: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, str) and self._told is not None:
                told, self._told = self._told, delta if delta.startswith(self._told) else None
                delta = delta if self._told is None else delta[len(told) :]
            if delta != "":
                out.append(delta)
        return out
