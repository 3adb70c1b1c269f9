"""The documentation as data: pages, their fenced blocks, headings, links and commands.

In: README.md and docs/*.md. Out: values to test. Never touched: the pages themselves.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from attrs import define

__all__ = [
    "DOCS",
    "PAGES",
    "README",
    "ROOT",
    "Block",
    "anchors",
    "blocks",
    "commands",
    "compiled",
    "examples",
    "links",
    "page",
    "prose",
]

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_OUTPUT = re.compile(r"# ->(?: (.*)|$)", re.MULTILINE)


@define(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The file that it is in.
        line: The line of its opening fence, from 1.
        language: The first word after the fence.
        notes: The words that follow the language: `no-run`, `continued`.
        code: The text in the block.
    """

    page: Path
    line: int
    language: str
    notes: tuple[str, ...]
    code: str

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def output(self) -> list[str]:
        """What its `# -> ` comments say it prints."""
        return _OUTPUT.findall(self.code)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, *notes = match[1].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, tuple(notes), match[2]))
    return found


def examples() -> list[list[Block]]:
    """The Python blocks that must run; a block marked `continued` runs after the one before it on its page."""
    groups: list[list[Block]] = []
    for page in PAGES:
        before = len(groups)
        for block in blocks(page):
            if block.language != "python" or "no-run" in block.notes:
                continue
            if "continued" in block.notes:
                assert len(groups) > before, f"{block.where} continues nothing"
                groups[-1].append(block)
            else:
                groups.append([block])
    return groups


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block as lists of words; pipes and lists are split, and redirections left out."""
    joined = block.code.replace("\\\n", " ")
    for line in joined.splitlines():
        line = line.removeprefix("$ ")
        if block.language == "console" and line not in (text.removeprefix("$ ") for text in _typed(joined)):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        skip = False
        for word in lexer:
            if set(word) <= set("<>"):
                skip = True
            elif set(word) <= set("|&;"):
                yield command
                command = []
            elif skip:
                skip = False
            else:
                command.append(word)
        if command:
            yield command


def _typed(text: str) -> list[str]:
    """The lines of a session that were typed."""
    return [line for line in text.splitlines() if line.startswith("$ ")]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """The link fragments of a page's headings, by GitHub's rules."""
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-")
        number, name = 0, slug
        while name in found:
            number += 1
            name = f"{slug}-{number}"
        found.add(name)
    return found


def page(name: str) -> str:
    """The text of a page of `docs`."""
    return (DOCS / name).read_text(encoding="utf-8")


def compiled(block: Block) -> CodeType:
    """The block's compiled code, with `await` allowed at the top level and the page's line numbers."""
    code: CodeType = compile(
        "\n" * block.line + block.code, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    return code
