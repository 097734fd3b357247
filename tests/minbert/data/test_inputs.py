"""Texts to be predicted: every format gives the same rows, and every mistake is named with file, line and column."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from minbert.data.files import DataError, read_file
from minbert.data.inputs import read_inputs
from minbert.fields import ConfigError
from minbert.tasks import TASKS

SST, STS = TASKS["sst"], TASKS["sts"]
PAIRS = [("a dog, running", "two\tdogs"), ('she said "no"', "naïve 中文"), ("", "|;|")]
"""Texts with every delimiter and with quotes; a tab cannot stand in a line of tab-separated text."""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_with_quotes(delimiter: str, end: str, tmp_path: Path) -> None:
    rows = [["n", "id", "left", "right"], *([str(n), f"x{n}", *map(quoted, pair)] for n, pair in enumerate(PAIRS))]
    path = write(tmp_path, "pairs.csv", end.join(delimiter.join(row) for row in rows) + end)
    found = read_inputs(path, STS, columns=["left", "right"])
    assert (found.ids, found.texts) == (["x0", "x1", "x2"], PAIRS)


def test_a_quoted_text_may_go_over_lines_and_errors_name_the_first(tmp_path: Path) -> None:
    rows = 'sentence,score\n"one\ntwo",1\n\nthree,2\n'
    assert read_inputs(write(tmp_path, "a.csv", rows), SST).texts == [("one\ntwo",), ("three",)]
    with pytest.raises(DataError, match=r"b\.csv:5: 1 field instead of 2"):
        read_inputs(write(tmp_path, "b.csv", 'sentence,score\n"one\ntwo",1\n\nthree\n'), SST)
    with pytest.raises(DataError, match=r"c\.csv:3: not a row with ',' between fields"):
        read_inputs(write(tmp_path, "c.csv", 'sentence,score\none,1\n"two,2\n'), SST)


def test_tab_separated_files_are_read_as_training_files_are(corpus_folder: Path) -> None:
    for task in (TASKS["sst"], TASKS["qqp"], TASKS["sts"]):
        path = corpus_folder / task.files["test"]
        expected = read_file(path, task, labelled=False)[0]
        found = read_inputs(path, task)
        assert (found.ids, found.texts) == (expected.ids, expected.texts)


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"sentence1": first, "more": [1], "sentence2": second, "id": n} for n, (first, second) in enumerate(PAIRS)]
    path = write(tmp_path, "rows.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    found = read_inputs(path, STS)
    assert (found.ids, found.texts) == (["0", "1", "2"], PAIRS)


def test_lines_of_text_keep_their_order_and_empty_lines(tmp_path: Path) -> None:
    found = read_inputs(io.StringIO("good, film\n\nbad | film\n"), SST)
    assert (found.ids, found.texts) == (["1", "2", "3"], [("good, film",), ("",), ("bad | film",)])
    assert read_inputs(write(tmp_path, "lines.txt", "a\tb\r\nc\td"), STS).texts == [("a", "b"), ("c", "d")]
    assert read_inputs(io.StringIO('{"sentence": "a"}\n'), SST, format="jsonl").texts == [("a",)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", r"a\.csv is empty; expected a header with sentence1, sentence2"),
        ("a.csv", "id,sentence1\n1,x\n", r"a\.csv:1: the header lacks the column sentence2; found id, sentence1"),
        ("a.csv", "id;sentence1;sentence2\n1;x\n", r"a\.csv:2: 2 fields instead of 3"),
        ("a.csv", "id\tsentence1\tsentence2\n1\tx\ty\n2\tx\n", r"a\.csv:3: 2 fields instead of 3"),
        ("a.csv", "sentence1,sentence2\n", r"a\.csv has no rows"),
        ("a.jsonl", '{"sentence1": "a", "sentence2": "b"}\n{"sentence1": "a"}', r"a\.jsonl:2: column `sentence2` must"),
        ("a.jsonl", '{"sentence1": "a", "sentence2": 5}', r"a\.jsonl:1: column `sentence2` must be a text; found 5"),
        ("a.jsonl", "\n[1]", r"a\.jsonl:2: expected a JSON object, found \[1\]"),
        ("a.jsonl", '{"sentence1": "\\ud800", "sentence2": ""}', r"a\.jsonl:1: not UTF-8 \(at character 1\)"),
        ("a.jsonl", "{", r"a\.jsonl:1: not JSON"),
        ("a.txt", "a\tb\nc\n", r"a\.txt:2: expected 2 texts with a tab between \(sentence1, sentence2\), found 1"),
    ],
)
def test_mistakes_are_named_with_their_place(name: str, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        read_inputs(write(tmp_path, name, text), STS)


def test_mistakes_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`columns` must name 2 columns for task sts.*found left"):
        read_inputs(io.StringIO("a\tb"), STS, columns=["left"])
    with pytest.raises(ConfigError, match="Unknown format `json`. Did you mean `jsonl`"):
        read_inputs(io.StringIO("a\tb"), STS, format="json")
    with pytest.raises(DataError, match="standard input:2: not UTF-8"):
        read_inputs(io.TextIOWrapper(io.BytesIO(b"a\ncaf\xe9"), "utf-8", errors="surrogateescape"), SST)
    with pytest.raises(DataError, match="nosuch.csv cannot be read"):
        read_inputs(tmp_path / "nosuch.csv", STS)
    (tmp_path / "latin.csv").write_bytes("sentence\nok\ncafé".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.csv:3: not UTF-8"):
        read_inputs(tmp_path / "latin.csv", SST)
