"""One line of the input → one request, or what is wrong with the line.

In: a line's bytes, or its decoded value. Out: a `Row` or a `BadLine`: no line, whatever it holds, raises an error.
Never touched: files; whether the endpoint will accept the request.

The form is recognised for each line by itself, so a file may mix them:

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": […], …}}   OpenAI Batch
    {"prompt": "…", "temperature": 0, "model": "…", "anything": "else"}      or with "messages": simple
    "…"                                                                     a prompt
    [{"role": "user", "content": "…"}]                                      messages
    {"column": "value", …}                                                  if there is a template
"""

from __future__ import annotations

from collections.abc import Set
from json import JSONDecodeError
from numbers import Integral
from typing import Any
from zlib import crc32

from attrs import define, field

from ..wire.codec import dumps, join_surrogates, loads, loads_strict, with_long_numbers
from ..wire.request import PARAMETERS, build_body, encode_body
from ..wire.words import printable
from .template import Template

__all__ = ["NOT_JSON", "BadLine", "Row", "as_bytes", "parse_line", "parse_row", "repeats"]

NOT_JSON = "not JSON (one value per line)"
"""How the reason begins if a line is not JSON."""

_MAX_REASON = 300  # characters: many bad lines must fit on a screen
_USED = PARAMETERS | {"prompt", "messages", "system_prompt", "extra_body"}
_RENAMED = frozenset({"custom_id", "model"})  # used too, but not as parameters of these names
_ENVELOPE = frozenset({"custom_id", "method", "url", "body"})
_OF_THE_RUN = frozenset({"stream", "stream_options"})  # the run decides whether answers are streamed, not the row
_NOT_EXTRA = _OF_THE_RUN | {"messages"}
# A user who sets these expects them to be sent: if they were only carried through, useless answers would be paid for.
_OF_EXTRA_BODY = frozenset({"tools", "tool_choice", "parallel_tool_calls", "max_completion_tokens", "reasoning_effort"})
_KINDS = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
_KINDS |= {bool: "true or false", type(None): "null"}


def _shown(reason: str) -> str:
    return printable(reason, _MAX_REASON)


@define
class Row:
    """One request.

    Attributes:
        line: Its line in the input, from 1.
        custom_id: Its name in the output; the line's number if the input gives none.
        parameters: Keyword arguments of `generate_text`.
        fields: What else the line held, to be carried through to the output.
        named: Whether the input gives the name, so that it stays when lines before it are put in or taken out.
        columns: The fields from which a template made the prompt; None without a template.
    """

    line: int
    custom_id: str
    parameters: dict[str, Any]
    fields: dict[str, Any]
    named: bool = field(default=False, eq=False)
    columns: tuple[str, ...] | None = field(default=None, eq=False)

    @property
    def mark(self) -> str:
        """A checksum of what the row asks: it tells whether a row without a name is the same one as before.

        With a template it covers the columns that the template uses, so it stays the same when the template's words
        change.
        """
        asked = self.parameters if self.columns is None else {name: self.fields[name] for name in self.columns}
        return crc32(as_bytes(asked)).to_bytes(4).hex()


@define
class BadLine:
    """A line that is not a request.

    Attributes:
        line: The line in the input, from 1.
        reason: What is wrong with it: one line, capped, without control characters.
    """

    line: int
    reason: str = field(converter=_shown)


def as_bytes(value: Any) -> bytes:
    """A value as JSON, for comparisons; empty if it cannot be written as JSON, which makes its row a bad line."""
    try:
        return dumps(value)
    except ValueError:
        return b""


def parse_line(
    data: bytes, line: int, *, template: Template | None = None, check: bool = True, done: Set[str] = frozenset()
) -> Row | BadLine:
    """The request that a line of JSON holds.

    Args:
        data: The line's bytes.
        line: The line's number.
        template: Makes the prompt from the columns of the line, which must be an object.
        check: Apply the checks that sending would apply. They take most of the time, and are needed only once.
        done: Names of answered rows: for these only the name and the line are returned, which is quicker.
    """
    try:
        value = loads_strict(data)
    except ValueError:
        try:
            data.decode()  # escaped lone surrogates are accepted; bytes that are not UTF-8 mean damage
            value = loads(data)
        except UnicodeDecodeError as error:
            return BadLine(line, f"not UTF-8 at byte {error.start + 1}: save it as UTF-8")
        except JSONDecodeError as error:
            said = error.msg.removesuffix(" at")  # "Unterminated string starting at"
            return BadLine(line, f"{NOT_JSON}: {said} at character {error.pos + 1}")
        except ValueError as error:
            return BadLine(line, f"{NOT_JSON}: {error}")
    return parse_row(with_long_numbers(value, data), line, template=template, check=check, done=done)


def parse_row(
    value: Any, line: int, *, template: Template | None = None, check: bool = True, done: Set[str] = frozenset()
) -> Row | BadLine:
    """The request that a decoded line holds; the arguments are those of `parse_line`."""
    if done and isinstance(value, dict) and type(name := value.get("custom_id")) is str and name in done:
        return Row(line, name, {}, {}, named=True)
    try:
        row = _row(value, line) if template is None else _templated(value, line, template)
        if check:
            _check(row)
    except ValueError as error:
        return BadLine(line, str(error))
    except RecursionError:  # a complaint shows the value, which may be nested to any depth
        return BadLine(line, "a value has the wrong type, and is nested too deeply to be shown")
    return row


def repeats(row: Row) -> BadLine:
    """The bad line that a row becomes if an earlier row has its `custom_id`."""
    return BadLine(row.line, f"an earlier row has the same custom_id, {row.custom_id!r}")


def _templated(value: Any, line: int, template: Template) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"the template needs an object with columns, not {_kind(value)}")
    row = _named(value, line, {"prompt": template.render(value)}, dict(value))
    row.columns = template.columns
    return row


def _row(value: Any, line: int) -> Row:
    if isinstance(value, dict):
        simple = "prompt" in value or "messages" in value
        if "body" in value and (not simple or ("method" in value and "url" in value)):
            return _openai(value, line)
        if not simple:
            raise ValueError(
                "the object has no prompt, messages or body; use a template to make a prompt from other columns"
            )
        return _simple(value, line)
    if isinstance(value, str):
        return Row(line, str(line), {"prompt": value}, {})
    if isinstance(value, list):
        if value and not (isinstance(value[0], dict) and "role" in value[0]):  # `json.dump(rows, file)`
            raise ValueError(
                "a list is one row's messages, but its first has no role (put each row on a line of its own)"
            )
        return Row(line, str(line), {"messages": value}, {})
    raise ValueError(f"a line must hold an object, a string (a prompt) or a list (messages), not {_kind(value)}")


def _simple(value: dict[str, Any], line: int) -> Row:
    parameters: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for name, item in value.items():
        if name in _USED:
            if item is not None:
                parameters[name] = item
        elif name in _OF_EXTRA_BODY and as_bytes(item) not in (b"null", b"[]"):
            raise ValueError(
                f"{name!r} is sent only as part of extra_body; rename it to carry it through to the output"
            )
        elif name not in _RENAMED:
            fields[name] = item
    if "extra_body" in parameters:
        extra = parameters["extra_body"]
        if not isinstance(extra, dict):
            raise ValueError(f"extra_body must be an object of further fields, not {_kind(extra)}")
        parameters["extra_body"] = {name: item for name, item in extra.items() if name not in _OF_THE_RUN}
    if value.get("model") is not None:
        parameters["extra_body"] = {**parameters.get("extra_body", {}), "model": value["model"]}
    return _named(value, line, parameters, fields)


def _openai(value: dict[str, Any], line: int) -> Row:
    method, url, body = value.get("method"), value.get("url"), value["body"]
    if method != "POST":
        raise ValueError(f"method must be 'POST', not {method!r}")
    if not isinstance(url, str) or not url.endswith("/chat/completions"):
        raise ValueError(f"url must be '/v1/chat/completions', the only supported endpoint, not {url!r}")
    if not isinstance(body, dict) or not body.get("messages"):
        raise ValueError("body must be an object with messages")
    parameters: dict[str, Any] = {"messages": body["messages"]}
    extra = {name: item for name, item in body.items() if item is not None and name not in _NOT_EXTRA}
    if extra:
        parameters["extra_body"] = extra
    fields = {name: item for name, item in value.items() if name not in _ENVELOPE}
    return _named(value, line, parameters, fields)


def _named(value: dict[str, Any], line: int, parameters: dict[str, Any], fields: dict[str, Any]) -> Row:
    if "custom_id" not in value:
        return Row(line, str(line), parameters, fields)
    given = value["custom_id"]
    if type(given) is not str and type(given) is not bool and isinstance(given, Integral):
        given = str(int(given))  # any kind of integer, such as numpy's
    if not isinstance(given, str) or not given:
        raise ValueError(f"custom_id must be a non-empty string or a whole number, not {given!r}")
    # In the form in which it will stand in the output, where later runs look for it.
    return Row(line, join_surrogates(given), parameters, fields, named=True)


def _check(row: Row) -> None:
    asked = row.parameters
    if len(asked) > 1 or type(asked.get("prompt")) is not str:  # a prompt alone cannot be wrong
        encode_body(_body(**asked))
    if not row.fields:
        return
    try:
        dumps(row.fields)  # written beside the answer, so they must fit into JSON
    except ValueError as error:
        unfit = next((f" ({name!r})" for name, item in row.fields.items() if not as_bytes(item)), "")
        raise ValueError(f"a field to be carried through{unfit} cannot be written as JSON: {error}") from None


def _body(
    *, prompt: Any = None, system_prompt: Any = None, messages: Any = None, extra_body: Any = None, **sampling: Any
) -> dict[str, Any]:
    """The body that a row's parameters become when it is sent, without what all rows have in common."""
    body = build_body(
        "model", prompt, system_prompt, messages, sampling, stream=False, include_usage=False, extra_body=extra_body
    )
    model = body.get("model")
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"model must be a model's name, not {model!r}")
    return body


def _kind(value: Any) -> str:
    """What JSON calls a value."""
    return _KINDS.get(type(value), type(value).__name__)
