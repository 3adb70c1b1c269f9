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
    number,
    positive,
    refuse_unknown,
    settle_endpoint,
    whole,
)

if TYPE_CHECKING:
    from ..progress.price import Price

__all__ = ["parse_batch"]

_MAX_RETRIES = 5
_DIGITS = 18  # so many digits fit into 64 bits, which every part of the system can hold

_EXAMPLES = """\
input, one request a line (.jsonl or .jsonl.gz):
  {"custom_id": "a", "prompt": "How much is 2 + 2?", "temperature": 0}
  {"custom_id": "b", "messages": [...], "more": "is copied to the output"}
  {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions",
   "body": {"messages": [...]}}                  (on one line)
  or a .csv or .tsv file with a column prompt, or with --template

output:
  lines as OpenAI's Batch API writes them. For -o answers.jsonl the rows that
  failed are in answers.errors.jsonl, and figures in answers.summary.json.

examples:
  rusty-agent batch in.jsonl -o out.jsonl -m gpt-4o-mini --preset openai
  rusty-agent batch in.jsonl -o out.jsonl --dry-run --price 0.15,0.60
  rusty-agent batch words.csv -o words.jsonl --local \\
    --template "Translate {word} into French."

exit codes:
  0    every row is answered
  1    wrong usage, bad lines, or a file cannot be used
  2    some rows failed, or bad lines were left out
  3    stopped: the budget, too many errors, the key or the quota
  130  interrupted: the first Ctrl-C waits for rows under way, the second stops
  141  the reader of standard output has gone (--dry-run)
  The same command, without --fresh, continues where it stopped.
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
        parser.error("--budget-usd needs --price IN,OUT: without it the cost is unknown")
    return arguments


def _parser() -> Parser:
    parser = Parser(
        prog="rusty-agent batch",
        usage="%(prog)s INPUT -o OUTPUT [options]",
        description="Send every line of a file to a model, and write a line for each answer.\n"
        "After an interruption, the same command continues where it stopped.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.usage_code = 1
    add = parser.add_argument
    add(
        "input",
        metavar="INPUT",
        help="the requests, see below: a .jsonl, .csv or .tsv file, gzipped or not, or - for lines of JSON on "
        "standard input",
    )
    add(
        "-o",
        "--output",
        required=True,
        action=_OutputFile,
        help="the file for the answers; those already there are kept, and their rows are not sent again",
    )
    add("--template", metavar="TEXT", help="make the prompts from columns: 'Translate: {text}'")
    add_endpoint(
        parser, local="run a model on this machine: no key, no network; the next word is its file if it ends in .gguf"
    )
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
        help="the most rows under way at once; auto: as many as the endpoint takes (default: auto, with --local 4)",
    )
    add(
        "--max-in-flight",
        type=_count,
        metavar="N",
        help="the most requests under way at once (default: 256 with auto)",
    )
    add("--rpm", type=positive, metavar="N", help="the most requests per minute (default: no limit)")
    add(
        "--tpm",
        type=positive,
        metavar="N",
        help="the most tokens per minute, prompts and answers together (default: no limit)",
    )
    add(
        "--max-retries",
        type=whole,
        default=_MAX_RETRIES,
        metavar="N",
        help=f"how often a row is retried (default: {_MAX_RETRIES})",
    )
    add(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help="the longest time for a row, retries included (default: 60, with --local 600)",
    )
    add(
        "--stream",
        action="store_true",
        help="have answers streamed underneath, which also measures the time to the first token",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--limit", type=_count, metavar="N", help="take only the first N rows, bad lines included (default: all)")
    add(
        "--on-bad-line",
        choices=("fail", "skip"),
        default="fail",
        help="if lines are not requests, send nothing (fail, the default) or leave them out (skip)",
    )
    add("--fresh", action="store_true", help="throw away what earlier runs left, answers included")
    add("--retry-permanent", action="store_true", help="retry rows that failed for good in earlier runs too")
    add("--allow-changed", action="store_true", help="continue although the input or the parameters have changed")
    add(
        "--sync",
        choices=("group", "row", "off"),
        default="group",
        help="when answers are safe from a power cut: group (the default), within 0.25 s; row, before the row counts "
        "as done; off, when the system writes them",
    )
    add("--sort", action="store_true", help="at the end, put the output into the order of the input")
    add(
        "--progress",
        choices=("auto", "plain", "json", "off"),
        default="auto",
        help="what standard error shows: auto (the default), a line that is redrawn on a terminal, otherwise plain; "
        "plain, a line every 10 s; json, an object every second",
    )
    add("--report", metavar="FILE.html", help="write a page with figures and plots to this file")
    add(
        "--dry-run",
        action="store_true",
        help="only check the input, and estimate its tokens and, with --price, its cost",
    )


def _add_stops(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("stops").add_argument
    add(
        "--price",
        type=_price,
        metavar="IN,OUT",
        help="USD per million tokens of prompts and of answers, as in 0.15,0.60",
    )
    add("--budget-usd", type=positive, metavar="USD", help="stop before this run has spent so much; needs --price")
    add("--max-failures", type=whole, metavar="N", help="stop when more rows than this have failed (default: no limit)")
    add(
        "--max-error-rate",
        type=number,
        metavar="SHARE",
        help="stop when more than this share of the latest 100 rows has failed, as in 0.2 (default: no limit)",
    )


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
