"""Running batches against a `FaultServer`, and reading their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rusty_agent import AsyncProvider, RetryPolicy
from rusty_agent.batch.runner import BatchResult, run_batch
from rusty_agent.testing import Answer, FaultServer, Received, answer, completion
from rusty_agent.wire.codec import dumps, loads_strict


def said(text: str = "yes", **fields: Any) -> Answer:
    """An answer."""
    return answer(completion(text, **fields))


def prompt(request: Received) -> str:
    """The prompt of a request."""
    text: str = request.json["messages"][-1]["content"]
    return text


def by_prompt(answers: Mapping[str, Answer]) -> Callable[[Received], Answer]:
    """A script that gives these answers to these prompts, and a good answer to all others."""
    return lambda request: answers.get(prompt(request)) or said()


def asked(server: FaultServer) -> list[str]:
    """The prompts that have arrived so far, sorted."""
    return sorted(map(prompt, server.requests))


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows))
    return path


def simple(count: int) -> list[dict[str, Any]]:
    """Rows `r0`, `r1`, …, whose prompts are the same as their names."""
    return [{"custom_id": f"r{number}", "prompt": f"r{number}"} for number in range(count)]


def read(path: Path) -> list[dict[str, Any]]:
    return [loads_strict(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def ids(path: Path) -> list[str]:
    return [line["custom_id"] for line in read(path)]


class Place:
    """A folder with a batch in it."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.input = folder / "in.jsonl"
        self.output = folder / "out.jsonl"
        self.errors = folder / "out.errors.jsonl"
        self.manifest = folder / "out.manifest.json"
        self.server = server

    def provider(self, **options: Any) -> AsyncProvider:
        options.setdefault("retry", RetryPolicy(max_retries=0))
        return AsyncProvider("m", api_key="test-key-12345", base_url=self.server.url, **options)

    async def run(self, rows: Any = None, *, provider: AsyncProvider | None = None, **options: Any) -> BatchResult:
        """Run the batch. A list of rows is first written to the input; None leaves the input as it is."""
        source = rows
        if rows is None or isinstance(rows, list):
            source = self.input if rows is None else write_rows(self.input, rows)
        options.setdefault("concurrency", 4)
        async with provider or self.provider() as llm:
            return await run_batch(source, self.output, llm, **options)
