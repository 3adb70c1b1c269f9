"""What is read from the words of an error response."""

from __future__ import annotations

import pytest

from rusty_agent.verdict import judge


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
    assert judge(status, code, kind, message).spent
    assert judge(status, code, kind, f"HTTP {status}: {message}").spent


@pytest.mark.parametrize("status", [400, 422, 500, 503])
def test_words_of_a_prompt_that_an_error_quotes_say_nothing_of_the_account(status: int) -> None:
    for said in (
        "Failed to parse input: «the payment failed for insufficient funds»",
        "Invalid 'messages[0]': {'content': 'Insufficient funds'}",
        'Invalid: {"messages":[{"content":"Your balance is insufficient"}]}',
        "insufficient fundamentals",
    ):
        assert not judge(status, None, "invalid_request_error", f"HTTP {status}: {said}").spent


@pytest.mark.parametrize("host", ["help.aliyun.com/zh", "www.alibabacloud.com/help/en"])
@pytest.mark.parametrize(
    "said", ["You exceeded your current quota, please check your plan", "Allocated quota exceeded"]
)
def test_a_full_minute_that_dashscope_calls_a_used_up_quota(said: str, host: str) -> None:
    said = f"{said}. For details, see: https://{host}/model-studio/error-code#token-limit"
    assert judge(429, "insufficient_quota", "insufficient_quota", said) == (False, False, True)


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
    assert not judge(429, None, None, said).spent
    assert judge(429, None, None, said).may_pass


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
    assert judge(status, code, kind, message).key_refused
    assert judge(status, code, kind, f"HTTP {status}: {message}").key_refused


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
        assert not judge(status, None, "invalid_request_error", f"HTTP {status}: {said}").key_refused


@pytest.mark.parametrize("status", [429, 500, 503])
def test_other_failures_say_nothing_of_the_key(status: int) -> None:
    assert not judge(status, None, None, "Incorrect API key provided").key_refused
