"""Which refusals are understood, and what is sent instead."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.wire import failure
from rusty_agent.wire.codec import dumps
from rusty_agent.wire.refusal import Adaptation, Refusals, refused_parameter

BODY = {
    "model": "m",
    "messages": [],
    "max_tokens": 5,
    "temperature": 0.5,
    "seed": 1,
    "stop": ["x"],
    "response_format": {},
    "tools": [],
    "stream_options": {},
    "top_p": 0.5,
    "reasoning_effort": "low",
}


def refusal(body: Any, status: int = 400) -> Any:
    return failure.status_error(status, {}, dumps(body), now=0)


def openai(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


RENAMED = ("max_tokens", "max_completion_tokens")
UNDERSTOOD: dict[str, tuple[Any, int, tuple[str, str | None]]] = {
    "OpenAI, o-series": (
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        400,
        RENAMED,
    ),
    "OpenAI, a value": (
        openai(
            "Unsupported value: 'temperature' does not support 0.5 with this model. "
            "Only the default (1) value is supported.",
            "temperature",
            "unsupported_value",
        ),
        400,
        ("temperature", None),
    ),
    "Cerebras": (  # anomalyco/opencode#6648
        {
            "message": "body.seed: property 'body.seed' is unsupported\nbody.top_p: 'body.top_p' is unsupported",
            "type": "invalid_request_error",
            "param": "validation_error",
            "code": "wrong_api_format",
        },
        400,
        ("seed", None),
    ),
    "Bedrock through LiteLLM": (  # litellm#9916
        {"message": "Malformed input request: #: extraneous key [include_usage] is not permitted, please reformat"},
        400,
        ("stream_options", None),
    ),
    "FastAPI": (
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
        422,
        ("seed", None),
    ),
    "Mistral": (
        {
            "object": "error",
            "message": {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]},
            "type": "invalid_request_error",
        },
        422,
        ("stream_options", None),
    ),
    "NVIDIA's NIM": (
        {
            "type": "urn:inference-service:problem-details:unprocessable-entity",
            "title": "Unprocessable Entity",
            "status": 422,
            "detail": "body -> seed\n  Extra inputs are not permitted (type=extra_forbidden)",
        },
        422,
        ("seed", None),
    ),
    "a server in Rust": (
        openai(
            "Failed to deserialize the JSON body into the target type: seed: unknown field `seed`, expected one of "
            "`messages`, `model`, `store`, `temperature`, `tools` at line 1 column 212"
        ),
        400,
        ("seed", None),
    ),
    "a sentence": ({"error": "property 'top_p' is unsupported"}, 400, ("top_p", None)),
    "Azure": (openai("Unrecognized request argument supplied: seed"), 400, ("seed", None)),
    "an old pydantic": (
        {"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted", "type": "value_error.extra"}]},
        422,
        ("seed", None),
    ),
    "another name, and no more said": (
        openai("This model takes max_completion_tokens, not max_tokens.", "max_tokens"),
        400,
        RENAMED,
    ),
    "Anthropic": (openai("`temperature` is deprecated for this model."), 400, ("temperature", None)),
    "Bedrock": (
        {"message": "The model returned the following errors: temperature is deprecated for this model."},
        400,
        ("temperature", None),
    ),
    "Moonshot": (
        openai("invalid temperature: only 1 is allowed for this model"),
        400,
        ("temperature", None),
    ),
    "LiteLLM": (
        openai(
            "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0.5. Only temperature=1 is "
            "supported. For gpt-5.1, temperature is supported when reasoning_effort='none'. To drop unsupported "
            "params set `litellm.drop_params = True`"
        ),
        400,
        ("temperature", None),
    ),
    "Fireworks": (
        openai("Extra inputs are not permitted, field: 'stream_options', value: {'include_usage': True}"),
        400,
        ("stream_options", None),
    ),
    "xAI": (
        {"code": "Client specified an invalid argument", "error": "Argument not supported on this model: topP"},
        400,
        ("top_p", None),
    ),
    "xAI's other words": ({"error": "Model grok-4 does not support parameter topP."}, 400, ("top_p", None)),
    "OpenRouter": (
        {
            "error": {
                "message": "Provider returned error",
                "metadata": {"raw": dumps(openai("Unknown parameter: 'seed'")).decode()},
            }
        },
        400,
        ("seed", None),
    ),
    "LiteLLM, of several": (
        openai(
            "litellm.UnsupportedParamsError: x does not support parameters: {'reasoning_effort': 'low'}, for model=m"
        ),
        400,
        ("reasoning_effort", None),
    ),
    "LiteLLM's proxy": (
        openai("litellm.UnsupportedParamsError: x does not support parameters: ['seed'], for model=m", "None", "400"),
        400,
        ("seed", None),
    ),
    "a gateway in Go": (
        openai("Unsupported parameter: 'seed' is not supported with this model.", ""),
        400,
        ("seed", None),
    ),
    "Claude while it thinks": (
        openai(
            "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode. Please consult our docs"
        ),
        400,
        ("temperature", None),
    ),
    "Claude while it thinks, of another": (
        openai("`top_p` must be unset when thinking is enabled."),
        400,
        ("top_p", None),
    ),
    "Bedrock's older models": (
        {"message": "Malformed input request: #: extraneous key [seed] is not permitted, please reformat your input"},
        400,
        ("seed", None),
    ),
    "a number that is not the value": (openai("seed 10 times unsupported: Unknown parameter"), 400, ("seed", None)),
    "Groq": (openai("'seed' : property 'seed' is unsupported, did you mean 'user'?"), 400, ("seed", None)),
}
LEFT_ALONE = {
    "a value out of range": (openai("temperature must be at most 2", "temperature"), 400),
    "what a message holds, of Cerebras": (
        {
            "message": "messages.1.assistant.reasoning: property 'messages.1.assistant.reasoning' is unsupported",
            "type": "invalid_request_error",
            "param": "validation_error",
            "code": "wrong_api_format",
        },
        400,
    ),
    "a part of another parameter": (openai("Unknown parameter: 'seed' of it", "response_format.seed"), 400),
    "what shapes the answer": (openai("Unsupported parameter: 'response_format'", "response_format"), 400),
    "stop sequences": (openai("Unsupported parameter: 'stop' is not supported with this model", "stop"), 400),
    "tools": (openai("tools are not supported", "tools"), 400),
    "something that was not sent": (openai("Unsupported parameter: 'logprobs'", "logprobs"), 400),
    "a word that contains a name": (openai("unknown seeding of the model"), 400),
    "another status": (openai("Unsupported parameter: 'seed'", "seed"), 404),
    "a parameter that is not the caller's": (
        openai("'response_format' is not supported when temperature is set", "response_format"),
        400,
    ),
    "a word of the language": (openai("The user has no seed money: not supported"), 400),
    "a value of several": (
        openai(
            "Unsupported value: 'seed' does not support 7 with this model. Supported values are: 1, 2, and 3.",
            "seed",
            "unsupported_value",
        ),
        400,
    ),
    "a value, by its code alone": (openai("temperature: 7 is not allowed", "temperature", "invalid_value"), 400),
    "a value, by its words alone": (openai("Unexpected value 7 of 'temperature'"), 400),
    "a value called an invalid parameter": (
        openai("Invalid parameter: temperature must be at most 2", "temperature"),
        400,
    ),
    "an invalid parameter, and no more said": (openai("Invalid parameter: 'temperature'", "temperature"), 400),
    "too many tokens": (
        openai(
            "max_tokens is too large: 5000. This model supports at most 4096 completion tokens; "
            "use a smaller value instead",
            "max_tokens",
        ),
        400,
    ),
    "tokens out of bounds": (openai("max_tokens > 4096 is not supported", "max_tokens"), 400),
    "advice without another name": (openai("Use less of max_tokens instead", "max_tokens"), 400),
    "a property of a tool": (
        openai("Unsupported content type in messages[0]: the tool schema property 'temperature' is not allowed here"),
        400,
    ),
    "a parameter that is not the caller's, unnamed": (
        openai("'response_format' is not supported when 'temperature' is set"),
        400,
    ),
    "a parameter that is refused beside tools": (
        openai(
            "Function tools with reasoning_effort are not supported for gpt-5.4 in /v1/chat/completions. "
            "Please use /v1/responses instead.",
            "reasoning_effort",
        ),
        400,
    ),
    "a value that is named": (openai("Unsupported reasoning_effort: low"), 400),
    "a value in quotation marks": (openai("reasoning_effort 'low' is not available for this model"), 400),
    "a value that is not supported": (openai("'reasoning_effort' does not support 'low' with this model"), 400),
    "a number in brackets": (openai("max_tokens (5) is not supported", "max_tokens"), 400),
    "a number behind an equals sign": (openai("temperature=0.5 is not allowed"), 400),
    "tokens that thinking leaves none of": (
        openai("`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation"),
        400,
    ),
    "one of two": (
        openai("`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
        400,
    ),
    "a long prompt": (openai("This model's maximum context length is 10 tokens"), 400),
}


@pytest.mark.parametrize(("body", "status", "change"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_a_refusal_tells_what_to_leave_out_or_rename(body: Any, status: int, change: tuple[str, str | None]) -> None:
    error = refusal(body, status)
    assert refused_parameter(error, BODY) == change
    adaptation = Adaptation(Refusals(), BODY)
    assert adaptation.refused(error)
    name, other = change
    assert name not in adaptation.body
    assert adaptation.body.keys() - BODY.keys() == ({other} if other else set())
    assert BODY[name] == (adaptation.body[other] if other else BODY[name])
    (line,) = adaptation.lines
    assert name in line


@pytest.mark.parametrize(("body", "status"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_names_no_parameter_to_leave_out_changes_nothing(body: Any, status: int) -> None:
    assert refused_parameter(refusal(body, status), BODY) is None


def test_both_names_at_once_are_left_alone() -> None:
    error = refusal(openai("Unsupported parameter: 'max_tokens'", "max_tokens"))
    assert refused_parameter(error, {**BODY, "max_completion_tokens": 3}) is None


def no_such(name: str) -> Any:
    return refusal(openai(f"Unsupported parameter: '{name}'", name))


def test_remembered_for_the_model_once_it_worked() -> None:
    refusals = Refusals()
    first = Adaptation(refusals, BODY)
    assert first.refused(no_such("max_tokens"))
    assert first.refused(no_such("seed"))
    assert Adaptation(refusals, BODY).body == BODY  # not before it worked
    first.worked()
    second = Adaptation(refusals, BODY)
    assert (second.body["max_completion_tokens"], "max_tokens" in second.body, "seed" in second.body) == (
        5,
        False,
        False,
    )
    assert len(second.lines) == 2
    assert Adaptation(refusals, {**BODY, "model": "other"}).lines == []
    assert Adaptation(refusals, {"model": "m"}).lines == []
    assert Adaptation(refusals, {**BODY, "model": ["odd"]}).lines == []


@pytest.mark.parametrize(
    "how",
    [
        {"reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
    ids=repr,
)
def test_what_is_refused_while_the_model_thinks_may_be_sent_when_it_does_not(how: dict[str, Any]) -> None:
    refusals = Refusals()
    thinking = Adaptation(refusals, BODY)
    assert thinking.refused(no_such("temperature"))
    thinking.worked()
    assert "temperature" in Adaptation(refusals, {**BODY, **how}).body
    assert "temperature" not in Adaptation(refusals, {**BODY, "seed": 2}).body


def test_budgets_of_thinking_are_no_ways_to_think() -> None:
    refusals = Refusals()
    first = {"model": "m", "thinking": {"budget_tokens": 1024}}
    assert refusals.known(first) is refusals.known({"model": "m", "thinking": {"budget_tokens": 2048}})
    assert refusals.known(first) is not refusals.known({**first, "model": "m2"})


def test_documents_for_a_template_are_no_ways_to_think() -> None:
    refusals = Refusals()
    first = {"model": "m", "chat_template_kwargs": {"documents": ["a"], "enable_thinking": True}}
    for kwargs, same in [({"documents": ["b"], "enable_thinking": True}, True), ({"documents": ["a"]}, False)]:
        assert (refusals.known(first) is refusals.known({"model": "m", "chat_template_kwargs": kwargs})) is same
    assert refusals.known({"model": "m", "chat_template_kwargs": "odd"}) is refusals.known({"model": "m"})


def test_gemini_refuses_both_penalties_with_the_same_words() -> None:
    body = {"model": "m", "frequency_penalty": 0.5, "presence_penalty": 0.5, "seed": 1}
    adaptation = Adaptation(Refusals(), body)
    error = refusal([{"error": {"code": 400, "message": "Penalty is not enabled for models/gemini-2.5-flash"}}])
    assert adaptation.refused(error)
    assert adaptation.body == {"model": "m", "presence_penalty": 0.5, "seed": 1}
    assert adaptation.refused(error)
    assert adaptation.body == {"model": "m", "seed": 1}
    assert not adaptation.refused(error)


def test_refused_under_both_names_the_first_error_counts() -> None:
    refusals = Refusals()
    adaptation = Adaptation(refusals, BODY)
    first, second = no_such("max_tokens"), no_such("max_completion_tokens")
    assert adaptation.error(second) is second
    assert adaptation.refused(first)
    assert not adaptation.refused(second)
    assert adaptation.error(second) is first
    assert Adaptation(refusals, BODY).body == BODY


def test_a_name_that_is_remembered_and_refused_is_forgotten() -> None:
    refusals = Refusals()
    first = Adaptation(refusals, BODY)
    assert first.refused(no_such("max_tokens"))
    first.worked()
    second = Adaptation(refusals, BODY)
    assert second.refused(no_such("max_completion_tokens"))
    assert second.body == BODY
    second.worked()
    assert Adaptation(refusals, BODY).lines == []
    assert second.refused(no_such("max_tokens"))  # and no further
    assert not second.refused(no_such("max_completion_tokens"))


def test_what_is_remembered_overwrites_nothing() -> None:
    refusals = Refusals()
    first = Adaptation(refusals, BODY)
    assert first.refused(no_such("max_tokens"))
    first.worked()
    both = {**BODY, "max_completion_tokens": 77}
    assert Adaptation(refusals, both).body == both


def test_another_thread_may_learn_while_a_call_begins() -> None:
    refusals = Refusals()
    refusals.known(BODY).update({"seed": None, "top_p": None})

    class Interrupted(Adaptation):
        def _change(self, name: str, other: str | None) -> None:
            refusals.known(BODY)["temperature"] = None
            super()._change(name, other)

    assert len(Interrupted(refusals, BODY).lines) == 2


def test_nothing_is_learnt_from_a_call_that_was_not_refused() -> None:
    refusals = Refusals()
    Adaptation(refusals, BODY).worked()
    assert refusals.known(BODY) == {}


def test_a_call_refused_while_another_learns_adapts_too() -> None:
    refusals = Refusals()
    one, two = Adaptation(refusals, BODY), Adaptation(refusals, BODY)
    assert one.refused(no_such("seed"))
    one.worked()
    assert two.refused(no_such("seed"))
