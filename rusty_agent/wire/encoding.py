"""A compressed body → the body.

In: a body as it arrives, and what its `Content-Encoding` says of it. Out: what was compressed, in blocks of bounded
size. Never touched: the socket, what the body means.

Nobody has asked for compression: tokens would be held back for it. Some gateways compress all the same, and some only
say that they did (envoyproxy/ai-gateway#2554, agentgateway#1620): then the body is taken as it is.
"""

from __future__ import annotations

import zlib
from typing import Any

from ..errors import ResponseError

__all__ = ["Inflater", "inflater_for"]

_BLOCK_BYTES = 2**16
_HEAD_BYTES = 8  # by which to tell what is compressed from what is not: few such bytes are all text
_GZIP = b"\x1f\x8b"
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_COMPRESSIONS = _WBITS.keys() | {"br", "zstd", "compress", "x-compress"}
_TEXT = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))


def inflater_for(encoding: str | None) -> Inflater | None:
    """What undoes this `Content-Encoding`; None where nothing is to be undone.

    What is no compression says nothing: `none` keeps proxies from compressing a stream, `utf-8` and `chunked` are
    mistakes.
    """
    names = [name for part in (encoding or "").split(",") if (name := part.strip().lower()) in _COMPRESSIONS]
    return Inflater(",".join(names)) if names else None


class Inflater:
    """Undoes gzip and deflate (RFC 9110 §8.4.1), the latter also without its header, as old servers send it.

    Args:
        encoding: What to undo. Of anything else nothing can be read.

    Attributes:
        more: The bytes taken so far hold more than was given: `feed` gives it without further ones.
    """

    def __init__(self, encoding: str) -> None:
        self.more = False
        self._encoding = encoding
        self._known = False  # it is clear what this is
        self._held = b""  # bytes whose turn has not come
        self._stream: Any = None  # of zlib, or None: it is not compressed

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take the next bytes, or the last; give a block of what they hold.

        Raises:
            ResponseError: They cannot be undone.
        """
        data, self._held = self._held + data, b""
        if not self._known:
            if len(data) < _HEAD_BYTES and not last:
                self._held = data
                return b""
            self._known = True
            self._stream = self._begin(data)
        if self._stream is None:
            return data
        try:
            return self._undo(data)
        except zlib.error as error:
            why = str(error)
        raise self._failed(why)  # here, so that no context of it holds frames

    def _begin(self, data: bytes) -> Any:
        if _TEXT.issuperset(data[:_HEAD_BYTES]):
            return None
        wbits = _WBITS.get(self._encoding)
        if wbits is None:
            raise self._failed("it was not asked for")
        if wbits == 15 and not (data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0):  # RFC 1950 §2.2
            wbits = -15
        return zlib.decompressobj(wbits)

    def _undo(self, data: bytes) -> bytes:
        block = b""
        if not self._stream.eof:
            block = self._stream.decompress(data, _BLOCK_BYTES)
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        self._held = data
        self.more = bool(data) or len(block) == _BLOCK_BYTES
        if self._stream.eof:
            self.more = data.startswith(_GZIP)  # one member follows another (RFC 1952 §2.2)
            if self.more:
                self._stream = zlib.decompressobj(31)
            else:
                self._held = data[: len(_GZIP)]
        return block

    def _failed(self, why: str) -> ResponseError:
        return ResponseError(f"The answer cannot be decompressed (Content-Encoding: {self._encoding}): {why}.")
