"""Decompresses bodies.

In: a compressed body as it arrives, and its `Content-Encoding`. Out: the decompressed body, in blocks of bounded size.
Never touched: the socket, what the body means.

The client never asks for compression, as it would delay tokens. Some gateways compress all the same, and some only say
that they did (envoyproxy/ai-gateway#2554, agentgateway#1620): then the body is taken as it is.
"""

from __future__ import annotations

import zlib
from typing import Any

from ..errors import ResponseError

__all__ = ["Inflater", "inflater_for"]

_BLOCK_BYTES = 2**16
_HEAD_BYTES = 8  # enough to recognise compression: so many compressed bytes are hardly ever all text
_GZIP = b"\x1f\x8b"
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_COMPRESSIONS = _WBITS.keys() | {"br", "zstd", "compress", "x-compress"}
_TEXT = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))


def inflater_for(encoding: str | None) -> Inflater | None:
    """The `Inflater` for this `Content-Encoding`; None if it names no compression.

    Other values are ignored: `none` keeps proxies from compressing a stream, `utf-8` and `chunked` are mistakes.
    """
    names = [name for part in (encoding or "").split(",") if (name := part.strip().lower()) in _COMPRESSIONS]
    return Inflater(",".join(names)) if names else None


class Inflater:
    """Decompresses gzip and deflate (RFC 9110 §8.4.1), the latter also without its header, as old servers send it.

    Args:
        encoding: The encoding to undo. Any but these two makes `feed` raise if the body really is compressed.

    Attributes:
        more: There is more output for the bytes taken so far: call `feed` again, without new bytes, to get it.
    """

    def __init__(self, encoding: str) -> None:
        self.more = False
        self._encoding = encoding
        self._known = False  # whether it is clear if the body is compressed
        self._held = b""  # bytes still to be decompressed
        self._stream: Any = None  # zlib's decompressor; None if the body is not compressed

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take the next bytes, or the last; return a block of what they decompress to.

        Raises:
            ResponseError: They cannot be decompressed.
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
        raise self._failed(why)  # out here, so that it has no context, which would hold frames

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
        self.more = len(block) == _BLOCK_BYTES
        if self._stream.eof:
            self.more = data.startswith(_GZIP)  # another gzip member follows (RFC 1952 §2.2)
            if self.more:
                self._stream = zlib.decompressobj(31)
            else:
                self._held = data[: len(_GZIP)]
        return block

    def _failed(self, why: str) -> ResponseError:
        return ResponseError(f"The answer cannot be decompressed (Content-Encoding: {self._encoding}): {why}.")
