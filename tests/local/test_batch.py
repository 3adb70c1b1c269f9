"""A batch answered by a real model on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.runs import ids, read, write_rows
from tests.cli.process import ON_ONE_CORE, run

pytestmark = pytest.mark.real_model


def test_a_batch_of_a_local_model(model: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ["Say yes.", "Say no."])
    file = tmp_path / "small.gguf"
    file.symlink_to(model)
    batch = ["batch", str(source), "-o", str(tmp_path / "out.jsonl"), "--local", str(file), "--max-tokens", "4"]
    ended = run(*batch, "--progress", "off", env={}, program=ON_ONE_CORE)
    assert ended == (0, "", "rusty-agent batch: 2 answered\n")
    assert sorted(ids(tmp_path / "out.jsonl")) == ["1", "2"]
    assert all(line["response"]["body"]["choices"][0]["message"]["content"] for line in read(tmp_path / "out.jsonl"))
    file.unlink()
    file.write_bytes(b"GGUF")  # which cannot be loaded, and need not be
    again = run(*batch, "--progress", "off", env={})
    assert again == (0, "", "rusty-agent batch: 0 answered, 2 were answered earlier\n")
