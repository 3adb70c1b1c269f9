"""The errors: their tree, and that they keep every field through pickle and copy."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from rusty_agent import errors
from rusty_agent.types import Usage

TREE: dict[str, tuple[type[BaseException], ...]] = {
    "RustyAgentError": (Exception,),
    "APIConnectionError": (errors.RustyAgentError, ConnectionError, OSError),
    "APITimeoutError": (errors.APIConnectionError, TimeoutError),
    "StreamInterruptedError": (errors.APIConnectionError,),
    "APIStatusError": (errors.RustyAgentError, RuntimeError),
    "BadRequestError": (errors.APIStatusError,),
    "AuthenticationError": (errors.APIStatusError,),
    "PermissionDeniedError": (errors.APIStatusError,),
    "NotFoundError": (errors.APIStatusError,),
    "RateLimitError": (errors.APIStatusError,),
    "ServerError": (errors.APIStatusError,),
    "ResponseError": (errors.RustyAgentError, ValueError),
    "MissingAPIKeyError": (errors.RustyAgentError, ValueError),
    "LocalModelError": (errors.RustyAgentError, RuntimeError),
    "RunStoppedError": (errors.RustyAgentError, RuntimeError),
    "BatchError": (errors.RustyAgentError, RuntimeError),
}

COMMON: dict[str, Any] = {"partial_text": "so far", "usage": Usage(1, 2, 3, raw={"x": 1}), "request_id": "req_1"}
STATUS: dict[str, Any] = {
    "status_code": 429,
    "code": "c",
    "type": "t",
    "param": "p",
    "body": {"error": [1, {"a": None}]},
    "retry_after": 1.5,
    "headers": {"retry-after": "1.5"},
}


def _made(name: str) -> errors.RustyAgentError:
    kind = getattr(errors, name)
    fields = dict(COMMON)
    if issubclass(kind, errors.APIStatusError):
        fields |= STATUS
    elif issubclass(kind, errors.APITimeoutError):
        fields |= {"limit": "idle", "seconds": 2.5}
    elif issubclass(kind, errors.ResponseError):
        fields |= {"body": b"<html>\xff", "retryable": True}
    elif issubclass(kind, errors.RunStoppedError):
        fields |= {"reason": "quota", "done": 7, "failed": 2}
    if issubclass(kind, errors.APIConnectionError):
        fields |= {"retryable": False, "sent": False}
    error: errors.RustyAgentError = kind("What happened.", **fields)
    error.attempts = 3
    for key, value in fields.items():
        assert getattr(error, key) == value
    error.retryable = not error.retryable
    return error


def test_the_tree_is_whole() -> None:
    assert set(TREE) == set(errors.__all__)
    assert all(name in (errors.__doc__ or "") for name in TREE)


@pytest.mark.parametrize("name", TREE)
def test_errors_are_the_builtins_that_users_catch(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, (errors.RustyAgentError, *TREE[name]))
    assert all(issubclass(kind, parent) for parent in TREE[name])
    assert kind.__doc__
    others = {ConnectionError, RuntimeError, ValueError} - set(TREE[name])
    if not issubclass(kind, errors.APIConnectionError | errors.APIStatusError):
        assert not any(issubclass(kind, other) for other in others)


@pytest.mark.parametrize("name", TREE)
def test_catchable_as_built_in(name: str) -> None:
    for parent in TREE[name]:
        with pytest.raises(parent) as caught:
            raise _made(name)
        assert type(caught.value) is getattr(errors, name)


@pytest.mark.parametrize("name", TREE)
@pytest.mark.parametrize("protocol", [*range(pickle.HIGHEST_PROTOCOL + 1), "copy", "deepcopy"])
def test_nothing_is_lost_on_the_way(name: str, protocol: int | str) -> None:
    error = _made(name)
    if protocol == "copy":
        twin = copy.copy(error)
    elif protocol == "deepcopy":
        twin = copy.deepcopy(error)
    else:
        assert isinstance(protocol, int)
        twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


class Own(errors.RateLimitError):
    """As a hook of a user's may raise."""

    def __init__(self, shop: str, *, seconds: float) -> None:
        super().__init__(f"{shop} is closed", status_code=429)
        self.retry_after = seconds


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_class_of_ones_own_may_have_another_constructor(twin_of: Callable[[Own], Own]) -> None:
    error = Own("the shop", seconds=2.5)
    twin = twin_of(error)
    assert type(twin) is Own
    assert (str(twin), twin.args, vars(twin)) == ("the shop is closed", error.args, vars(error))


@pytest.mark.parametrize("name", TREE)
def test_the_text_is_the_message(name: str) -> None:
    error = _made(name)
    assert str(error) == error.message == "What happened."
    assert repr(error) == f"{name}('What happened.')"
    assert traceback.format_exception_only(error) == [f"rusty_agent.errors.{name}: What happened.\n"]


@pytest.mark.parametrize("name", TREE)
def test_an_error_knows_nothing_until_it_is_told(name: str) -> None:
    error = getattr(errors, name)("m")
    assert (error.partial_text, error.usage, error.request_id, error.attempts) == ("", None, None, 1)
    assert error.retryable is isinstance(error, errors.APIConnectionError)
    assert error.retry_after is None


def test_defaults_of_the_fields_of_some() -> None:
    status = errors.APIStatusError("m")
    assert (status.status_code, status.code, status.type, status.param) == (0, None, None, None)
    assert (status.body, status.retry_after, status.headers) == (None, None, {})
    assert (errors.APITimeoutError("m").limit, errors.APITimeoutError("m").seconds) == ("total", None)
    assert errors.ResponseError("m").body == b""


@pytest.mark.parametrize("kind", [errors.APIConnectionError, errors.APITimeoutError, errors.ResponseError])
@pytest.mark.parametrize("of_class", [True, False])
def test_a_class_of_ones_own_tells_whether_to_retry_unless_an_error_does(
    kind: type[errors.APIConnectionError | errors.ResponseError], of_class: bool
) -> None:
    own = type("Own", (kind,), {"retryable": of_class})
    assert own("m").retryable is of_class
    assert own("m", retryable=not of_class).retryable is not of_class


def test_headers_are_copied() -> None:
    headers = {"a": "b"}
    error = errors.APIStatusError("m", headers=headers)
    headers["a"] = "c"
    assert error.headers == {"a": "b"}


@pytest.mark.parametrize("status", [408, 409, 425, 429, 498, 500, 502, 503, 504, 520, 524, 529])
def test_statuses_that_may_pass(status: int) -> None:
    assert errors.APIStatusError("m", status_code=status).retryable
    assert not errors.APIStatusError("m", status_code=status, code="insufficient_quota").retryable
    assert not errors.APIStatusError("m", status_code=status, headers={"x-should-retry": "False"}).retryable


@pytest.mark.parametrize("status", [0, 200, 307, 400, 401, 402, 403, 404, 413, 422, 501, 505])
def test_statuses_that_stay(status: int) -> None:
    assert not errors.APIStatusError("m", status_code=status).retryable
    assert errors.APIStatusError("m", status_code=status, headers={"x-should-retry": "true"}).retryable


@pytest.mark.parametrize(
    ("fields", "spent", "key_refused"),
    [
        ({"status_code": 429}, False, False),
        ({"status_code": 429, "code": "insufficient_quota"}, True, False),
        ({"status_code": 400, "type": "invalid_api_key"}, False, True),
        ({"status_code": 401}, False, True),
        ({"status_code": 401, "code": "insufficient_balance"}, True, False),  # the key was known
    ],
)
def test_errors_made_by_hand_know_what_they_mean(fields: dict[str, Any], spent: bool, key_refused: bool) -> None:
    error = errors.APIStatusError("m", **fields)
    assert (error.spent, error.key_refused) == (spent, key_refused)
