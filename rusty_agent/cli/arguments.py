"""The command line's arguments → `Arguments`.

In: the arguments, `RUSTY_AGENT_MODEL`. Out: `Arguments`, or one line on stderr and exit code 2. Never touched:
standard input, files' contents, the network. Nothing heavy is imported, so that `--help` and `--version` are quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from .output import Output, complain, one_line

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = [
    "Arguments",
    "Parser",
    "add_debug",
    "add_endpoint",
    "add_sampling",
    "local_apart",
    "number",
    "parse",
    "positive",
    "refuse_unknown",
    "settle_endpoint",
    "whole",
]

_EXAMPLES = """\
examples:
  rusty-agent -m openai/gpt-4o-mini "Explain streaming in one sentence."
  rusty-agent --local "Explain streaming in one sentence."
  git diff | rusty-agent -m openai/gpt-4o-mini "Write a commit message:"
  rusty-agent --preset ollama -m llama3.2 --system "Be brief." < question.txt
  rusty-agent -m openai/gpt-4o-mini --schema s.json -o seed=7 < mail.txt | jq .
  rusty-agent batch --help

standard input:
  Without PROMPT, standard input is the prompt. With PROMPT, it is appended
  after a blank line: a file always, a pipe only if something arrives on it
  within a second. With - the command waits for the pipe:
  slow | rusty-agent "Summarise:" -

environment variables:
  OPENROUTER_API_KEY, OPENAI_API_KEY, ...  the key, by preset
  RUSTY_AGENT_MODEL                        the model if -m is not given
  RUSTY_AGENT_REQUEST_TIMEOUT_SECS         the time limit without --timeout
  RUSTY_AGENT_MAX_RETRIES                  retries after a failure (default: 2)

exit codes:
  0    the endpoint has finished its answer
  1    an error, a refusal, or tool calls
  2    wrong usage, such as no key
  130  Ctrl-C
  141  the reader of standard output has gone
"""


class Arguments(argparse.Namespace):
    """The parsed arguments.

    Attributes:
        prompt: The prompt's text, or None.
        wait_for_stdin: Whether `-` was given.
        local: None for an endpoint; else a GGUF file, or "" for the installed model.
        options: Further fields of the request.
    """

    prompt: str | None
    wait_for_stdin: bool
    model: str | None
    preset: str
    base_url: str | None
    trust_env: bool
    system: str | None
    temperature: float | None
    max_tokens: int | None
    json: bool
    schema: str | None
    usage: bool
    stream: bool
    timeout: float | None
    local: str | None
    options: dict[str, Any]
    debug: bool


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the arguments.

    Raises:
        SystemExit: They are invalid (2), or `--help` or `--version` was given (0).
    """
    parser = _parser()
    if "batch" in argv:
        parser.hint = "; the batch command must come first"
    arguments, left = parser.parse_known_args(local_apart(argv), Arguments())
    refuse_unknown(left, parser)
    words = [*arguments.words, *left]  # argparse leaves words that come after an option that follows the first word
    arguments.wait_for_stdin = "-" in words
    texts = [word for word in words if word != "-"]
    if len(texts) > 1:
        parser.error(f"expected one PROMPT, not {len(texts)}: put it in quotes")
    arguments.prompt = texts[0] if texts else None
    arguments.options = dict(arguments.pairs or ())
    settle_endpoint(arguments, parser)
    return arguments


def refuse_unknown(left: Sequence[str], parser: Parser) -> None:
    """Refuse unknown options; the message shows only their names, because a value may be a key."""
    unknown = [_name(word) for word in left if word.startswith("-") and word not in ("-", "--")]
    if not unknown:
        return
    from difflib import get_close_matches

    hint = ""
    if any("key" in name for name in unknown):
        hint = ": the key comes from the environment, by default from OPENROUTER_API_KEY"
    elif near := get_close_matches(unknown[0], parser._option_string_actions, 1, 0.8):
        hint = f": did you mean {near[0]}?"
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def _name(option: str) -> str:
    return option.partition("=")[0] if option.startswith("--") else option[:2]


def settle_endpoint(arguments: argparse.Namespace, parser: Parser) -> None:
    """Refuse options that contradict `--local`; settle the model and the preset if they were not named."""
    if arguments.local is not None:
        for name in ("model", "preset", "base_url"):
            if getattr(arguments, name) is not None:
                parser.error(f"--local runs a model on this machine: leave out --{name.replace('_', '-')}")
    elif arguments.model is None:
        arguments.model = os.environ.get("RUSTY_AGENT_MODEL") or None
    arguments.preset = arguments.preset or "openrouter"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Attributes:
        usage_code: The exit code of wrong usage.
        hint: Added to every error.
    """

    usage_code = 2
    hint = ""

    def error(self, message: str) -> NoReturn:
        complain(f"{self.prog}: error: {one_line(message)}{self.hint} (see {self.prog} --help)")
        self.exit(self.usage_code)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print the help or the version. `argparse` would ignore that it cannot be written."""
        Output(sys.stdout or sys.stderr).put(message)


def _parser() -> Parser:
    parser = Parser(
        prog="rusty-agent",
        usage="%(prog)s [options] [PROMPT]\n       %(prog)s batch INPUT -o OUTPUT [options]",
        description="Stream a language model's answer to standard output.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="PROMPT", help="what to ask; - waits for standard input, see below")
    local = """run a model on this machine: no key, no network. The next word is its file if it ends in .gguf or names
    a file, otherwise it is the prompt"""
    add_endpoint(parser, local=local)
    add_sampling(parser, "-o", "--option")
    add("--usage", action="store_true", help="report tokens and times on standard error")
    add("--no-stream", dest="stream", action="store_false", help="wait for the whole answer before printing it")
    add(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help="the longest silence, or with --no-stream the longest time for the whole answer (default: 60, "
        "with --local 600)",
    )
    add_debug(parser)
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def add_endpoint(parser: argparse.ArgumentParser, *, local: str) -> None:
    """Add the options that say which endpoint or model is asked; `local` is the help text of `--local`."""
    add = parser.add_argument
    add("-m", "--model", help="the model's name, as the endpoint knows it (default: RUSTY_AGENT_MODEL)")
    add(
        "--preset",
        metavar="NAME",
        help="whose endpoint and key to use: openrouter (the default), openai, anthropic, groq, mistral, deepseek, "
        "gemini, together, fireworks, xai, ollama, vllm, lmstudio or llama.cpp",
    )
    add(
        "--base-url",
        metavar="URL",
        help="another endpoint, which gets the preset's key: the URL before /chat/completions",
    )
    add("--trust-env", action="store_true", help="use the proxy that HTTPS_PROXY and the like name")
    add("--local", nargs="?", const="", type=os.path.expanduser, metavar="GGUF", help=local)


def add_sampling(parser: argparse.ArgumentParser, *option: str) -> None:
    """Add the options that say how to answer; `option` has the names of the one that sets any other field."""
    add = parser.add_argument
    add("--system", metavar="TEXT", help="the system prompt (default: none)")
    add("-t", "--temperature", type=number, metavar="NUMBER", help="randomness, from 0 (default: the endpoint's)")
    add(
        "--max-tokens",
        type=whole,
        metavar="NUMBER",
        help="the most tokens that an answer may have (default: the endpoint's)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="ask for a JSON object")
    form.add_argument("--schema", metavar="FILE", help="ask for JSON that fits the JSON Schema in this file")
    add(
        *option,
        dest="pairs",
        action="append",
        type=_pair,
        metavar="KEY=VALUE",
        help="any other field of the request, such as seed=7; VALUE is JSON, otherwise a string; may be repeated",
    )


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Add `--debug`."""
    parser.add_argument("--debug", action="store_true", help="show tracebacks and retries on standard error")


def local_apart(argv: Sequence[str], *, files: bool = True) -> list[str]:
    """Join `--local` with the word after it only if that is a model's file: argparse would take the prompt for one.

    Args:
        argv: The arguments.
        files: Whether any word that names a file is a model's; if not, only words that end in `.gguf` are.
    """
    words = list(argv)
    apart: list[str] = []
    while words and words[0] != "--":
        word = words.pop(0)
        if word == "--local":
            word += "=" + (words.pop(0) if words and _is_model(words[0], files) else "")
        apart.append(word)
    return apart + words


def _is_model(word: str, files: bool) -> bool:
    return not word.startswith("-") and (word.lower().endswith(".gguf") or (files and os.path.isfile(word)))


def _pair(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is JSON if it can be read as JSON, else a string."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        hint = ": for a file of prompts, use `rusty-agent batch`" * text.lower().endswith((".jsonl", ".csv"))
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE{hint}")
    from ..wire.codec import loads_exact

    try:
        return name, loads_exact(value.encode())
    except ValueError:
        return name, value


def number(text: str) -> float:
    """A number; the library checks its bounds."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def whole(text: str) -> int:
    """A whole number; the library checks its bounds."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def positive(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
