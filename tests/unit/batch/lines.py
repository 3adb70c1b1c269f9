"""Lines of a batch's files, for the tests of its store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rusty_agent.batch.files import Files
from rusty_agent.batch.lines import refusal_line
from rusty_agent.batch.rows import BadLine
from rusty_agent.wire.codec import dumps

HOLE = b"\0" * 40


def result(custom_id: str, line: int | None = None, text: str = "") -> bytes:
    """A result, without its newline."""
    response = {"status_code": 200, "request_id": "r", "body": {"choices": [{"message": {"content": text}}]}}
    facts = {} if line is None else {"line": line, "attempts": 1}
    return dumps({"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None, "x_rusty": facts})


def failure(custom_id: str, line: int | None = None, *, permanent: bool = False) -> bytes:
    """An error, without its newline."""
    error = {"code": "timeout", "message": "too late"}
    facts = {"permanent": permanent} if line is None else {"permanent": permanent, "line": line}
    return dumps({"id": "batch_req_1", "custom_id": custom_id, "response": None, "error": error, "x_rusty": facts})


def refusal(line: int) -> bytes:
    """The error line for a bad line of the input, without its newline."""
    return refusal_line("1", BadLine(line, "no request"))


def batch(folder: Path, results: list[bytes] | None = None, errors: list[bytes] | None = None) -> Files:
    """A batch's files with these lines; None makes no file."""
    files = Files.of(folder / "out.jsonl")
    for path, lines in ((files.output, results), (files.errors, errors)):
        if lines is not None:
            path.write_bytes(b"".join(line + b"\n" for line in lines))
    return files


@contextmanager
def unsynced() -> Iterator[None]:
    """Leave out fsync, for tests that run many examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield
