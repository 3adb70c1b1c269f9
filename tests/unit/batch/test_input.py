"""What a look at the whole input finds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rusty_agent.batch.estimate import Estimate
from rusty_agent.batch.input import KEPT_BAD, Checked
from rusty_agent.batch.rows import BadLine

from .sources import source_of


def test_the_first_bad_lines_are_kept_and_all_are_counted() -> None:
    checked = Checked()
    for line in range(1, KEPT_BAD + 6):
        checked.add_bad(BadLine(line, f"reason {line}"))
    assert (checked.bad_count, len(checked.bad), checked.bad[-1].line) == (KEPT_BAD + 5, KEPT_BAD, KEPT_BAD)
    said = checked.complaint().splitlines()
    assert said[0] == "25 lines of the input are not requests; nothing was sent."
    assert said[1] == "  line 1: reason 1"
    assert said[KEPT_BAD + 1] == "  … and 5 more"


def test_check(tmp_path: Path) -> None:
    lines = [
        {"prompt": "one", "max_tokens": 5},
        {"prompt": "x", "custom_id": "a", "temperature": "hot"},
        {"prompt": "two", "custom_id": "a"},
        {"prompt": "three", "custom_id": "b", "max_tokens": 6},
        {"prompt": "four", "custom_id": "a"},
        {"prompt": "five", "custom_id": "1"},
        {"prompt": "six", "custom_id": "a"},
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    source = source_of(tmp_path, data)
    estimate = Estimate({})
    checked = source.check(good=estimate.add)
    assert source.digest() == (hashlib.sha256(data).hexdigest(), len(data))
    assert (checked.rows, checked.bad_count) == (3, 4)
    assert (estimate.rows, estimate.prompt_characters) == (3, 3 + 3 + 5)
    assert (estimate.rows_with_max_tokens, estimate.max_tokens) == (2, 11)
    assert checked.bad == [
        BadLine(2, "temperature must be a finite number, not 'hot'"),
        BadLine(5, "an earlier row has the same custom_id, 'a'"),
        BadLine(6, "an earlier row has the same custom_id, '1'"),
        BadLine(7, "an earlier row has the same custom_id, 'a'"),
    ]
    some = source.check(limit=2)
    assert (some.rows, some.bad_count) == (1, 1)


def test_check_counts_more_bad_lines_than_it_keeps(tmp_path: Path) -> None:
    checked = source_of(tmp_path, b'{"prompt":"x","custom_id":"a"}\n' * (KEPT_BAD + 100)).check()
    assert (checked.rows, checked.bad_count, len(checked.bad)) == (1, KEPT_BAD + 99, KEPT_BAD)
    assert {bad.reason for bad in checked.bad} == {"an earlier row has the same custom_id, 'a'"}
