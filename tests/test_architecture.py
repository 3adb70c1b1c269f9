"""House rules that a program can check: imports run downward, a dependency has one door, tests mirror the package."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "rusty_agent"

# From the ground up. A room may import from rooms below it and from itself.
FLOORS = (
    {"checks", "remedy", "verdict"},
    {"errors", "policy", "types"},
    {"presets", "progress"},
    {"keys", "parameters"},
    {"config", "constructors", "copies"},
    {"wire"},
    {"net"},
    {"requests", "stop_rule"},
    {"call", "run"},
    {"calls"},
    {"outcome"},
    {"stream", "many"},
    {"provider"},
    {"sync"},
    {"batch", "testing", "local"},
    {"contrib"},
    {"cli"},
    {"__main__"},
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
DOORS = {
    "orjson": "wire/codec.py",
    "aiohttp": "net/http/",
    "backoff": "net/retry.py",
    "uvloop": "sync/loop.py",
    "xllamacpp": "local/child.py",
    "tqdm": "progress/show.py",
    "ray": "contrib/ray.py",
}
# Rooms whose code is loaded where it is used, because it is optional.
LAZY = {("provider", "local")}
# Rooms whose tests stand beside `unit`: most of them need more than one module.
BESIDE_UNIT = {"cli", "contrib", "local"}
# Modules that make sense only with something at their other end, and the tests that are about them, among others.
TESTED_WITH_OTHERS = {
    "__main__.py": "cli/test_arguments.py",
    "call.py": "integration/test_cancellation.py",
    "calls.py": "integration/test_calls.py",
    "cli/ask.py": "cli/test_answers.py",
    "cli/output.py": "cli/test_endings.py",
    "local/child.py": "local/test_lifetime.py",
    "local/process.py": "local/test_stand_ins.py",
    "local/server.py": "local/test_stand_ins.py",
    "local/transport.py": "local/test_crash.py",
    "many.py": "integration/test_many.py",
    "net/attempt.py": "integration/test_timeouts.py",
    "net/http/direct.py": "integration/test_direct.py",
    "net/http/pool.py": "integration/test_direct.py",
    "net/http/transport.py": "integration/test_transport.py",
    "outcome.py": "integration/test_calls.py",
    "provider.py": "integration/test_adapting.py",
    "stream.py": "integration/test_views.py",
    "sync/loop.py": "integration/test_facade.py",
    "sync/many.py": "integration/test_many_ends.py",
    "sync/provider.py": "integration/test_adapting.py",
    "sync/stream.py": "integration/test_views.py",
    "testing/answers.py": "integration/test_server.py",
    "testing/server.py": "integration/test_server.py",
}

FILES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text())


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports for real, as an absolute name."""
    return tuple(_imports(path, parsed(path)))


def _imports(path: Path, tree: ast.Module) -> Iterator[str]:
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["rusty_agent", *path.parts[:-1]]
            if node.level:
                base = base[: len(base) - node.level + 1]
                names = [node.module] if node.module else [alias.name for alias in node.names]
                yield from (".".join([*base, name]) for name in names)
            elif node.module:
                yield node.module


def test_imports_run_downward() -> None:
    for path in FILES:
        room = room_of(path)
        if room == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "rusty_agent" or len(parts) == 1 or parts[1] == "__version__":
                continue
            if (room, parts[1]) not in LAZY:
                assert LEVEL[parts[1]] < LEVEL[room] or parts[1] == room, f"{path} imports {name}"


def _is_door(path: str, dependency: str) -> bool:
    door = DOORS[dependency]
    return path.startswith(door) if door.endswith("/") else path == door


def test_each_dependency_has_one_door() -> None:
    for path in FILES:
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in DOORS or _is_door(path.as_posix(), top), f"{path} imports {name}"


def test_wire_is_pure() -> None:
    for path in FILES:
        if room_of(path) == "wire":
            foreign = {name.split(".")[0] for name in imports(path)}
            assert not foreign & {"asyncio", "aiohttp", "socket", "time", "threading", "os", "ssl", "random"}, path


def test_the_walk_sees_what_it_looks_for() -> None:
    """The tests above would pass on anything if the imports were not found."""
    found = {(path.as_posix(), name.split(".")[0]) for path in FILES for name in imports(path)}
    for name in DOORS:
        assert any(_is_door(path, name) and top == name for path, top in found), name


def test_every_module_says_what_it_is_for() -> None:
    for path in FILES:
        assert ast.get_docstring(parsed(path)), path


def test_tests_mirror_the_package() -> None:
    """Whoever changes a module looks for its tests where they stand in `tests` as it stands in the package."""
    modules = {path.as_posix(): path for path in FILES if path.name != "__init__.py"}
    assert TESTED_WITH_OTHERS.keys() <= modules.keys()
    for name, path in modules.items():
        folder = TESTS if room_of(path) in BESIDE_UNIT else TESTS / "unit"
        own = folder / path.with_name(f"test_{path.name}")
        if name in TESTED_WITH_OTHERS:
            assert (TESTS / TESTED_WITH_OTHERS[name]).exists(), TESTED_WITH_OTHERS[name]
            assert not own.exists(), f"{name} is no exception any more"
        else:
            assert own.exists(), f"{name} has no tests of its own: write {own.relative_to(TESTS)}"
