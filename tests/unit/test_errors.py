"""The errors: their tree, and that they keep every field through pickle and copy."""

from __future__ import annotations

import copy
import pickle
import traceback
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
        fields |= {"body": b"<html>\xff"}
    elif issubclass(kind, errors.RunStoppedError):
        fields |= {"reason": "quota", "done": 7, "failed": 2}
    error: errors.RustyAgentError = kind("What happened.", **fields)
    error.attempts = 3
    error.retryable = not error.retryable
    for key, value in fields.items():
        assert getattr(error, key) == value
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


def test_defaults_of_the_fields_of_some() -> None:
    status = errors.APIStatusError("m")
    assert (status.status_code, status.code, status.type, status.param) == (0, None, None, None)
    assert (status.body, status.retry_after, status.headers) == (None, None, {})
    assert (errors.APITimeoutError("m").limit, errors.APITimeoutError("m").seconds) == ("total", None)
    assert errors.ResponseError("m").body == b""


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
    ("status", "said"),
    [
        (402, (None, None, "m")),
        (429, ("insufficient_quota", None, "m")),
        (429, (None, "exceeded_current_quota_error", "Your account is suspended, please check your plan")),
        (429, ("billing_not_active", "billing_not_active", "Your account is not active")),
        (400, ("billing_hard_limit_reached", "invalid_request_error", "Billing hard limit has been reached")),
        (429, ("1113", None, "Insufficient balance or no resource package. Please recharge.")),
        (429, ("1113", None, "余额不足或无可用资源包,请充值。")),
        (500, (None, "api_error", "insufficient balance (1008)")),
        (429, (None, "insufficient_balance_error", "m")),
        (429, ("Some resource has been exhausted", None, "has used all available credits or reached its limit")),
        (403, ("permission-denied", None, "Your newly created team doesn't have any credits or licenses yet.")),
        (403, ("x", None, "You have run out of credits or need a Grok subscription.")),
        (412, ("PRECONDITION_FAILED", "error", "Account x is suspended, possibly due to the monthly spending limit")),
        (400, (None, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")),
        (400, ("Arrearage", "Arrearage", "Access denied, please make sure your account is in good standing.")),
        (403, ("AccountOverdueError", "Forbidden", "because your account has an overdue balance.")),
        (429, ("429", "budget_exceeded", "ExceededBudget: User x has exceeded their budget")),
        (403, ("insufficient_user_quota", "v_api_error", "user quota is not enough")),
        (403, (30001, None, "Sorry, your account balance is insufficient")),
        (429, (429, None, "Your project has exceeded its monthly spending cap. Please go to AI Studio")),
        (429, ("1113", None, "您的账户已欠费，请充值后重试")),
        (
            429,
            (
                "429",
                None,
                "litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check "
                "your plan and billing details. For more, read https://platform.openai.com/docs/guides/error-codes",
            ),
        ),
        (
            400,
            (
                "400",
                None,
                'litellm.BadRequestError: AnthropicException - {"type":"error","error":{"type":'
                '"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}',
            ),
        ),
        (
            400,
            (None, "invalid_request_error", "You have reached your specified API usage limits. You will regain access"),
        ),
        (403, (403, None, "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys")),
        (400, (400, None, "Provider returned error: insufficient_quota")),
        (
            500,
            ("500", None, 'APIError: OpenrouterException - {\\"error\\":{\\"message\\":\\"Insufficient credits\\"}}'),
        ),
        (200, (1008, None, "The endpoint reported an error inside its answer: insufficient balance")),
        (429, (429, None, "Your prepayment credits are depleted. Please go to AI Studio to manage your project")),
        (400, ("blocked_api_access", "invalid_request_error", "m")),
        (400, (None, "invalid_request_error", "Your organization has reached its spend limit.")),
        (403, ("pre_consume_token_quota_failed", "new_api_error", "token quota is not enough, need quota: 0.2")),
        (403, (403, None, "not enough balance")),
        (403, (None, None, "The free tier of the model has been exhausted. If you wish to continue access the model")),
        (429, (4006, None, "you have used up your daily free allocation of 10,000 neurons")),
    ],
)
def test_nothing_is_left_to_spend(status: int, said: tuple[object, object, str]) -> None:
    code, kind, message = said
    assert errors.is_spent(status, code, kind, message)
    assert errors.is_spent(status, code, kind, f"HTTP {status}: {message}")


@pytest.mark.parametrize("status", [400, 422, 500, 503])
def test_words_of_a_prompt_that_an_error_quotes_say_nothing_of_the_account(status: int) -> None:
    for said in (
        "Failed to parse input: «the payment failed for insufficient funds»",
        "Invalid 'messages[0]': {'content': 'Insufficient funds'}",
        'Invalid: {"messages":[{"content":"Your balance is insufficient"}]}',
        "insufficient fundamentals",
    ):
        assert not errors.is_spent(status, None, "invalid_request_error", f"HTTP {status}: {said}")


@pytest.mark.parametrize("host", ["help.aliyun.com/zh", "www.alibabacloud.com/help/en"])
@pytest.mark.parametrize(
    "said", ["You exceeded your current quota, please check your plan", "Allocated quota exceeded"]
)
def test_a_full_minute_that_dashscope_calls_a_used_up_quota(said: str, host: str) -> None:
    said = f"{said}. For details, see: https://{host}/model-studio/error-code#token-limit"
    quota = {"code": "insufficient_quota", "type": "insufficient_quota"}
    assert errors.RateLimitError(said, status_code=429, **quota).retryable  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        "You exceeded your current quota, please check your plan and billing details. Please retry in 33.5s.",
        "Rate limit reached on tokens per day (TPD). Upgrade today at https://console.groq.com/settings/billing",
        "Rate limit reached. You can increase your rate limit by adding a payment method to your account",
        "Rate limit exceeded: free-models-per-min. Add 10 credits to unlock more",
        "token_quota_exceeded too_many_tokens_error Tokens per minute limit exceeded",
        "insufficient capacity, try again",
        "Rate limit reached. Raise your spending limit for more requests per minute",
    ],
)
def test_a_full_minute_is_no_spent_account(said: str) -> None:
    assert not errors.is_spent(429, None, None, said)
    assert errors.RateLimitError(said, status_code=429).retryable


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (401, None, None, "no"),
        (400, 400, None, "API key not valid. Please pass a valid API key."),  # Gemini
        (400, 400, None, "API Key not found. Please pass a valid API key."),
        (400, 400, None, "API key expired. Please renew the API key."),
        (400, "Client specified an invalid argument", None, "Incorrect API key provided: gs***tF. You can obtain"),
        (403, "invalid_api_key", "invalid_request_error", "no"),
        (400, "InvalidApiKey", None, "no"),
        (403, None, None, "Your API key was reported as leaked. Please use another API key."),
        (403, 403, None, "Permission denied: Consumer 'api_key:AIza' has been suspended."),
        (403, "unauthorized", "invalid_request_error", "The API key you provided is invalid."),
        (400, None, None, "Missing API key. Please provide it"),
        (400, "organization_restricted", "invalid_request_error", "Organization has been restricted. Please reach out"),
        (400, None, "invalid_request_error", "This organization has been disabled."),
        (403, "403", None, "Invalid access token. [ReqId: x]"),
        (403, None, None, "Bearer Token has expired"),
        (403, None, None, "The security token included in the request is invalid."),
        (200, None, None, "Invalid API key"),
    ],
)
def test_a_key_is_refused(status: int, code: object, kind: object, message: str) -> None:
    assert errors.refuses_key(status, code, kind, message)
    assert errors.refuses_key(status, code, kind, f"HTTP {status}: {message}")


@pytest.mark.parametrize("status", [400, 403])
def test_words_of_a_prompt_say_nothing_of_the_key(status: int) -> None:
    for said in (
        "Invalid prompt: Incorrect API key provided",
        "No access to this model",
        "Invalid API keyword",
        "Your API key has no access to this model, which is disabled",
        "Invalid token in JSON at position 3",
        "Your account may not send this. The image is invalid",
    ):
        assert not errors.refuses_key(status, None, "invalid_request_error", f"HTTP {status}: {said}")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_other_failures_say_nothing_of_the_key(status: int) -> None:
    assert not errors.refuses_key(status, None, None, "Incorrect API key provided")
