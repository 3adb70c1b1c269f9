"""The batch command's words → its arguments, in this process."""

from __future__ import annotations

import pytest

from rusty_agent.cli.batch_arguments import parse_batch


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["in.jsonl"], "-o"),
        (["in.jsonl", "-o", "x", "--budget-usd", "1"], "--budget-usd needs --price"),
        (["in.jsonl", "-o", "x", "--price", "1"], "a price is IN,OUT"),
        (["in.jsonl", "-o", "x", "--price", "1,1", "--budget-usd", "0"], "is not a positive number"),
        (
            ["in.jsonl", "-o", "x", "--concurrency", "0"],
            "is not a whole number of at least 1 (at most 18 digits), nor auto",
        ),
        (["in.jsonl", "-o", "x", "--limit", "many"], "is not a whole number of at least 1"),
        (["in.jsonl", "-o", "x", "--limit", "9" * 22], "is not a whole number of at least 1 (at most 18 digits)"),
        (["in.jsonl", "-o", "x", "--limit", "9" * 5000], "is not a whole number of at least 1"),
        (["in.jsonl", "-o", "x", "--timeout", "0"], "argument --timeout: '0' is not a positive number"),
        (["in.jsonl", "-o", "x", "--rpm", "0"], "argument --rpm: '0' is not a positive number"),
        (["in.jsonl", "-o", "x", "--tpm", "nan"], "argument --tpm: 'nan' is not a positive number"),
        (["in.jsonl", "-o", "x", "--timeout", "long"], "argument --timeout: 'long' is not a positive number"),
        (["in.jsonl", "-o", "x", "--price", "1e308,1e308"], "input must be a number of USD per million tokens"),
        (["in.jsonl", "-o", "x", "--sync", "never"], "invalid choice"),
        (["in.jsonl", "-o", "x", "--local", "-m", "y"], "leave out --model"),
        (["in.jsonl", "-o", "x", "--local", "--rpm", "5"], "--local takes no --rpm: use --concurrency"),
        (["in.jsonl", "-o", "x", "--local", "--tpm", "500"], "--local takes no --tpm: use --concurrency"),
        (
            ["in.jsonl", "-o", "x", "--local", "--max-in-flight", "1"],
            "--local takes no --max-in-flight: use --concurrency",
        ),
    ],
)
def test_exit_1_on_wrong_usage(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_batch(words)
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert told.err.count("\n") == 1


def test_local_takes_a_model_file_and_leaves_the_input() -> None:
    arguments = parse_batch(["--local", "in.jsonl", "-o", "x", "--concurrency", "auto"])
    assert (arguments.local, arguments.input, arguments.concurrency) == ("", "in.jsonl", "auto")
    long = parse_batch(["in.jsonl", "-o", "x", "-m", "m", "--option", "seed=123456789012345678901"])
    assert long.options == {"seed": 123456789012345678901}
    arguments = parse_batch(["in.jsonl", "-o", "x", "--local", "some.gguf", "--option", "top_k=5"])
    assert (arguments.local, arguments.input, arguments.options) == ("some.gguf", "in.jsonl", {"top_k": 5})
