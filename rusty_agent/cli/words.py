"""The library's words for programs → the command line's.

In: a message of the library, which advises on arguments and attributes. Out: the same, with the command's options.
Never touched: what an endpoint has said, as far as it does not use the very same phrases.
"""

from __future__ import annotations

import re

__all__ = ["in_our_words"]

_OURS = [
    (re.compile(words), ours)
    for words, ours in (
        # A message about an argument begins with its name; in a row's message this is the field of the row.
        (r"\A(max_tokens must .*) extra_body", r"\1 --option"),
        (r"\Arequests_per_minute(?= must )", "--rpm"),
        (r"\Atokens_per_minute(?= must )", "--tpm"),
        (r"\A(output|template|temperature)(?= must |: )", r"--\1"),
        (r"\Amax_(tokens|retries|failures)(?= must )", r"--max-\1"),
        (r"\Amax_error_rate(?= must )", "--max-error-rate"),
        (r",? or None(?=, not )", ""),
        (r"(?<![\w/.-])base_url(?![\w/-]|\.\w)", "--base-url"),
        (r"\bfresh=True", "--fresh"),
        (r"\ballow_changed=True", "--allow-changed"),
        (r'\bon_bad_line="skip"', "--on-bad-line skip"),
        (r"\(max_failures\)", "(--max-failures)"),
        (r"\(max_error_rate\)", "(--max-error-rate)"),
        (r"\buse a template to\b", "use --template to"),
        (r"\btimeout=Timeout\((total|idle)=…\)", "--timeout"),
        (r"\blimit the answer with max_tokens\b", "limit the answer with --max-tokens"),
        (r"\bCheck proxy, or the environment if trust_env is set\b", "Check HTTPS_PROXY and the like"),
        (r"\bor pass ssl\.", "or set SSL_CERT_FILE."),
        (r"\bbut max_retry_after is\b", "but the longest wait is"),
        # The command has no option for these.
        (r",? or pass (api_key|max_connections)\b", ""),
        (r" Raise max_event_bytes if that is expected\.", ""),
    )
]


def in_our_words(message: str) -> str:
    """The message with the command's options in place of arguments."""
    for words, ours in _OURS:
        message = words.sub(ours, message)
    return message
