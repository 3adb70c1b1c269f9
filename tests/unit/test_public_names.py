"""What `import rusty_agent` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator

import pytest

import rusty_agent
from rusty_agent import errors


@pytest.mark.parametrize("name", rusty_agent.__all__)
def test_every_name_resolves_to_the_same_thing_each_time(name: str) -> None:
    assert getattr(rusty_agent, name) is getattr(rusty_agent, name)


def test_the_lists_agree() -> None:
    assert dir(rusty_agent) == sorted(rusty_agent.__all__)
    assert len(set(rusty_agent.__all__)) == len(rusty_agent.__all__)
    assert {*rusty_agent._HOME, *errors.__all__, "__version__"} == set(rusty_agent.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'rusty_agent' has no attribute 'nothing'"):
        _ = rusty_agent.nothing  # type: ignore[attr-defined]  # which checkers see, too
    assert not hasattr(rusty_agent, "_nothing")


@pytest.mark.parametrize("name", rusty_agent.__all__)
def test_names_are_at_home_in_this_package(name: str) -> None:
    home = getattr(getattr(rusty_agent, name), "__module__", "rusty_agent")
    assert home.startswith(("rusty_agent", "typing", "types"))


def _documented() -> Iterator[tuple[str, object]]:
    for name in rusty_agent.__all__:
        thing = getattr(rusty_agent, name)
        if not inspect.isclass(thing):
            continue
        yield name, thing
        for owner in thing.__mro__:
            if owner.__module__.startswith("rusty_agent"):
                for part, member in vars(owner).items():
                    if not part.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
                        yield f"{name}.{part}", member


@pytest.mark.parametrize(("name", "thing"), [*dict(_documented()).items()], ids=[*dict(_documented())])
def test_what_is_public_is_documented(name: str, thing: object) -> None:
    assert inspect.getdoc(thing), name


def _imported_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {name.partition(".")[0] for name in done.stdout.split()}


HEAVY = {"aiohttp", "attr", "attrs", "asyncio", "orjson", "backoff", "yarl"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import rusty_agent", HEAVY),
        ("import rusty_agent; dir(rusty_agent); rusty_agent.__version__", HEAVY),
        ("from rusty_agent import RateLimitError", HEAVY),
        ("from rusty_agent import GenerateResult", {"aiohttp", "asyncio", "orjson", "backoff"}),
        ("import rusty_agent.wire.reply, rusty_agent.wire.request", {"aiohttp", "asyncio", "backoff"}),
    ],
)
def test_what_an_import_leaves_alone(statement: str, absent: set[str]) -> None:
    assert _imported_by(statement) & absent == set()
