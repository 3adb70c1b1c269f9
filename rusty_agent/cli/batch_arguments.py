"""The arguments of `rusty-agent batch` → a namespace.

In: the arguments after `batch`. Out: a namespace; or the help on stdout, or an error on stderr. Never touched: the
input, the network.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .arguments import (
    Parser,
    add_debug,
    add_endpoint,
    add_sampling,
    local_apart,
    positive,
    refuse_unknown,
    settle_endpoint,
)

if TYPE_CHECKING:
    from ..progress.price import Price

__all__ = ["parse_batch"]

_MAX_RETRIES = 5
_DIGITS = 18  # so many digits fit into 64 bits, which every part of the system can hold

_EXAMPLES = """\
input, one request a line (.jsonl or .jsonl.gz):
  {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}
  {"prompt": "What is 2 + 2?", "temperature": 0, "anything": "else is carried through"}
  or a .csv or .tsv file with --template "Translate: {text}"

output: the lines of OpenAI's Batch API; what failed is in OUTPUT.errors.jsonl

examples:
  rusty-agent batch prompts.jsonl -o answers.jsonl -m openai/gpt-4o-mini --dry-run --price 0.15,0.60
  rusty-agent batch prompts.jsonl -o answers.jsonl -m openai/gpt-4o-mini --rpm 5000 --budget-usd 10 --price 0.15,0.60
  rusty-agent batch words.csv -o words.jsonl --template "Translate {word} into French." --local

exit codes:
  0 all answered   1 usage, bad lines, lock   2 some rows failed   3 stopped: budget, errors, key, quota   130 Ctrl-C
  The same command, without --fresh, goes on where it stopped.
"""


class _OutputFile(argparse.Action):
    """The output file, given only once: twice means that `-o` was meant as `--option`, as in the other command."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if namespace.output is not None:
            parser.error(
                f"the output is named twice, {namespace.output!r} and {values!r}; for other fields use --option"
            )
        if values == "-":
            parser.error("-o -: a batch resumes from its output, so it must be a file")
        if values.lower().endswith(".gz"):
            parser.error(f"-o {values}: the output cannot be compressed, because a batch appends to it; leave out .gz")
        namespace.output = values


def parse_batch(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments.

    Raises:
        SystemExit: They are invalid (1), or `--help` was given (0).
    """
    parser = _parser()
    arguments, left = parser.parse_known_args(local_apart(argv, files=False))
    refuse_unknown(left, parser)
    if left:
        parser.error(f"expected one INPUT, not {1 + len(left)}: put a name with spaces in quotes")
    arguments.options = dict(arguments.pairs or ())
    settle_endpoint(arguments, parser)
    for name in ("rpm", "tpm", "max_in_flight"):
        if arguments.local is not None and getattr(arguments, name) is not None:
            parser.error(f"--local takes no --{name.replace('_', '-')}: use --concurrency to limit the rows at once")
    if arguments.budget_usd is not None and arguments.price is None:
        parser.error("--budget-usd needs --price INPUT,OUTPUT: without it the cost is unknown")
    return arguments


def _parser() -> Parser:
    parser = Parser(
        prog="rusty-agent batch",
        usage="%(prog)s INPUT -o OUTPUT [options]",
        description="Send every line of a file, write a line for each; go on after any interruption.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.usage_code = 1
    add = parser.add_argument
    add("input", metavar="INPUT", help="requests: .jsonl, .csv or .tsv, gzipped or not; - is standard input (.jsonl)")
    add(
        "-o",
        "--output",
        required=True,
        action=_OutputFile,
        help="where answers go; what is there already is kept and not asked again",
    )
    add("--template", metavar="TEXT", help="makes prompts from columns: 'Translate: {text}'")
    add_endpoint(parser, local="a model on this machine; the word after it if .gguf")
    add_sampling(parser, "--option")
    _add_pace(parser)
    _add_run(parser)
    _add_stops(parser)
    add_debug(parser)
    return parser


def _add_pace(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("pace").add_argument
    add(
        "--concurrency",
        type=_concurrency,
        metavar="N|auto",
        help="rows at once; auto: as many as the endpoint takes (default auto, with --local 4)",
    )
    add(
        "--max-in-flight",
        type=_count,
        metavar="N",
        help="the most requests under way, the ceiling of auto (default 256)",
    )
    add("--rpm", type=positive, metavar="N", help="requests per minute")
    add("--tpm", type=positive, metavar="N", help="tokens per minute, prompts and answers")
    add("--max-retries", type=int, default=_MAX_RETRIES, metavar="N", help=f"per row (default {_MAX_RETRIES})")
    add("--timeout", type=positive, metavar="SECONDS", help="for a whole row (default 60, with --local 600)")
    add("--stream", action="store_true", help="let answers be streamed underneath: measures the first token")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--limit", type=_count, metavar="N", help="only the first N rows")
    add("--on-bad-line", choices=("fail", "skip"), default="fail", help="lines that are not requests (default: fail)")
    add("--fresh", action="store_true", help="throw away what earlier runs left, answers included")
    add("--retry-permanent", action="store_true", help="try rows again that were refused for good")
    add("--allow-changed", action="store_true", help="go on although input or parameters have changed")
    add("--sync", choices=("row", "group", "off"), default="group", help="safety from power cuts (default: group)")
    add("--sort", action="store_true", help="bring the output into the input's order at the end")
    add("--progress", choices=("auto", "plain", "json", "off"), default="auto", help="on standard error")
    add("--report", metavar="FILE.html", help="write a page with plots")
    add("--dry-run", action="store_true", help="check, count and estimate only")


def _add_stops(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("stops").add_argument
    add("--price", type=_price, metavar="IN,OUT", help="USD per million tokens of prompts and answers")
    add("--budget-usd", type=positive, metavar="USD", help="stop before a run has spent this; needs --price")
    add("--max-failures", type=int, metavar="N", help="stop when more rows than this have failed")
    add("--max-error-rate", type=float, metavar="SHARE", help="stop when more of the latest 100 rows failed: 0.2")


def _concurrency(text: str) -> int | str:
    try:
        return text if text == "auto" else _count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor auto") from None


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1 (at most {_DIGITS} digits)")
    return int(text)


def _price(text: str) -> Price:
    from ..progress.price import Price

    try:
        return Price.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
