"""The error of a batch as a whole.

In: what happened, in words. Out: an exception that pickles. Never touched: the errors of single rows.
"""

from __future__ import annotations

from ..errors import RustyAgentError

__all__ = ["BatchError"]


class BatchError(RustyAgentError, RuntimeError):
    """The batch cannot begin or go on."""
