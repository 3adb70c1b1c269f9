"""What is read from the words of an error response."""

from __future__ import annotations

import re

import pytest

from rusty_agent.verdict import SPENT, judge, refuses_content

_SPENT_ACCOUNTS: list[tuple[str, int, object, str | None, str]] = [
    ("OpenRouter, DeepSeek, Together, Hugging Face", 402, None, None, "m"),
    ("OpenAI", 429, "insufficient_quota", None, "m"),
    ("Moonshot", 429, None, "exceeded_current_quota_error", "Your account is suspended, please check your plan"),
    ("OpenAI", 429, "billing_not_active", "billing_not_active", "Your account is not active"),
    ("OpenAI", 400, "billing_hard_limit_reached", "invalid_request_error", "Billing hard limit has been reached"),
    ("Z.ai", 429, "1113", None, "Insufficient balance or no resource package. Please recharge."),
    (
        "Z.ai",
        429,
        "1113",
        None,
        "余额不足或无可用资源包,请充值。",
    ),
    ("MiniMax", 500, None, "api_error", "insufficient balance (1008)"),
    ("DeepSeek", 429, None, "insufficient_balance_error", "m"),
    ("xAI", 429, "Some resource has been exhausted", None, "has used all available credits or reached its limit"),
    ("xAI", 403, "permission-denied", None, "Your newly created team doesn't have any credits or licenses yet."),
    ("xAI", 403, "x", None, "You have run out of credits or need a Grok subscription."),
    (
        "Fireworks",
        412,
        "PRECONDITION_FAILED",
        "error",
        "Account x is suspended, possibly due to the monthly spending limit",
    ),
    ("Anthropic", 400, None, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
    ("DashScope", 400, "Arrearage", "Arrearage", "Access denied, please make sure your account is in good standing."),
    ("Volcengine", 403, "AccountOverdueError", "Forbidden", "because your account has an overdue balance."),
    ("LiteLLM", 429, "429", "budget_exceeded", "ExceededBudget: User x has exceeded their budget"),
    ("a gateway", 401, None, None, "Unauthorized, because this account has insufficient credits"),
    ("new-api", 403, "insufficient_user_quota", "v_api_error", "user quota is not enough"),
    ("SiliconFlow", 403, 30001, None, "Sorry, your account balance is insufficient"),
    ("Gemini", 429, 429, None, "Your project has exceeded its monthly spending cap. Please go to AI Studio"),
    (
        "Zhipu",
        429,
        "1113",
        None,
        "您的账户已欠费，请充值后重试",
    ),
    (
        "LiteLLM",
        429,
        "429",
        None,
        "litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check your "
        "plan and billing details. For more, read https://platform.openai.com/docs/guides/error-codes",
    ),
    (
        "LiteLLM",
        400,
        "400",
        None,
        "litellm.BadRequestError: AnthropicException - "
        '{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too '
        'low to access the Anthropic API."}}',
    ),
    (
        "Anthropic",
        400,
        None,
        "invalid_request_error",
        "You have reached your specified API usage limits. You will regain access",
    ),
    (
        "OpenRouter",
        403,
        403,
        None,
        "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys",
    ),
    ("OpenRouter", 400, 400, None, "Provider returned error: insufficient_quota"),
    (
        "LiteLLM",
        500,
        "500",
        None,
        'APIError: OpenrouterException - {\\"error\\":{\\"message\\":\\"Insufficient credits\\"}}',
    ),
    ("MiniMax", 200, 1008, None, "The endpoint reported an error inside its answer: insufficient balance"),
    ("Gemini", 429, 429, None, "Your prepayment credits are depleted. Please go to AI Studio to manage your project"),
    ("Groq", 400, "blocked_api_access", "invalid_request_error", "m"),
    ("Anthropic", 400, None, "invalid_request_error", "Your organization has reached its spend limit."),
    ("new-api", 403, "pre_consume_token_quota_failed", "new_api_error", "token quota is not enough, need quota: 0.2"),
    ("Novita", 403, 403, None, "not enough balance"),
    (
        "DashScope",
        403,
        None,
        None,
        "The free tier of the model has been exhausted. If you wish to continue access the model",
    ),
    ("Cloudflare", 429, 4006, None, "you have used up your daily free allocation of 10,000 neurons"),
    (
        "Moonshot",
        429,
        None,
        None,
        "Your account org-x <ak-y> is suspended due to insufficient balance, please recharge your account",
    ),  # continuedev/continue#11443
    (
        "Gemini",
        429,
        429,
        None,
        "You exceeded your current quota, please check your plan and billing details. * Quota exceeded "
        "for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, "
        "model: gemini-2.0-flash Please retry in 17.757286616s.",
    ),  # continuedev/continue#11424
    (
        "Kimi",
        403,
        None,
        "permission_error",
        "You've reached your usage limit for this billing cycle. Your quota will be refreshed in the next cycle.",
    ),  # NanmiCoder/cc-haha#1208
    (
        "Kimi",
        403,
        None,
        "access_terminated_error",
        "You've reached your weekly (7-day) usage limit. Your quota will reset when the current 7-day window ends.",
    ),  # openclaw/openclaw#142656
    (
        "Ollama",
        429,
        None,
        None,
        "you (ae2055838) have reached your session usage limit, upgrade for higher limits: https://ollama.com/upgrade",
    ),  # continuedev/continue#11444
    ("Z.ai", 429, "1308", None, "Usage limit reached for 5 hour. Your limit will reset at 2026-09-16 06:28:10"),
    (
        "Z.ai",
        429,
        "1310",
        "rate_limit_error",
        "[1310][Weekly/Monthly Limit Exhausted. Your limit will reset at 2026-08-01 10:03:40]",
    ),
    (
        "Zhipu",
        429,
        "1308",
        None,
        "已达到 5 小时的使用上限。您的限额将在 2026-08-25 07:41:44 重置。",
    ),  # dirge-code/dirge#818
    (
        "Cohere",
        429,
        None,
        None,
        "You are using a Trial key, which is limited to 1000 API calls / month. You can continue to use the Trial key",
    ),
    (
        "Volcengine",
        429,
        "AccountQuotaExceeded",
        "TooManyRequests",
        "You have exceeded the 5-hour usage quota. It will reset at 2026-06-24 07:07:31 +0800 CST. We recommend",
    ),
    (
        "Volcengine",
        429,
        "AccountQuotaExceeded",
        "TooManyRequests",
        "You have exceeded the monthly usage quota. It will reset at 2026-09-23 23:59:59 +0800 CST. We recommend",
    ),  # CLIProxyAPI#5978
    ("DashScope", 429, None, None, "week allocated quota exceeded"),
    (
        "Volcengine",
        429,
        "SetLimitExceeded",
        "TooManyRequests",
        "Your account [2100] has reached the set inference limit for the [glm-5.3] model, and the model service has "
        "been paused. To continue using this model, please visit the Model Activation page",
    ),
]
"""Who says it, with which status; its code, type and words."""


@pytest.mark.parametrize("row", _SPENT_ACCOUNTS, ids=[f"{who}-{status}" for who, status, *_ in _SPENT_ACCOUNTS])
def test_nothing_is_left_to_spend(row: tuple[str, int, object, str | None, str]) -> None:
    _, status, code, kind, message = row
    assert judge(status, code, kind, message).spent
    assert judge(status, code, kind, f"HTTP {status}: {message}").spent


@pytest.mark.parametrize("pattern", SPENT)
def test_each_pattern_is_needed_for_a_recorded_message(pattern: str) -> None:
    found = re.compile(pattern, re.IGNORECASE)
    assert any(found.search(f"{code} {kind} {message}") for _, _, code, kind, message in _SPENT_ACCOUNTS)


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
        "Quota exceeded for metric: generate_content_free_tier_requests, limit: 20, model: m Please retry in 8.2s.",
        "Quota exceeded for metric: x, limit: 0.5",
        "You are using a Trial key, which is limited to 20 API calls / minute.",
        "Your usage limit is 1000 requests per day. Rate limit reached",
        "AI usage limit exceeded. Please try again in a moment.",  # what applications make of any 429
        "AI usage limit exceeded. Please try again later.",
        "concurrency allocated quota exceeded",
        "Allocated quota exceeded, please increase your quota limit.",
        "Your account org-x <ak-x> request reached organization max RPM: 3, please try again after 1 seconds",
        "This request would exceed your organization's maximum usage increase rate for input tokens per minute",
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


@pytest.mark.parametrize(
    "said",
    [
        "Our servers are currently overloaded. Please try again later.",  # openai/codex#43337
        "System is too busy now. Please try again later.",  # SiliconFlow
        "Service temporarily unavailable. The model is at capacity and currently cannot serve this request.",  # xAI
        "Service tier capacity exceeded for this model.",  # Mistral
        "The model is over capacity",  # Groq
        "We're currently experiencing high demand, which may cause temporary errors.",  # OpenAI
        "Too many tokens, please wait before trying again.",  # Bedrock
        "An error occurred (ThrottlingException) when calling the ConverseStream operation",
        "ResourceExhausted: Worker local total request limit reached (33/32)",  # NVIDIA, OmniRoute#8210
        "Timed out waiting for first token",  # xAI
        "Rate limit reached",
        "That model is currently overloaded with other requests. You can retry your request",  # OpenAI
        "该模型当前访问量过大，请您稍后再试",  # Z.ai's 1305 (jetbrains-cc-gui#897)
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",  # Envoy
        "Connection error.",  # OpenAI's client for Python, in a gateway
        "stream timeout",  # Envoy
        "Network connection lost.",  # Cloudflare's workers
        "peer closed connection without sending complete message body (incomplete chunked read)",  # httpx
        "read tcp 10.0.0.1:4312->10.0.0.2:443: read: connection reset by peer",  # Go
        "unexpected EOF",
        "Internal server error",
        "litellm.ServiceUnavailableError: AnthropicException - m",
        "litellm.APIConnectionError: m",
        "litellm.InternalServerError: m",
    ],
)
def test_words_inside_an_answer_that_ask_to_try_again(said: str) -> None:
    assert judge(200, None, None, said) == (False, False, True)
    assert not judge(400, None, None, said).may_pass  # a status says more than words


@pytest.mark.parametrize("said", ["The context is too long", "insufficient balance, try again later", "no"])
def test_words_inside_an_answer_that_do_not(said: str) -> None:
    assert not judge(200, None, None, said).may_pass


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("content_filter", None, "The response was filtered due to the prompt triggering …"),  # Azure OpenAI
        (None, None, "… due to the prompt triggering Azure OpenAI's content management policy."),
        (
            "invalid_prompt",
            "invalid_request_error",
            "Invalid prompt: your prompt was flagged as potentially violating …",
        ),
        (None, "invalid_request_error", "Output blocked by content filtering policy"),  # Anthropic
        ("invalid_request_error", "invalid_request_error", "Content Exists Risk"),  # DeepSeek
        ("data_inspection_failed", "data_inspection_failed", "no"),  # DashScope
        (None, None, "<400> InternalError.Algo.DataInspectionFailed: Input text data may contain …"),
        (None, None, "Input data may contain inappropriate content."),
        (None, "content_filter", "The request was rejected because it was considered high risk"),  # Moonshot
        ("InputTextSensitiveContentDetected", "BadRequest", "no"),  # Volcengine
        (None, None, "The request failed because the input text may contain sensitive information."),
        (None, None, "input new_sensitive (1026)"),  # MiniMax
        ("1301", None, "系统检测到输入或生成内容可能包含不安全或敏感内容"),  # Z.ai
        (403, None, 'x requires moderation on y. Your input was flagged for "violence".'),  # OpenRouter
        (None, None, "Content violates usage guidelines."),  # xAI
        (None, None, "litellm.ContentPolicyViolationError: no"),
        (None, None, "Violated OpenAI moderation policy"),
    ],
)
def test_content_is_refused(code: object, kind: object, message: str) -> None:
    assert refuses_content(code, kind, message)
    assert not judge(400, code, kind, message).key_refused


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("model_not_found", "The model `x` does not exist"),
        ("context_length_exceeded", "This model's maximum context length is 8192 tokens"),
        (None, "Invalid value for 'content': expected a string, got null."),
        (None, "Invalid content type. image_url is only supported by certain models."),
        (None, "Your account was flagged for abuse"),
        ("unsupported_content_type", "Unsupported Content-Type"),
    ],
)
def test_what_all_prompts_would_meet_is_no_refusal_of_content(code: object, message: str) -> None:
    assert not refuses_content(code, "invalid_request_error", message)
