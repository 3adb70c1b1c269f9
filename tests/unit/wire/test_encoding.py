"""Compressed bodies, and those that only claim to be, at any split of their bytes."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.errors import ResponseError
from rusty_agent.wire.encoding import Inflater, inflater_for
from tests.replies import in_bytes, in_two

BODY = b'{"choices": [{"message": {"content": "Hi"}}]}\n' * 3


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def _undone(encoding: str, pieces: list[bytes]) -> bytes:
    inflater = Inflater(encoding)
    blocks = [block for piece in pieces for block in _blocks(inflater, piece)]
    return b"".join([*blocks, *_blocks(inflater, b"", last=True)])


def _blocks(inflater: Inflater, data: bytes, *, last: bool = False) -> list[bytes]:
    blocks = [inflater.feed(data, last=last)]
    while inflater.more:
        blocks.append(inflater.feed(b"", last=last))
    return blocks


@pytest.mark.parametrize(
    "encoding", [None, "", "identity", " Identity , identity", "none", "UTF-8", "chunked", "aws-chunked"]
)
def test_nothing_to_undo(encoding: str | None) -> None:
    assert inflater_for(encoding) is None


ENCODINGS = {
    "gzip": ("gzip", gzip.compress(BODY)),
    "case": (" GZIP, identity", gzip.compress(BODY)),
    "x-gzip": ("x-gzip", gzip.compress(BODY)),
    "members": ("gzip", gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])),
    "garbage": ("gzip", gzip.compress(BODY) + b"garbage"),
    "cut": ("gzip", gzip.compress(BODY)[:-8]),  # without its checksum
    "only-claimed": ("gzip", BODY),
    "zlib": ("deflate", zlib.compress(BODY)),
    "raw": ("deflate", _raw_deflate(BODY)),
    "only-claimed-deflate": ("deflate", BODY),
    "only-claimed-br": ("br", BODY),
}


@pytest.mark.parametrize(("encoding", "packed"), ENCODINGS.values(), ids=ENCODINGS)
def test_every_encoding_is_undone_byte_by_byte(encoding: str, packed: bytes) -> None:
    inflater = inflater_for(encoding)
    assert inflater is not None
    name = inflater._encoding
    assert _undone(name, in_bytes(packed)) == BODY
    for pieces in in_two(packed):
        assert _undone(name, list(pieces)) == BODY


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip,gzip"])
def test_what_was_not_asked_for(encoding: str) -> None:
    with pytest.raises(ResponseError, match=f"Content-Encoding: {encoding}"):
        _undone(encoding, [b"\x8b\x02\x80{}\x03", b""])


def test_a_damaged_body_is_an_error() -> None:
    packed = bytearray(gzip.compress(BODY))
    packed[20] ^= 0xFF
    with pytest.raises(ResponseError, match="cannot be decompressed") as raised:
        _undone("gzip", [bytes(packed)])
    assert raised.value.__context__ is None  # it would hold all that reads the answer


@given(st.binary(max_size=64), st.sampled_from(["gzip", "deflate"]))
def test_no_bytes_raise_anything_else(data: bytes, encoding: str) -> None:
    with suppress(ResponseError):
        assert _undone(encoding, [data]) is not None


def test_blocks_are_bounded() -> None:
    inflater = Inflater("gzip")
    sizes = [len(block) for block in _blocks(inflater, gzip.compress(bytes(5 * 2**20)))]
    assert sum(sizes) == 5 * 2**20
    assert max(sizes) == 2**16


def test_a_body_of_no_bytes() -> None:
    assert _undone("gzip", []) == b""
