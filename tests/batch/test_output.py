"""What a batch writes: lines of answers and failures, the summary, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rusty_agent import AsyncProvider, Limits
from rusty_agent.testing import Answer, Received, answer, error, stream
from rusty_agent.wire.codec import dumps, loads_strict

from .runs import Place, by_prompt, ids, prompt, read, said, simple


async def test_results_are_lines_of_openais_batch_api(place: Place) -> None:
    line: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "note": 7}
    line["body"] = {"model": "other", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    body = {"id": "x", "object": "chat.completion"}
    place.server.answer(answer({**body, **_completion("yes")}, headers={"x-request-id": "req_1"}))
    result = await place.run([line], price=(1.0, 2.0))
    [written] = read(place.output)
    assert list(written) == ["id", "custom_id", "response", "error", "x_rusty"]
    assert written["id"].startswith("batch_req_")
    assert (written["custom_id"], written["error"]) == ("a", None)
    assert written["response"] == {"status_code": 200, "request_id": "req_1", "body": {**body, **_completion("yes")}}
    facts = written["x_rusty"]
    assert facts.pop("latency_s") > 0
    assert facts == {"line": 1, "attempts": 1, "cost_usd": 13e-6, "fields": {"note": 7}}
    [request] = place.server.requests
    assert request.json == {"model": "other", "messages": line["body"]["messages"], "temperature": 0}
    assert (result.done, result.failed, result.total, result.cost, result.stopped) == (1, 0, 1, 13e-6, None)
    assert not place.errors.exists()


def _completion(text: str, reason: str = "stop") -> dict[str, Any]:
    return {
        "model": "other",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }


async def test_failures_have_the_same_shape_in_a_file_of_their_own(place: Place) -> None:
    place.server.answer(
        by_prompt({"r1": error(400, "no such thing", headers={"x-request-id": "q"}), "r2": answer(b"<html>")})
    )
    result = await place.run(simple(3))
    assert (result.done, result.failed) == (1, 2)
    assert ids(place.output) == ["r0"]
    http, other = sorted(read(place.errors), key=lambda line: line["custom_id"])
    assert list(http) == list(other) == ["id", "custom_id", "response", "error", "x_rusty"]
    assert http["error"] is None
    assert (http["response"]["status_code"], http["response"]["request_id"]) == (400, "q")
    assert http["response"]["body"]["error"]["message"] == "no such thing"
    assert http["x_rusty"]["permanent"] is True
    assert http["x_rusty"]["line"] == 2
    assert other["response"] is None
    assert other["error"]["code"] == "invalid_response"
    assert other["x_rusty"]["permanent"] is False
    assert "test-key-12345" not in place.errors.read_text() + place.manifest.read_text()


async def test_finish_reason_length_is_a_result_and_flagged(place: Place) -> None:
    place.server.answer(answer({"id": "x", **_completion("cut", "length")}))
    result = await place.run(simple(1))
    assert read(place.output)[0]["x_rusty"]["truncated"] is True
    assert (result.done, result.summary["truncated"], result.summary["finish_reasons"]) == (1, 1, {"length": 1})


async def test_results_are_durable_before_they_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from rusty_agent.batch import journal

    synced: list[int] = []
    datasync = journal._datasync

    def note(number: int) -> None:
        there = place.output.read_bytes().count(b"\n")  # whole lines: the loop may be writing the next one
        datasync(number)
        synced.append(there)

    monkeypatch.setattr(journal, "_datasync", note)
    counted: list[tuple[int, int]] = []
    provider = place.provider()
    from rusty_agent.progress.tally import Tally

    succeeded = Tally.succeeded

    def count(tally: Tally, **facts: Any) -> None:
        succeeded(tally, **facts)
        counted.append((tally.snapshot().done, max(synced, default=0)))

    monkeypatch.setattr(Tally, "succeeded", count)
    result = await place.run(simple(12), provider=provider, sync="row", concurrency=4)
    assert result.done == 12
    assert len(counted) == 12
    assert all(done <= durable for done, durable in counted)


@pytest.mark.parametrize("sync", ["row", "group", "off"])
async def test_every_sync_writes_all(place: Place, sync: str) -> None:
    place.server.answer(by_prompt({"r1": error(400)}))
    result = await place.run(simple(5), sync=sync)
    assert (result.done, result.failed) == (4, 1)
    assert (len(ids(place.output)), ids(place.errors)) == (4, ["r1"])


async def test_streamed_underneath_the_lines_look_the_same(place: Place) -> None:
    place.server.answer(stream("Hello", " world"))
    result = await place.run(simple(2), stream=True)
    for line in read(place.output):
        body = line["response"]["body"]
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hello world", "refusal": None}
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["usage"]["completion_tokens"] == 2
        assert line["x_rusty"]["ttft_s"] > 0
    assert result.summary["ttft_s"]["count"] == 2
    assert all(request.json["stream_options"] == {"include_usage": True} for request in place.server.requests)


async def test_the_report_and_the_summary_lie_beside_the_output(place: Place, tmp_path: Path) -> None:
    result = await place.run(simple(3), report=tmp_path / "report.html", provider=place.provider(limits=Limits(None)))
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!")
    outside = page.replace("http://127.0.0.1", "").replace("http://www.w3.org/2000/svg", "")
    assert not [word for word in ("http://", "https://", "src=", "@import") if word in outside]
    assert loads_strict((tmp_path / "out.summary.json").read_bytes()) == loads_strict(dumps(result.summary))
    assert (result.summary["input"], result.summary["output"]) == (str(place.input), str(place.output))
    assert result.summary["rows"] == {
        "total": 3,
        "done": 3,
        "failed": 0,
        "skipped": 0,
        "failed_earlier": 0,
        "bad_lines": 0,
    }


async def test_an_answer_that_cannot_be_written_is_a_failure_and_no_crash(place: Place) -> None:
    deep = b'{"error":{"message":"deep","x":' + b"[" * 990 + b"]" * 990 + b"}}"
    place.server.answer(answer(deep, status=400))
    result = await place.run(simple(1))
    assert result.failed == 1
    assert ids(place.errors) == ["r0"]


async def test_what_a_streamed_answer_would_lack_is_asked_for_whole(place: Place) -> None:
    def both(request: Received) -> Answer:
        return stream("yes") if request.json.get("stream") else said()

    place.server.answer(both)
    rows = [{"prompt": "a", "extra_body": {"n": 2}}, {"prompt": "b", "extra_body": {"logprobs": True}}, {"prompt": "c"}]
    result = await place.run(rows, stream=True)
    assert {prompt(request): bool(request.json.get("stream")) for request in place.server.requests} == {
        "a": False,
        "b": False,
        "c": True,
    }
    assert ["ttft_s" in line["x_rusty"] for line in sorted(read(place.output), key=lambda line: line["custom_id"])] == [
        False,
        False,
        True,
    ]
    assert result.summary["ttft_s"] is not None


async def test_the_summary_names_the_endpoint_as_it_was_given_but_for_its_query(place: Place) -> None:
    url = f"{place.server.url}?key=not-to-be-shown"
    result = await place.run(simple(1), provider=AsyncProvider("m", api_key="k" * 12, base_url=url))
    assert result.summary["base_url"] == place.server.url
