"""Copies of providers, by Python's own rules for what subclasses and users put on them.

In: a provider. Out: one of the same class, with the library's own parts as `_twin` makes them and with all the rest,
slots included. Never touched: those parts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from copy import deepcopy
from typing import Any, Self

__all__ = ["Copied"]


class Copied:
    """A class whose objects are copied; `_own` names the attributes that are not taken from the original."""

    _own: Collection[str]

    @abstractmethod
    def _twin(self) -> Self:
        """Another one, with its own attributes and no other ones."""

    def __copy__(self) -> Self:
        twin = self._twin()
        twin._put(self._added())
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = self._twin()
        twin._put(deepcopy(self._added(), memo))
        return twin

    def _added(self) -> Any:
        """What a subclass, or a user, has put on it; or what its `__getstate__` makes of that."""
        state = self.__getstate__()
        attributes, slots = _halves(state)
        if not isinstance(attributes, dict):
            return state
        attributes = {name: value for name, value in attributes.items() if name not in self._own}
        return (attributes, slots) if isinstance(state, tuple) else attributes

    def _put(self, state: Any) -> None:
        """Take such a state, as `copy` and `pickle` let an object do."""
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
    """A state's attributes and its slots: only where a class has some is it a pair."""
    return state if isinstance(state, tuple) and len(state) == 2 else (state, None)
