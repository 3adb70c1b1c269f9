"""The benchmark runs, without what it compares with; and its page says what its figures say."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import page
from benchmarks.parts import BARS, PARTS

ROOT = Path(__file__).parent.parent


def test_a_part_runs_and_its_figures_make_a_page(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "burst", "--quick", "--rounds", "1", "-o", str(output)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    clients = {result["client"] for result in found["results"]}
    assert clients >= {"raw", "plain", "tuned", "ours"}
    assert all(row["cost"] > 0 for result in found["results"] for row in result["rounds"])
    assert "burst  20 streams  asyncio  ours / tuned" in done.stdout
    made = page.render(found)
    assert "## burst: " in made
    assert "## request: " not in made
    assert "| burst | 20 streams | asyncio | ours / tuned | ≤ 1.05 |" in made


def test_a_processor_without_a_name_is_told_as_python_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: "processor\t: 0\nCPU part\t: 0xd0c\n")  # as on ARM
    assert program._processor() == platform.processor()


def test_the_page_is_what_its_figures_make() -> None:
    assert page.PAGE.read_text() == page.render(json.loads(page.FIGURES.read_text()))


def test_a_bar_that_is_missed_shows_that_it_is() -> None:
    """Rounded alike, the two figures would look like a mistake."""
    for *_, wanted, said, met in page.bar_rows(json.loads(page.FIGURES.read_text())["results"]):
        assert met != "**missed**" or wanted.split()[-1] != said


def test_every_bar_is_about_something_that_is_measured() -> None:
    for bar in BARS:
        if bar.part in PARTS:
            part = PARTS[bar.part]
            assert {bar.label, bar.over_label or bar.label} <= part.works.keys()
            assert {bar.of, *bar.over} <= set(part.clients)
        assert (bar.most is None) != (bar.least is None)
