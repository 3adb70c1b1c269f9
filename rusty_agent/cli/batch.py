"""`rusty-agent batch INPUT -o OUTPUT`: from arguments to a finished batch.

In: arguments. Out: the batch's files; progress and one line of result on stderr; with `--dry-run` what it would cost,
on stdout. Never touched: how a batch runs.

Exit codes: 0 every row is answered; 1 wrong usage, bad lines, another batch holds the lock, or files cannot be
written; 2 some rows failed; 3 the run was stopped: by its budget, too many errors, the key or the quota; 130
interrupted. After 1 (mended), 2, 3 and 130 the same command goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .arguments import Parser, add_endpoint, add_sampling, local_apart, pair, refuse_unknown, settle_endpoint
from .ask import check_endpoint, log_to_stderr, request_parameters
from .output import UsageError, complain, one_line

if TYPE_CHECKING:
    from ..batch.check import Checked
    from ..batch.runner import BatchResult
    from ..progress.price import Price
    from ..provider import AsyncProvider

__all__ = ["batch", "parse_batch"]

_MAX_RETRIES = 5
_LOCAL_AT_ONCE = 4
_DIGITS = 18  # of a number that every part of the system can hold

_EXAMPLES = """\
input, one request a line (.jsonl or .jsonl.gz; - is standard input):
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


class _BatchParser(Parser):
    usage_code = 1


class _Output(argparse.Action):
    """A file, named once: `-o` is `--option` in the other command."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"the output is named twice, {namespace.output!r} and {values!r}; other fields: --option")
        if values == "-":
            parser.error("-o -: a batch goes on from its output, so that must be a file")
        if values.lower().endswith(".gz"):
            parser.error(f"-o {values}: the output is not compressed, because what is there is appended to")
        namespace.output = values


def parse_batch(argv: list[str]) -> argparse.Namespace:
    """Read the arguments.

    Raises:
        SystemExit: They make no sense (1), or `--help` was all that was wanted (0).
    """
    parser = _parser()
    arguments, left = parser.parse_known_args(local_apart(argv, files=False))
    refuse_unknown(left, parser)
    if left:
        parser.error(f"one INPUT, not {1 + len(left)}: put a name that holds spaces in quotes")
    arguments.options = dict(arguments.pairs or ())
    settle_endpoint(arguments, parser)
    if arguments.budget_usd is not None and arguments.price is None:
        parser.error("--budget-usd needs --price INPUT,OUTPUT: without it nobody knows what is spent")
    return arguments


def batch(arguments: argparse.Namespace) -> int:
    """Run the batch; return the exit code.

    Raises:
        UsageError: Something is missing.
        ValueError: An argument cannot be right.
    """
    from ..errors import BatchError
    from ..sync.bridge import new_loop

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if arguments.debug:
        log_to_stderr()
    if arguments.dry_run:
        return _dry_run(arguments)
    if arguments.local is None:
        check_endpoint(arguments.preset, arguments.base_url)
        arguments.model = arguments.model or _model_of_rows(arguments)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(_run(arguments))
    except BatchError as error:  # it may list lines of the input
        if arguments.debug:  # with its traceback
            raise
        first, *more = map(one_line, str(error).splitlines())
        complain("\n  ".join([f"rusty-agent batch: error: {first}", *more]))
        return 1
    complain(f"rusty-agent batch: {_said(arguments, result)}")
    return _exit_code(result)


async def _run(arguments: argparse.Namespace) -> BatchResult:
    from ..batch.runner import run_batch

    concurrency: Any = arguments.concurrency
    if concurrency is None:  # a model on this machine computes few at once, and lets the others wait
        concurrency = "auto" if arguments.local is None else _LOCAL_AT_ONCE
    async with aclosing(_provider(arguments)) as provider:  # a local model starts with its first row, if there is one
        return await run_batch(
            arguments.input,
            arguments.output,
            provider,
            concurrency=concurrency,
            template=arguments.template,
            limit=arguments.limit,
            on_bad_line=arguments.on_bad_line,
            fresh=arguments.fresh,
            retry_permanent=arguments.retry_permanent,
            allow_changed=arguments.allow_changed,
            price=None if arguments.price is None else (arguments.price.input, arguments.price.output),
            budget_usd=arguments.budget_usd,
            max_failures=arguments.max_failures,
            max_error_rate=arguments.max_error_rate,
            sync=arguments.sync,
            sort=arguments.sort,
            stream=arguments.stream,
            progress=arguments.progress,
            report=arguments.report,
            handle_signals=True,
            **request_parameters(arguments),
        )


def _provider(arguments: argparse.Namespace) -> AsyncProvider:
    from ..policy import Limits, RetryPolicy
    from ..provider import AsyncProvider

    retry = RetryPolicy(max_retries=arguments.max_retries)
    if arguments.local is not None:
        path = os.path.expanduser(arguments.local) or None
        return AsyncProvider.local(path, retry=retry, timeout=arguments.timeout)
    return AsyncProvider(
        arguments.model,
        base_url=arguments.base_url,
        preset=arguments.preset or "openrouter",
        retry=retry,
        timeout=arguments.timeout,
        limits=Limits(arguments.rpm, arguments.tpm, arguments.max_in_flight),
    )


def _model_of_rows(arguments: argparse.Namespace) -> str:
    """The model of the first row, if every row names one: then nobody has to name it again.

    What may be read only once (standard input, a pipe) is left alone: the batch needs it.
    """
    from ..batch.rows import Row
    from ..batch.source import open_source

    first = None
    once = arguments.input == "-" or (os.path.exists(arguments.input) and not os.path.isfile(arguments.input))
    if not once and arguments.template is None:
        for row in open_source(arguments.input).rows(limit=arguments.limit):
            if not isinstance(row, Row):  # the batch itself tells of bad lines
                continue
            model = row.parameters.get("extra_body", {}).get("model")
            if not model:
                first = None
                break
            first = first or model
    if not isinstance(first, str):
        raise UsageError("no model: name one with -m, such as -m openai/gpt-4o-mini, or in every line's body")
    return first


def _dry_run(arguments: argparse.Namespace) -> int:
    """Check the input, count, estimate; nothing is sent and nothing is written."""
    from ..batch.plan import bad_lines_said
    from ..batch.source import open_source
    from ..batch.template import Template

    template = None if arguments.template is None else Template(arguments.template)
    common: dict[str, Any] = {**request_parameters(arguments)}
    checked = open_source(arguments.input, template=template).check(limit=arguments.limit, common=common)
    for line in _estimates(checked, arguments.price):
        print(line)
    if checked.bad_count:
        complain(bad_lines_said(checked))
    return 1 if checked.bad_count and arguments.on_bad_line == "fail" else 0


def _estimates(checked: Checked, price: Price | None) -> list[str]:
    from ..progress.words import dollars

    prompt, answers = checked.prompt_characters // 4, checked.max_tokens
    unbounded = checked.rows - checked.rows_with_max_tokens
    lines = [
        f"rows: {checked.rows:,}",
        f"bad lines: {checked.bad_count:,}",
        f"prompt tokens: about {prompt:,} (a token for four characters)",
        f"answer tokens: at most {answers:,}"
        + (f" and those of {unbounded:,} row{'s' * (unbounded != 1)} without max_tokens" * bool(unbounded)),
    ]
    if price is not None:
        least, most = price.cost(prompt, 0), price.cost(prompt, answers)
        more = ", more with the rows without max_tokens" * bool(unbounded)
        lines.append(f"cost: {dollars(least)} for the prompts, at most {dollars(most)} with the answers{more}")
    return lines


def _said(arguments: argparse.Namespace, result: BatchResult) -> str:
    parts = [f"{result.done:,} answered"]
    if result.failed:
        kinds = result.summary["failures"]
        parts.append(f"{result.failed:,} failed (most: {max(kinds, key=kinds.get)})")
    if result.failed_earlier:
        parts.append(f"{result.failed_earlier:,} failed for good earlier (--retry-permanent tries them again)")
    if result.skipped:
        parts.append(f"{result.skipped:,} {'was' if result.skipped == 1 else 'were'} answered earlier")
    if result.bad_lines:
        parts.append(f"{result.bad_lines:,} bad line{'s' * (result.bad_lines != 1)} left out")
    if result.cost is not None:
        parts.append(f"${result.cost:,.4f}")
    said = ", ".join(parts)
    if result.failed or result.failed_earlier or result.bad_lines:
        from pathlib import Path

        from ..batch.files import Files

        said += f"; see {Files.of(Path(arguments.output)).errors}"
    if result.stopped == "interrupt":
        return f"{said}. Interrupted: the same command{' without --fresh' * arguments.fresh} goes on from here."
    return said if result.message is None else f"{said}. {one_line(result.message)}"


def _exit_code(result: BatchResult) -> int:
    if result.stopped is not None:
        return 130 if result.stopped == "interrupt" else 3
    return 2 if result.failed or result.failed_earlier or result.bad_lines else 0


def _parser() -> _BatchParser:
    parser = _BatchParser(
        prog="rusty-agent batch",
        usage="%(prog)s INPUT -o OUTPUT [options]",
        description="Send every line of a file, write a line for each; go on after any interruption.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("input", metavar="INPUT", help="requests: .jsonl, .csv or .tsv, gzipped or not; - is standard input")
    add(
        "-o",
        "--output",
        required=True,
        action=_Output,
        help="where answers go; what is there already is kept and not asked again",
    )
    add("--template", metavar="TEXT", help="makes prompts from columns: 'Translate: {text}'")
    add_endpoint(parser)
    add("--local", nargs="?", const="", metavar="GGUF", help="a model on this machine; the word after it if .gguf")
    add_sampling(parser)
    add("--option", dest="pairs", action="append", type=pair, metavar="KEY=VALUE", help="any other field of requests")
    _add_pace(parser)
    _add_run(parser)
    _add_stops(parser)
    add("--debug", action="store_true", help="show tracebacks and retries on standard error")
    return parser


def _add_pace(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("pace").add_argument
    add("--concurrency", type=_concurrency, metavar="N|auto", help="rows at once; auto (the default): what it bears")
    add("--max-in-flight", type=_count, metavar="N", help="the ceiling of auto (default 256)")
    add("--rpm", type=float, metavar="N", help="requests per minute")
    add("--tpm", type=float, metavar="N", help="tokens per minute, prompts and answers")
    add("--max-retries", type=int, default=_MAX_RETRIES, metavar="N", help=f"per row (default {_MAX_RETRIES})")
    add("--timeout", type=_positive, metavar="SECONDS", help="for a whole row (default 60, with --local 600)")
    add("--stream", action="store_true", help="let answers be streamed underneath: measures the first token")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--limit", type=_count, metavar="N", help="only the first N rows")
    add("--on-bad-line", choices=("fail", "skip"), default="fail", help="lines that are no requests (default: fail)")
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
    add("--budget-usd", type=_positive, metavar="USD", help="stop before a run has spent this; needs --price")
    add("--max-failures", type=int, metavar="N", help="stop when more rows than this have failed")
    add("--max-error-rate", type=float, metavar="SHARE", help="stop when more of the latest 100 rows failed: 0.2")


def _concurrency(text: str) -> int | str:
    return text if text == "auto" else _count(text)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1 (of {_DIGITS} digits at most)")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _price(text: str) -> Price:
    from ..progress.price import Price

    try:
        return Price.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
