"""Pieces that each repeat the whole text so far → the new text in each.

In: the deltas of one answer. Out: the same, with only the new text. Never touched: any other delta.
"""

from __future__ import annotations

from typing import Any

from .delta import Delta

__all__ = ["Snapshots", "tells_all_so_far"]

_FAMILY = "qwen-mt-"
_MODELS = ("plus", "turbo")


def tells_all_so_far(model: Any) -> bool:
    """Whether each chunk of this model's streams holds all of the text so far. Only the model's name tells.

    Two of Alibaba's do (https://help.aliyun.com/zh/model-studio/qwen-mt-api). It cannot be seen from the data in time:
    `ha` followed by `haha` may be a beginning that is repeated, or a laugh.
    """
    return isinstance(model, str) and _FAMILY in model and model.partition(_FAMILY)[2].startswith(_MODELS)


class Snapshots:
    """Cuts the text so far off each of one answer's pieces, until a piece does not begin with it."""

    def __init__(self) -> None:
        self._told: str | None = ""  # None: these pieces do not repeat: other endpoints may serve such a model so

    def sift(self, deltas: list[Delta], *, failed: bool) -> list[Delta]:
        """Take the next deltas, return what is new in them; `failed` does not matter, as nothing is held back."""
        out: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, str) and self._told is not None:
                told, self._told = self._told, delta if delta.startswith(self._told) else None
                delta = delta if self._told is None else delta[len(told) :]
            if delta != "":
                out.append(delta)
        return out
