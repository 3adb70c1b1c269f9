"""One request: from arguments to the answer on stdout.

In: `Arguments`. Out: the answer's text; warnings, usage and errors on stderr. Never touched: signals, the exit.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .arguments import Arguments
from .inputs import check_prompt, read_prompt, schema_format
from .output import Output, UsageError, complain, one_line

if TYPE_CHECKING:
    from ..parameters import BatchParameters
    from ..sync.provider import Provider
    from ..types import GenerateResult

__all__ = ["Request", "ask", "check_endpoint", "log_to_stderr", "prepare", "request_parameters"]


class Request(NamedTuple):
    """A request that is ready to be sent; nothing has been sent or started yet."""

    connect: Callable[[], Provider]
    prompt: str
    parameters: BatchParameters


def prepare(arguments: Arguments) -> Request:
    """Check the arguments, then read the prompt: a missing key is reported before standard input is waited for.

    Raises:
        UsageError: Something is missing, or cannot be read.
        ValueError: An argument is invalid.
    """
    if arguments.debug:
        log_to_stderr()
    check_prompt(arguments)
    if arguments.local is None:
        check_endpoint(arguments.preset, arguments.base_url)
        if not arguments.model:
            such = "such as OpenRouter's openai/gpt-4o-mini"
            raise UsageError(f"no model: name one with -m, {such}, or set RUSTY_AGENT_MODEL")
    parameters = request_parameters(arguments)
    parameters["timeout"] = arguments.timeout
    connect = _connector(arguments)
    return Request(connect, read_prompt(arguments), parameters)


def ask(arguments: Arguments, request: Request, out: Output) -> int:
    """Send the request, write the answer as it comes, and return the exit code.

    Raises:
        RustyAgentError: The answer is missing or incomplete.
        OSError: It cannot be written; the connection is closed.
    """
    provider = request.connect()
    if arguments.stream:
        with provider.stream_text(request.prompt, include_usage=arguments.usage, **request.parameters) as stream:
            for piece in stream:
                out.write(piece)
            result = stream.result()
    else:
        result = provider.generate_text(request.prompt, include_usage=True, **request.parameters)
        out.write(result.text)
    out.end_line()
    for warning in _warnings(arguments, result):
        complain(f"rusty-agent: warning: {one_line(warning)}")
    if arguments.usage:
        complain(_usage(arguments, result))
    if said := _unanswered(result):
        complain(f"rusty-agent: error: {one_line(said)}")
        return 1
    return 0


def check_endpoint(name: str, base_url: str | None) -> None:
    """Refuse a preset that does not exist, or has no key.

    Raises:
        UsageError: There is no such preset, or no key.
    """
    from ..errors import MissingAPIKeyError
    from ..keys import resolve_key
    from ..presets import PRESETS

    preset = PRESETS.get(name)
    if preset is None:
        raise UsageError(f"--preset: there is no {name!r}; choose from {', '.join(PRESETS)}")
    try:
        resolve_key(None, preset)
    except MissingAPIKeyError:
        hint = " (to any text if the server takes no key)" if base_url else ""
        raise UsageError(f"no API key: set {preset.key_variable}{hint}, or use --local, which needs none") from None


def request_parameters(arguments: Namespace) -> BatchParameters:
    """The parameters of `generate_text` that the arguments set.

    Raises:
        UsageError: The schema cannot be read.
    """
    parameters: BatchParameters = {
        "system_prompt": arguments.system,
        "temperature": arguments.temperature,
        "max_tokens": arguments.max_tokens,
        "extra_body": arguments.options,
    }
    if arguments.json:
        parameters["response_format"] = {"type": "json_object"}
    elif arguments.schema is not None:
        parameters["response_format"] = schema_format(arguments.schema)
    return parameters


def _connector(arguments: Arguments) -> Callable[[], Provider]:
    """A function that makes the provider: a local model is loaded only when it is called."""
    from ..sync.provider import Provider

    if arguments.local is not None:
        path = arguments.local or None
        if path is not None and not os.path.isfile(path):
            raise UsageError(f"--local: there is no file {path}")
        return lambda: Provider.local(path)
    provider = Provider(
        arguments.model or "",
        base_url=arguments.base_url,
        preset=arguments.preset,
        trust_env=arguments.trust_env,
    )
    return lambda: provider


def _unanswered(result: GenerateResult) -> str | None:
    """What the model gave instead of an answer, or None."""
    if result.tool_calls:
        calls = ", ".join(f"{call.name}({call.arguments})" for call in result.tool_calls)
        return f"the model called tools, which are not run here: {calls}"
    return f"the model refused: {result.refusal}" if result.refusal and not result.text else None


def _warnings(arguments: Arguments, result: GenerateResult) -> list[str]:
    """Warnings about what the text alone does not show."""
    warnings = list(result.warnings)
    reason = result.finish_reason
    if not result.text and not result.refusal and not result.tool_calls:
        warnings.append(f"the answer is empty (finish_reason {reason})")
    elif reason == "content_filter" or (reason == "length" and arguments.max_tokens is None):
        warnings.append(f"the answer was cut short (finish_reason {reason})")
    return warnings


def _usage(arguments: Arguments, result: GenerateResult) -> str:
    counts = (result.prompt_tokens, result.completion_tokens, result.total_tokens)
    prompt, completion, total = ("unknown" if count is None else str(count) for count in counts)
    parts = [f"tokens: prompt {prompt}, completion {completion}, total {total}"]
    if arguments.stream and result.time_to_first_token is not None:
        parts.append(f"first token {result.time_to_first_token:.2f} s")
    if result.duration:
        parts.append(f"duration {result.duration:.2f} s")
        if result.completion_tokens:
            parts.append(f"{result.completion_tokens / result.duration:.1f} tokens/s")
    if result.finish_reason not in (None, "stop"):
        parts.append(f"finish {one_line(str(result.finish_reason))}")
    return "; ".join(parts)


def log_to_stderr() -> None:
    """Show the library's log, which includes retries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger = logging.getLogger("rusty_agent")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
