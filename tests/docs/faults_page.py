"""Writes docs/what-happens-when.md from the table that drives the fault tests.

In: `FAULTS`. Out: the page. Never touched: what the library does, which `tests/integration/test_faults.py` checks
against the same table.

`python -m tests.docs.faults_page` writes the page; `test_docs.py` fails while the page differs.
"""

from __future__ import annotations

from attrs import asdict

from rusty_agent import APITimeoutError, Timeout
from rusty_agent.policy import UNSET
from tests.integration.faults import FAULTS, Fault

from .pages import ROOT

__all__ = ["PAGE", "render"]

PAGE = ROOT / "docs" / "what-happens-when.md"

_INTRO = """\
# What happens when…

An answer has exactly two endings.

* **It is whole.** Iteration ends, or `generate_text` returns. The endpoint has said that the answer is whole: with a
  finish reason, with the end mark `[DONE]`, or with one whole JSON object. After a finish reason the stream still waits
  for token counts and the end mark: 5 seconds at most, or 120 if the reason came with text or is about tools, since
  some endpoints send more then.
* **It is not whole.** You get a `RustyAgentError`. Its `partial_text` holds the text that had arrived, its `usage` the
  last token counts, and its `attempts` the number of attempts that were made.

There is no third ending. A connection that drops never looks like a short answer. The same holds for a stream that was
left by a `break`, closed, or cancelled by a time limit of your own: reading on in it raises `StreamInterruptedError`.

```python
from rusty_agent import Provider, RustyAgentError

provider = Provider("openai/gpt-4o-mini")
try:
    for piece in provider.stream_text("Tell me a story that breaks off."):
        print(piece, end="")
except RustyAgentError as error:
    print()
    print(type(error).__name__, error.attempts)
    print(repr(error.partial_text))
# -> Once upon a
# -> StreamInterruptedError 1
# -> 'Once upon a'
```

**Nothing is replayed.** A failed request is sent again only until the first piece of its answer has arrived: text,
reasoning, a refusal or a tool call. After that an error ends the call. So the text that you have read is always the
beginning of one answer, never of two, and always equals `partial_text`. For another try, make another call.

**A whole answer is one piece.** `generate_text` returns nothing before the end, so its request is sent again even if
the connection breaks in the middle of the answer. With `stream=True` the endpoint streams the answer, and
`partial_text` holds the text that had arrived in the last attempt.

The tables list every fault that the tests send to `AsyncProvider` and `Provider`, and its outcome. They are for
streams, except where `generate_text` is named. "With the text so far": you have read it, and `partial_text` holds it.
"Tried again": with the default of two retries you get the error only after the third attempt has failed too.
`RetryPolicy` sets how often and how long to try, see [configuration](configuration.md#retries). All errors are
described in the [API reference](api-reference.md#errors).
"""


def render() -> str:
    """The page."""
    parts = [_INTRO]
    for group, faults in FAULTS.items():
        parts.append(f"## {group}\n")
        parts.append("| What goes wrong | What you get | Tried again? |\n|---|---|---|")
        parts[-1] += "".join(f"\n| {_cause(fault)} | {_outcome(fault)} | {_again(fault)} |" for fault in faults) + "\n"
    return "\n".join(parts)


def _cause(fault: Fault) -> str:
    name = fault.name.replace("|", "\\|")
    return name if fault.streamed else f"{name} (`generate_text`)"


def _outcome(fault: Fault) -> str:
    if fault.error is None:
        return "the whole answer"
    said = f"`{fault.error.__name__}`"
    if issubclass(fault.error, APITimeoutError):
        said += f", its `limit` is `{fault.says!r}`{_switched_on(fault.timeout)}"
    if fault.text:
        said += ", with the text so far"
    return said


def _switched_on(timeout: object) -> str:
    """How to switch on the limits of this timeout, which are off by default."""
    if not isinstance(timeout, Timeout):
        return ""
    chosen = [name for name, value in asdict(timeout).items() if value is not None and value is not UNSET]
    return f" (set `Timeout({', '.join(f'{name}=…' for name in chosen)})`)"


def _again(fault: Fault) -> str:
    if fault.error is None:
        return "no need"
    return "yes" if fault.attempts > 1 else "no"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
