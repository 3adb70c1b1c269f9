"""The recorded answers in tests/data/wire, each as its status, its headers and its decoded body."""

from __future__ import annotations

import zlib
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1] / "data" / "wire"
NAMES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.txt"))


@attrs.define
class Transcript:
    """One recorded answer; its status is 0 if the server closed the connection without sending a byte."""

    status: int
    headers: dict[str, str]
    body: bytes


def load(name: str) -> Transcript:
    """Read a transcript, and decode its transfer and content codings."""
    raw = (ROOT / f"{name}.txt").read_bytes()
    if not raw:
        return Transcript(0, {}, b"")
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _dechunked(body)
    if headers.get("content-encoding") == "gzip":
        body = zlib.decompressobj(31).decompress(body)
    return Transcript(int(first.split()[1]), headers, body)


def _dechunked(body: bytes) -> bytes:
    pieces = []
    while body:  # a body that was cut off ends without its last chunk
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(body[:length])
        body = body[length + 2 :] if length else b""
    return b"".join(pieces)
