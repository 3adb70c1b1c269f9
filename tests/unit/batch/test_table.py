"""Tables → rows: every record, whatever stands in its columns; a bad one spoils no other."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rusty_agent.batch import source as module
from rusty_agent.batch.rows import BadLine, Row
from rusty_agent.batch.template import Template
from rusty_agent.errors import BatchError

from .sources import BOM, prompts_of, source_of

TABLE = b'custom_id,question,note\n1,"What, exactly?",x\n2,"Two\nlines",\n\n3,,"say ""hi"""\n'


@pytest.mark.parametrize("kind", ["in.csv", "IN.CSV", "in.csv.gz", "in.tsv", "in.tsv.gz"])
@pytest.mark.parametrize("start", [b"", BOM], ids=["plain", "bom"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["unix", "windows", "mac"])
def test_tables(tmp_path: Path, kind: str, start: bytes, newline: bytes) -> None:
    data = start + TABLE.replace(b"\n", newline)
    if "tsv" in kind:
        data = data.replace(b",", b"\t")
    if kind.endswith("gz"):
        data = gzip.compress(data)
    source = source_of(tmp_path, data, kind, template=Template("Q: {question}"))
    rows = [row for row in source.rows(check=True) if isinstance(row, Row)]
    question = "What\t exactly?" if "tsv" in kind else "What, exactly?"
    lines = f"Two{newline.decode()}lines"
    assert [(row.line, row.custom_id, row.parameters["prompt"]) for row in rows] == [
        (2, "1", f"Q: {question}"),
        (3, "2", f"Q: {lines}"),
        (6, "3", "Q: "),
    ]
    assert rows[2].fields == {"custom_id": "3", "question": "", "note": 'say "hi"'}


def test_a_table_with_a_column_prompt_needs_no_template(tmp_path: Path) -> None:
    (row,) = source_of(tmp_path, b"prompt,temperature\nHi,hot\n", "in.csv").rows(check=True)
    assert row == Row(2, "2", {"prompt": "Hi"}, {"prompt": "Hi", "temperature": "hot"})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            b"question\nHi\n",
            ": without a template, a table needs the column 'prompt'; the available columns are: 'question'$",
        ),
        (
            b"prompt;note\nHi;1\n",
            "columns are: 'prompt;note'; columns are separated by commas in a .csv, by tabs in a .tsv$",
        ),
        (b"prompt,a,a\nHi,1,2\n", "two columns have the same name"),
        (b"pr\xffompt\nHi\n", "the header cannot be read: not UTF-8"),
        (b'"prompt\nHi\n', "the header cannot be read: not CSV: unexpected end of data"),
    ],
)
def test_headers_that_will_not_do(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(BatchError, match=says):
        list(source_of(tmp_path, data, "in.csv").rows())
    with pytest.raises(BatchError, match="the template needs the column 'x'"):
        list(source_of(tmp_path, b"prompt\nHi\n", "in.csv", template=Template("{x}")).rows())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"a,b\n", "2 columns where the header has 1"),
        (b'"a"b\n', "not CSV: ',' expected after '\"'"),
        (b"a\xff\n", "not UTF-8: save it as UTF-8"),
        (b"a\0\n", "holds a NUL byte: save it as UTF-8"),
        (b"x" * 41 + b"\n", "longer than 40 characters (is a closing quote missing?)"),
        (b"x" * 100 + b"\r", "longer than 40 characters (is a closing quote missing?)"),
    ],
)
def test_a_bad_record_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: bytes, reason: str) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 40)
    monkeypatch.setattr(module, "_BLOCK", 8)
    rows = list(source_of(tmp_path, b"prompt\nbefore\n" + bad + b"after\n", "in.csv").rows())
    assert prompts_of(rows) == [(2, "before"), (3, None), (4, "after")]
    assert rows[1] == BadLine(3, reason)


def test_a_record_that_is_too_long_may_be_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 40)
    rows = list(source_of(tmp_path, b"prompt\n" + b"x" * 100, "in.csv").rows())
    assert rows == [BadLine(2, "longer than 40 characters (is a closing quote missing?)")]


def test_a_quote_that_never_closes_is_told_where_it_opens(tmp_path: Path) -> None:
    rows = list(source_of(tmp_path, b'prompt\na\n"b\nc\n', "in.csv").rows())
    assert rows[1:] == [BadLine(3, "not CSV: unexpected end of data")]


def test_empty_tables(tmp_path: Path) -> None:
    assert list(source_of(tmp_path, b"", "in.csv").rows()) == []
    assert list(source_of(tmp_path, b"\nprompt\n\n", "in.csv").rows()) == []


def test_long_fields_are_read_and_csv_s_own_limit_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    rows = source_of(tmp_path, b"prompt\n" + b"x" * (before + 1) + b"\nb\n", "in.csv").rows()
    first = next(rows)
    assert csv.field_size_limit() == before
    assert isinstance(first, Row)
    assert len(first.parameters["prompt"]) == before + 1
    assert prompts_of(rows) == [(3, "b")]
    assert csv.field_size_limit() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=60)
    | st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\0", b"\xff"])).map(b"".join)
)
def test_any_table_is_rows_and_bad_lines(data: bytes, tmp_path: Path) -> None:
    source = source_of(tmp_path, b"prompt,b\n" + data, "in.csv")
    rows = list(source.rows(check=True))
    assert list(source.rows(check=True)) == rows
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines))
    if b'"' not in data:  # a record is a line, so that it is known how many there must be
        text = io.StringIO(data.decode(errors="replace"), newline=None)
        assert lines == [number for number, line in enumerate(text, 2) if line.strip("\n")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(
        st.tuples(*[st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)] * 2)
    )
)
def test_tables_survive_their_serialisation(records: list[tuple[str, str]], tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b"), *records])
    source = source_of(tmp_path, text.getvalue().encode(), "in.csv", template=Template("{b}{a}"))
    rows = [row for row in source.rows(check=True) if isinstance(row, Row)]
    assert [row.parameters["prompt"] for row in rows] == [b + a for a, b in records]
    assert [row.fields for row in rows] == [{"a": a, "b": b} for a, b in records]
