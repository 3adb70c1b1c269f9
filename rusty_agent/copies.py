"""Copies of providers. Attributes that subclasses and users have added follow Python's own rules for copies.

In: a provider. Out: one of the same class, with the library's own attributes as `_twin` makes them, and all others,
slots included, copied. Never touched: the library's own attributes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from copy import deepcopy
from typing import Any, Self

__all__ = ["Copied"]


class Copied:
    """A class whose objects can be copied; `_own` names the attributes that `_twin` makes instead."""

    _own: Collection[str]

    @abstractmethod
    def _twin(self) -> Self:
        """A new object with the attributes in `_own` and no others."""

    def __copy__(self) -> Self:
        twin = self._twin()
        twin._put(self._added())
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = self._twin()
        twin._put(deepcopy(self._added(), memo))
        return twin

    def _added(self) -> Any:
        """The attributes that a subclass or a user has added, or what its `__getstate__` makes of them."""
        state = self.__getstate__()
        attributes, slots = _halves(state)
        if not isinstance(attributes, dict):
            return state
        attributes = {name: value for name, value in attributes.items() if name not in self._own}
        return (attributes, slots) if isinstance(state, tuple) else attributes

    def _put(self, state: Any) -> None:
        """Set such a state on this object, as `copy` and `pickle` do."""
        if state is None:
            return
        if hasattr(self, "__setstate__"):
            self.__setstate__(state)
            return
        attributes, slots = _halves(state)
        vars(self).update(attributes or {})
        for name, value in (slots or {}).items():
            setattr(self, name, value)


def _halves(state: Any) -> tuple[Any, Any]:
    """A state's attributes and its slots: the state of a class with slots is a pair of both."""
    return state if isinstance(state, tuple) and len(state) == 2 else (state, None)
