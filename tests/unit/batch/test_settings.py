"""What `run_batch` is told: what is refused before any file is touched, and in which words."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from rusty_agent.batch.files import Files
from rusty_agent.batch.settings import JobSettings, check_common, check_source
from rusty_agent.progress.price import Price
from tests.frames import DataFrame, GeoDataFrame

FILES = Files.of(Path("out.jsonl"))
PRICE = Price(1, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sync": "never"}, "sync must be one of 'row', 'group', 'off', not 'never'"),
        ({"on_bad_line": "ignore"}, "on_bad_line must be one of 'fail', 'skip', not 'ignore'"),
        *(({name: "no"}, f"{name} must be True or False, not str") for name in ("fresh", "sort", "allow_changed")),
        ({"retry_permanent": 1}, "retry_permanent must be True or False, not int"),
        ({"limit": 0}, "limit must be a whole number of at least 1 or None, not 0"),
        ({"limit": 1.0}, "limit must be a whole number of at least 1 or None, not 1.0"),
        (
            {"limit": sys.maxsize + 1},
            f"limit must be at most {sys.maxsize}, not {sys.maxsize + 1}: None means all rows",
        ),
        ({"budget_usd": 1.0}, "budget_usd needs price: without it the cost is unknown"),
        *(
            ({"budget_usd": budget, "price": PRICE}, f"budget_usd must be a positive number of USD, not {budget!r}")
            for budget in ("5", 0.0, -1, True, float("nan"))
        ),
        ({"template": 5}, "template must be a string, not int"),
    ],
)
def test_what_cannot_be_right(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as refused:
        JobSettings(FILES, **options)
    assert str(refused.value) == says


def test_what_is_common_to_all_rows() -> None:
    check_common({"temperature": 0, "prompt": None, "messages": None}, ("temperature", "prompt"))
    for name in ("prompt", "messages"):
        with pytest.raises(ValueError, match=f"^{name} belongs in the rows"):
            check_common({name: ""}, ("prompt",))
    with pytest.raises(TypeError, match=r"^run_batch takes no argument 'temprature': did you mean 'temperature'\?$"):
        check_common({"temprature": 0}, ("temperature",))


NO_SOURCE = "^source must be a path, '-' or an iterable of rows, not"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (7, f"{NO_SOURCE} int$"),
        (None, f"{NO_SOURCE} NoneType$"),
        (b"a path", f"{NO_SOURCE} bytes$"),
        (bytearray(b"a path"), f"{NO_SOURCE} bytearray$"),
        ({"prompt": "one"}, f"{NO_SOURCE} dict$"),
        ("a\0b", "^source must not contain a NUL character"),
        (DataFrame(), r"to_dict\(\"records\"\)"),  # these two would give other things than their rows
        (GeoDataFrame(), r"to_dict\(\"records\"\)"),
        (StringIO('{"prompt": "one"}\n'), "^source is an open file"),
    ],
)
def test_what_is_no_source(source: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_source(source)
