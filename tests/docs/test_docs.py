"""What the pages say is so: links, names, defaults, tables."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import rusty_agent
from rusty_agent.batch.rows import Row, parse_row
from rusty_agent.cli.arguments import parse
from rusty_agent.cli.batch_arguments import parse_batch
from rusty_agent.config import Settings
from rusty_agent.many import AsyncMapItems
from rusty_agent.parameters import AsyncOptions, Parameters, RunParameters
from rusty_agent.presets import PRESETS
from rusty_agent.sync.many import MapItems
from rusty_agent.verdict import RETRIED_STATUSES
from rusty_agent.wire import refusal
from tests.integration.faults import ALL
from tests.test_architecture import DOORS

from . import faults_page
from .pages import DOCS, PAGES, README, ROOT, anchors, blocks, links, page, prose

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
    """What stands under headings that name `title`, each up to the next heading of its level or a higher one."""
    pattern = rf"^(#+) [^\n]*`{re.escape(title)}`[^\n]*\n(.*?)(?=^#{{1,2}} |^\1 |\Z)"
    found = [match[2] for match in re.finditer(pattern, text, re.M | re.S)]
    assert found, f"no heading for {title}"
    return "".join(found)


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
            if not part.startswith("_"):
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
    for name in [*AsyncOptions.__annotations__, "model", "api_key", "base_url", "preset"]:
        assert re.search(rf"^\| `{name}` \|", section(text, "AsyncProvider"), re.MULTILINE), name


def test_rows_of_a_batch_set_the_parameters_that_the_page_says() -> None:
    names = [*Parameters.__annotations__, "stream", "include_usage"]
    row = parse_row({"prompt": "x", **dict.fromkeys(names)}, 1)
    assert isinstance(row, Row)
    [sentence] = re.findall(r"wins over the\s+command\. (.*?) do not:", page("batch.md"), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(row.fields)


def test_reference_has_every_parameter_of_a_run() -> None:
    text = page("api-reference.md")
    for title, method in (("gather", rusty_agent.AsyncProvider.gather), ("map", rusty_agent.AsyncProvider.map)):
        own = set(inspect.signature(method).parameters) - Parameters.__annotations__.keys() - {"self"}
        assert own > RunParameters.__annotations__.keys() - Parameters.__annotations__.keys()
        for name in own:
            assert re.search(rf"^\| `{name}` \|", section(text, title), re.MULTILINE), name
    for name in inspect.signature(rusty_agent.run_batch).parameters.keys() - Parameters.__annotations__.keys():
        assert re.search(rf"^\| `{name}` \|", section(text, "run_batch"), re.MULTILINE), name


@pytest.mark.parametrize(("parser", "title"), [(parse, "## Command line"), (parse_batch, "and `rusty-agent batch`")])
def test_reference_has_every_option_of_the_command_line(
    parser: Callable[[list[str]], object], title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser(["--help"])
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out.partition("\nexamples:")[0]))
    assert len(options) > 10
    told = page("api-reference.md").partition(title)[2].partition("\n### ")[0]
    assert {option for option in options if not re.search(rf"^\|.* `[^|]*{option}\b", told, re.MULTILINE)} == set()


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


def test_configuration_lists_the_statuses_that_are_retried() -> None:
    [told] = re.findall(r"and the statuses (408,[^.]*)\.", page("configuration.md"))
    ranges = re.findall(r"(\d+)(?: to (\d+))?", told)
    assert {
        status for first, last in ranges for status in range(int(first), int(last or first) + 1)
    } == RETRIED_STATUSES


def test_configuration_lists_the_parameters_that_may_be_left_out() -> None:
    told = page("configuration.md").partition("These may be left out:")[2].partition("If you depend")[0]
    assert set(re.findall(r"`(\w+)`", told)) == refusal._OPTIONAL


# Architecture.


def test_layout_is_that_of_the_package() -> None:
    """It names all that is at the top, and all files of a room or none."""
    layout = next(block.code for block in blocks(DOCS / "architecture.md") if "rusty_agent/\n" in block.code)
    rooms: dict[str, set[str]] = {}
    within = [""]  # the rooms around a line, from the outermost on; each is indented by two more
    for indent, name in re.findall(r"^( +)([\w.]+/?)(?= |$)", layout, re.MULTILINE):
        del within[len(indent) // 2 :]
        rooms.setdefault("".join(within), set()).add(name)
        within.append(name)
    for room, named in rooms.items():
        there = {entry.name + "/" * entry.is_dir() for entry in (ROOT / "rusty_agent" / room).iterdir()}
        assert named == there - {"__pycache__/", "py.typed"} - ({"__init__.py"} if room else set()), room
    assert {"", "wire/", "net/", "net/limits/", "sync/"} <= rooms.keys()


def test_the_doors_are_those_that_the_architecture_tests_hold() -> None:
    told = dict(re.findall(r"^\| (\w+)[^|]* \| `([\w/.]+)` \|", page("architecture.md"), re.MULTILINE))
    assert told == DOORS


def test_contributing_names_every_folder_of_tests() -> None:
    told = set(re.findall(r"^\| `tests/(\w+)` \|", page("contributing.md"), re.MULTILINE))
    assert told == {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}


# Troubleshooting.


def test_troubleshooting_names_what_python_names() -> None:
    told = page("troubleshooting.md")
    asynchronous = set(re.findall(r"'(\w+)' object is not iterable", told))
    assert asynchronous == {rusty_agent.AsyncTextStream.__name__, AsyncMapItems.__name__}
    assert set(re.findall(r" got (\w+)`", told)) == {rusty_agent.TextStream.__name__, MapItems.__name__}


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
