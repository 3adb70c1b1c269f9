"""What a batch runs, so that another run can tell whether it is the same batch.

In: the input's digest and the parameters. Out: a small JSON file, and sentences about what has changed. Never touched:
the input; the files of results. Secrets among the parameters, such as keys, are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import zip_longest
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from attrs import asdict, define, field

from .. import __version__
from ..errors import BatchError
from ..keys import secret_names, without_secrets
from ..remedy import with_remedy
from ..wire.codec import dumps, loads_strict
from .files import replace_atomically

__all__ = ["Manifest", "is_manifest"]

_SHOWN_CHARACTERS = 60  # how much of a value a sentence shows
_EXACT = 2**53  # below it every whole number is exact as a float
_UNSET = object()


def _canonical(value: dict[str, Any]) -> dict[str, Any]:
    """The parameters as they are read back from the file, without empty objects, which change no request."""
    given = {name: item for name, item in _normalised(value).items() if item != {}}
    canonical: dict[str, Any] = loads_strict(dumps(given))
    return canonical


def _normalised(value: Any) -> Any:
    """The value with sorted names, without secrets, and with whole floats as integers: equal requests look equal."""
    if isinstance(value, Mapping):
        hidden = secret_names(value)  # LiteLLM takes an `api_key`, tools have an `authorization`
        return {name: _normalised(value[name]) for name in sorted(value, key=str) if name not in hidden}
    if isinstance(value, str) and re.fullmatch(r"https?://\S+", value):  # such as that of an MCP server
        with suppress(ValueError):
            return without_secrets(value)
    if isinstance(value, Real) and not isinstance(value, Integral):  # not all of numpy's floats are Python floats
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < _EXACT else number  # 0.0 asks for the same as 0
    return [_normalised(item) for item in value] if isinstance(value, list | tuple) else value


@define(frozen=True)
class Manifest:
    """What a batch runs.

    Attributes:
        input_sha256: The digest of the input's bytes in hexadecimal; None if the rows came one by one.
        input_bytes: The input's length in bytes; None likewise.
        rows: How many rows the input has; None if that is unknown, or if some of its lines are bad.
        parameters: What all rows share and the answers depend on: model, URL, sampling, template, …; without secrets.
        version: The library's version, for people to read: a newer one may go on with the batch.
        moved: Whether the input has changed since the batch began, so that answered rows may stand elsewhere in it now.
        others: How many answers came from another model or address: they do not show that the present one answers.
        parameters_digest: The SHA-256 of the parameters as JSON with sorted names, in hexadecimal.

    Raises:
        ValueError: A parameter cannot be written as JSON.
    """

    input_sha256: str | None
    input_bytes: int | None
    rows: int | None
    parameters: dict[str, Any] = field(converter=_canonical)
    version: str = __version__
    moved: bool = False
    others: int = 0
    parameters_digest: str = field(init=False)

    @parameters_digest.default
    def _digest(self) -> str:
        return hashlib.sha256(dumps(self.parameters)).hexdigest()

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read a manifest; None if there is none.

        Raises:
            BatchError: It exists and cannot be read.
        """
        try:
            told = loads_strict(path.read_bytes())
            return cls(
                input_sha256=_expect(told["input_sha256"], str),
                input_bytes=_expect(told["input_bytes"], int),
                rows=_expect(told["rows"], int),
                parameters=dict(told["parameters"]),
                version=str(told["version"]),
                moved=told.get("moved") is True,
                others=_expect(told.get("others"), int) or 0,
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BatchError(f"{path} cannot be read: {with_remedy(error)}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BatchError(
                f"{path} cannot be read: it is not a manifest ({error!r}). It records what the batch beside it has "
                "run. Restore it; or, if you know that the input and parameters are the same, move it away and run the "
                "batch again."
            ) from error

    def save(self, path: Path) -> None:
        """Write the manifest; at any moment the file is either the old one or this one.

        Raises:
            BatchError: It cannot be written.
        """
        replace_atomically(path, [dumps(asdict(self)), b"\n"])

    def changes(self, now: Manifest) -> list[str]:
        """How `now` differs from this one, so that their results would not belong together: one sentence each."""
        sentences = []
        if self.input_sha256 != now.input_sha256:
            sentences.append(f"the input changed: {self._told_input()} -> {now._told_input()}")
        before, after = _flat(self.parameters), _flat(now.parameters)
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name, _UNSET), after.get(name, _UNSET)
            if old is _UNSET or new is _UNSET or dumps(old) != dumps(new):
                sentences.append("parameter {}: {} -> {}".format(".".join(name), *_shown(old, new)))
        return sentences

    def _told_input(self) -> str:
        if self.input_sha256 is None:
            return "rows that are not from a file"
        rows = "an unknown number of rows" if self.rows is None else f"{self.rows:,} row{'s' * (self.rows != 1)}"
        return f"{rows}, {self.input_bytes:,} bytes, sha256 {self.input_sha256[:12]}…"


def is_manifest(data: bytes) -> bool:
    """Whether these bytes are those of a manifest."""
    return b'"input_sha256"' in data and b'"parameters_digest"' in data


def _expect(value: Any, kind: type) -> Any:
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{value!r} is not a value of type {kind.__name__}")
    return value


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value inside nested objects, by the path of names that leads to it."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {name: leaf for key, inner in value.items() for name, leaf in _flat(inner, (*path, key)).items()}


def _shown(old: Any, new: Any) -> list[str]:
    """Both values for a sentence: whole, or cut around the place where they begin to differ."""
    texts = ["not set" if value is _UNSET else repr(value) for value in (old, new)]
    if max(map(len, texts)) <= _SHOWN_CHARACTERS:
        return texts
    same = next(place for place, (one, other) in enumerate(zip_longest(*texts)) if one != other)
    start = max(0, same - _SHOWN_CHARACTERS // 3)
    end = start + _SHOWN_CHARACTERS
    return ["…" * (start > 0) + text[start:end] + "…" * (end < len(text)) for text in texts]
