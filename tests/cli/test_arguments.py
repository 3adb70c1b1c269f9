"""Arguments → `Arguments`, in this process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rusty_agent
from rusty_agent.cli.arguments import Arguments, parse
from rusty_agent.cli.batch_arguments import parse_batch
from rusty_agent.presets import PRESETS

from .process import environment, run


def refused(*argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("rusty-agent: error: ")
    assert said.count("\n") == 1
    return said


def told(*argv: str) -> tuple[str | None, str | None]:
    arguments = parse(argv)
    return arguments.local, arguments.prompt


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUSTY_AGENT_MODEL", raising=False)
    arguments = parse(["hi"])
    assert isinstance(arguments, Arguments)
    assert vars(arguments) == {
        "words": ["hi"],
        "pairs": None,
        "prompt": "hi",
        "wait_for_stdin": False,
        "model": None,
        "preset": "openrouter",
        "base_url": None,
        "trust_env": False,
        "system": None,
        "temperature": None,
        "max_tokens": None,
        "json": False,
        "schema": None,
        "usage": False,
        "stream": True,
        "timeout": None,
        "local": None,
        "options": {},
        "debug": False,
    }


def test_model_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTY_AGENT_MODEL", "from-env")
    assert parse(["hi"]).model == "from-env"
    assert parse(["-m", "given", "hi"]).model == "given"
    assert parse(["--local", "hi"]).model is None
    monkeypatch.setenv("RUSTY_AGENT_MODEL", "")
    assert parse(["hi"]).model is None


def test_home_stands_for_its_folder_in_a_models_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", "/home/me")
    assert parse(["--local=~/model.gguf", "hi"]).local == "/home/me/model.gguf"
    assert parse_batch(["in", "-o", "out", "--local", "~/model.gguf"]).local == "/home/me/model.gguf"


def test_all_options_before_and_after_the_prompt() -> None:
    options = ["-t", "0.5", "--max-tokens=7", "--system", "be brief", "--preset", "groq", "--base-url", "http://x"]
    for argv in ([*options, "hi"], ["hi", *options], [*options[:2], "hi", *options[2:]]):
        arguments = parse(argv)
        assert (arguments.prompt, arguments.temperature, arguments.max_tokens) == ("hi", 0.5, 7)
        assert (arguments.system, arguments.preset, arguments.base_url) == ("be brief", "groq", "http://x")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--local", "Explain streaming in one sentence."], ("", "Explain streaming in one sentence.")),
        (["Explain.", "--local"], ("", "Explain.")),
        (["--local"], ("", None)),
        (["--local", "model.gguf", "Explain."], ("model.gguf", "Explain.")),
        (["--local", "/models/BIG.GGUF", "Explain."], ("/models/BIG.GGUF", "Explain.")),
        (["--local", "Explain.", "--usage"], ("", "Explain.")),
        (["--local", "--usage", "Explain."], ("", "Explain.")),
        (["--local=odd-name", "Explain."], ("odd-name", "Explain.")),
        (["--local=", "Explain."], ("", "Explain.")),
        (["--local", "--", "model.gguf"], ("", "model.gguf")),
        (["--local", "-"], ("", None)),
        (["--", "--local"], (None, "--local")),
        (["--local", "x" * 100_000], ("", "x" * 100_000)),
        (["--local", "null\0byte"], ("", "null\0byte")),
    ],
)
def test_local_takes_a_model_but_not_the_prompt(argv: list[str], expected: tuple[str | None, str | None]) -> None:
    assert told(*argv) == expected


def test_local_takes_any_existing_file(tmp_path: Path) -> None:
    model = tmp_path / "weights"
    model.touch()
    assert told("--local", str(model), "hi") == (str(model), "hi")
    assert told("--local", str(tmp_path)) == ("", str(tmp_path))  # a folder is no model


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("seed=7", 7),
        ("top_p=0.5", 0.5),
        ("stop=END", "END"),
        ('stop=["a","b"]', ["a", "b"]),
        ("flag=true", True),
        ("gone=null", None),
        ("text=a=b", "a=b"),
        ('text="7"', "7"),
        ("text=", ""),
        ("text=NaN", "NaN"),
        ("text=\udcff", "\udcff"),
    ],
)
def test_option_values(pair: str, expected: object) -> None:
    assert list(parse(["-o", pair, "hi"]).options.values()) == [expected]


@pytest.mark.parametrize("argv", [["-", "hi"], ["hi", "-"], ["hi", "-t", "1", "-"], ["-", "--json", "hi"]])
def test_a_dash_anywhere_is_standard_input(argv: list[str]) -> None:
    arguments = parse(argv)
    assert (arguments.prompt, arguments.wait_for_stdin) == ("hi", True)


def test_options_add_up_and_the_last_wins() -> None:
    assert parse(["-o", "a=1", "hi", "--option", "b=2", "-oa=3"]).options == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (["-o", "seed"], "'seed' is not KEY=VALUE"),
        (["-o", "=7"], "'=7' is not KEY=VALUE"),
        (["in.jsonl", "-o", "out.jsonl"], "not KEY=VALUE: for a file of prompts, use `rusty-agent batch`"),
        (["in.csv", "-o", "OUT.CSV"], "not KEY=VALUE: for a file of prompts, use `rusty-agent batch`"),
        (["-t", "warm"], "'warm' is not a number"),
        (["--max-tokens", "1.5"], "'1.5' is not a whole number"),
        (["--json", "--schema", "x.json"], "not allowed with"),
        (["what", "is", "this"], "expected one PROMPT, not 3: put it in quotes"),
        (["what", "-t", "1", "is this"], "expected one PROMPT, not 2: put it in quotes"),
        (["--sys", "x", "hi"], "unrecognized arguments: --sys (see"),
        (["--modle", "x", "hi"], "unrecognized arguments: --modle: did you mean --model?"),
        (["--timeout", "soon", "hi"], "'soon' is not a positive number"),
        (["--local", "-m", "x", "hi"], "leave out --model"),
        (["--local", "--preset", "groq", "hi"], "leave out --preset"),
        (["--local", "--base-url", "http://x", "hi"], "leave out --base-url"),
        (["--debug", "batch", "in.jsonl", "-o", "out"], "'out' is not KEY=VALUE; the batch command must come first"),
        (["--debug", "batch", "in.jsonl"], "put it in quotes; the batch command must come first"),
        (["--steer\x1b[2J\n"], "--steer\\x1b[2J"),
    ],
)
def test_mistakes(argv: list[str], fragment: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fragment in refused(*argv, capsys=capsys)


@pytest.mark.parametrize("command", [[], ["batch", "in.jsonl", "-o", "out.jsonl"]])
@pytest.mark.parametrize("key", [["--api-key=sk-secret"], ["--api-key", "sk-secret"], ["-ksk-secret"]])
def test_a_key_is_not_shown(command: list[str], key: list[str]) -> None:
    ended = run(*command, *key)
    assert (ended.code, ended.out) == (1 if command else 2, "")
    assert "unrecognized arguments: -" in ended.err
    assert "sk-secret" not in ended.err
    assert ("comes from the environment" in ended.err) == ("--api-key" in ended.err)


def test_version_and_help() -> None:
    assert run("--version") == (0, f"rusty-agent {rusty_agent.__version__}\n", "")
    shown = run("--help")
    assert (shown.code, shown.err) == (0, "")
    for option in ("--model", "--preset", "--base-url", "--system", "--temperature", "--max-tokens", "--json"):
        assert option in shown.out
    examples = [line for line in shown.out.splitlines() if line.startswith(("  rusty-agent ", "  git "))]
    assert all(re.search(" (-m|--local|batch) ", line) for line in examples)
    for option in ("--schema", "--usage", "--no-stream", "--local", "-o", "--version", "--debug", "examples:"):
        assert option in shown.out


@pytest.mark.parametrize("words", [[], ["batch"]])
def test_the_help_fits_a_terminal_and_names_every_preset(words: list[str]) -> None:
    shown = run(*words, "--help", env={"COLUMNS": "80"}).out
    assert max(map(len, shown.splitlines())) < 80
    told = " ".join(shown.split())
    assert [name for name in PRESETS if not re.search(rf"\b{re.escape(name)}\b", told)] == []


def test_version_imports_nothing_heavy() -> None:
    script = (
        "import sys; from rusty_agent.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('aiohttp', 'asyncio', 'attrs', 'backoff', 'orjson', 'ssl') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert shown.stdout.splitlines()[1:] == ["[]"]
