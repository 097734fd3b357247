"""SQL over the store: it answers questions, and it only reads."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from results import reading, sql
from results.allowance import Allowance
from results.query import VIEWS, QueryError, query
from results.schemas import conform
from results.sql import LimitError
from results.store import Store, StoreError, SweepFolder
from tests.results.samples import META, end, predict, report, start, sweep


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    stored = sweep(tmp_path)
    with stored.writer() as writer:
        for trial in range(3):
            writer.append("trials", start(trial, params={"adapter.lora/rank": 2**trial, "mixing/kind": "alpha"}))
            writer.append("reports", report(trial, 100, 0.1 * trial))
            writer.append("trials", end(trial, "complete"))
    predict(stored, [0.5])
    return stored


def test_views_answer(folder: SweepFolder) -> None:
    answer = query(folder, "SELECT trial, overall FROM trials ORDER BY overall DESC LIMIT 1")
    assert answer.to_dict("records") == [{"trial": 2, "overall": 0.2}]
    assert query(folder, "SELECT max(scores['colour']) AS best FROM reports")["best"][0] == 0.2
    assert query(folder, "WITH a AS (SELECT * FROM starts) SELECT count(*) AS n FROM a")["n"][0] == 3
    joined = "SELECT count(*) AS n FROM predictions JOIN examples USING (task, split, row) WHERE label = value"
    assert 0 < query(folder, joined)["n"][0] < 120
    assert set(query(folder, "SHOW TABLES")["name"]) == set(VIEWS)
    assert "seq" in set(query(folder, "DESCRIBE reports")["column_name"])
    assert query(folder, "SELECT seed FROM sweeps")["seed"][0] == 7


@pytest.mark.parametrize(
    "condition", ["adapter/rank >= 2", '"adapter/rank" >= 2', "adapter/rank / 2 >= 1", "trials.adapter/rank >= 2"]
)
def test_parameters_need_no_quotes(folder: SweepFolder, condition: str) -> None:
    assert list(query(folder, f"SELECT trial FROM trials WHERE {condition} ORDER BY 1")["trial"]) == [1, 2]


def test_quoted_text_is_not_changed(folder: SweepFolder) -> None:
    assert query(folder, "SELECT 'adapter/rank' AS word FROM trials LIMIT 1")["word"][0] == "adapter/rank"


def test_a_parameter_may_contain_an_sql_keyword(tmp_path: Path) -> None:
    stored = sweep(tmp_path)
    with stored.writer() as writer:
        writer.append("trials", start(0, params={"mixing.sequential/order": "a", "mixing.annealed/end": 0.5}))
    answer = query(stored, "SELECT trial FROM trials WHERE mixing/order = 'a' AND mixing/end < 1")
    assert list(answer["trial"]) == [0]


def test_all_sweeps_of_a_store(tmp_path: Path, folder: SweepFolder) -> None:
    with Store(tmp_path / "runs").create("two", {**META, "seed": 8}).writer() as writer:
        writer.append("trials", start(0, params={"mixing/kind": 3}))
    answer = query(Store(tmp_path / "runs"), "SELECT sweep, count(*) AS n FROM trials GROUP BY sweep ORDER BY sweep")
    assert answer.values.tolist() == [["one", 3], ["two", 1]]
    assert query(Store(tmp_path / "runs"), "SELECT count(*) AS n FROM reports")["n"][0] == 3
    with pytest.raises(StoreError, match="no sweeps"):
        query(Store(tmp_path / "nothing"), "SELECT 1")


def test_warnings_name_the_folders_that_a_store_wide_query_skips(tmp_path: Path, folder: SweepFolder) -> None:
    for name, content in (("empty", "{}"), ("cut", '{"name": "cu'), ("list", "[]")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "sweep.json").write_text(content)
    store = Store(tmp_path / "runs")
    assert query(store, "SELECT count(*) AS n FROM trials")["n"][0] == 3
    assert len(store.warnings) == 3
    for name in ("empty", "cut", "list"):
        assert sum(f"/{name} is skipped" in warning for warning in store.warnings) == 1


ESCAPES = [
    "COPY (SELECT 1) TO '{out}'",
    "COPY trials TO '{out}' (FORMAT csv)",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_parquet('{runs}/one/trials/*.parquet')",
    "SELECT 1; COPY (SELECT 1) TO '{out}'",
    "/* SELECT */ COPY (SELECT 1) TO '{out}'",
    "-- SELECT\nDROP VIEW trials",
    "WITH a AS (SELECT 1) INSERT INTO trials SELECT * FROM a",
    "DELETE FROM trials",
    "CREATE TABLE x AS SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "CALL pragma_version()",
    "SELECT * FROM secret",
    "",
    ";",
]


@pytest.mark.parametrize("statement", ESCAPES)
def test_statements_that_do_more_than_read_are_refused(tmp_path: Path, folder: SweepFolder, statement: str) -> None:
    secret = folder.read("trials")  # SQL must not see a variable of the calling code
    assert secret.num_rows == 6
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(QueryError):
        query(folder, statement.format(out=tmp_path / "out", runs=tmp_path / "runs"))
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path / "out").exists()


def test_a_step_that_two_attempts_report_counts_once(tmp_path: Path) -> None:
    stored = sweep(tmp_path)
    with stored.writer() as writer:
        writer.append("trials", start(0))
        writer.append("reports", report(0, 100, 0.4))
        writer.append("reports", report(0, 300, 0.5))
        writer.append("trials", end(0, "lost"))
    with stored.writer() as writer:
        writer.append("trials", start(0, attempt=1))
        writer.append("reports", report(0, 300, 0.7, attempt=1))
        writer.append("reports", report(0, 900, 0.6, attempt=1))
    counted = query(stored, "SELECT count(*) AS n, avg(overall) AS mean FROM reports")
    assert counted.to_dict("records") == [{"n": 3, "mean": pytest.approx(0.5)}]
    rows = query(stored, "SELECT attempt, step, overall FROM attempt_reports ORDER BY seq").values.tolist()
    assert rows == [[0, 100, 0.4], [0, 300, 0.5], [1, 300, 0.7], [1, 900, 0.6]]


MISTAKES = [
    ("SELECT * FROM trial", "There is no table `trial`. Did you mean `trials`? Tables: trials, reports, attempt_rep"),
    ("SELECT * FROM xyz", "There is no table `xyz`. Tables: trials"),
    ("SELECT overal FROM trials", "There is no column `overal` in trials. Nearest: overall"),
    ("SELECT t.stat FROM trials t", "There is no column `stat` in trials. Nearest: state"),
    ("SELECT rank FROM trials", "Nearest: adapter"),
    ("SELECT verdikt FROM trials JOIN reports USING (trial)", "`verdikt` in trials, reports. Nearest: verdict"),
    ("SELECT stepp FROM reports AS r, examples e", "`stepp` in reports, examples. Nearest: step"),
    ("SELECT trial FROM trials JOIN reports USING (stp)", "`stp` in trials, reports. Nearest: step"),
    ("SELECT qzx FROM reports", "no column `qzx` in reports. A text needs quotes: 'qzx'. All columns: DESCRIBE"),
    ("SELECT trial FRM trials", "syntax error"),
]


@pytest.mark.parametrize(("statement", "message"), MISTAKES, ids=[statement for statement, _ in MISTAKES])
def test_a_mistake_is_answered_with_the_nearest_name(folder: SweepFolder, statement: str, message: str) -> None:
    with pytest.raises(QueryError) as error:
        query(folder, statement)
    assert message in str(error.value)
    assert max(map(len, str(error.value).splitlines())) < 200


def test_a_mistake_is_marked_in_its_line(folder: SweepFolder) -> None:
    with pytest.raises(QueryError, match=r"\nLINE 2: overal > 0\n +\^"):
        query(folder, "SELECT trial FROM trials WHERE\noveral > 0")


def test_a_refused_statement_names_what_is_accepted(folder: SweepFolder) -> None:
    with pytest.raises(QueryError, match="expected SELECT, WITH, DESCRIBE or SHOW; found `DROP`"):
        query(folder, "DROP TABLE trials")


ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range * b.range % 7 = 3"


def test_a_statement_is_stopped_after_its_time(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "SECONDS", 0.2)
    with pytest.raises(QueryError, match=r"took longer than 0\.2 s and was stopped"):
        query(folder, ENDLESS)


@pytest.mark.parametrize(
    "statement",
    ["SELECT hash(range) AS h FROM range(20000000) ORDER BY h", "SELECT list(range) FROM range(20000000)",
     "SELECT * FROM range(5000000)"],
)  # fmt: skip
def test_a_statement_is_refused_more_than_its_memory(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(sql, "MEMORY", 32 * 2**20)
    with pytest.raises(QueryError, match=r"needs more than 0\.03125 GiB of memory"):
        query(folder, statement)


def test_the_time_of_a_statement_begins_before_its_tables_are_read(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> float:
        time.sleep(0.2)
        return 0.0

    monkeypatch.setattr(reading, "least", slow)
    monkeypatch.setattr(sql, "SECONDS", 0.1)
    with pytest.raises(LimitError, match=r"took longer than 0\.1 s and was stopped"):
        query(folder, "SELECT count(*) FROM reports")
    monkeypatch.undo()
    assert query(folder, "SELECT count(*) AS n FROM reports")["n"][0] == 3, "nothing bounds other readings"
    assert folder.read("reports").num_rows == 3


def large_predictions(folder: SweepFolder, rows: int) -> None:
    numbers = pa.array(range(rows))
    values = {"trial": numbers, "attempt": numbers, "task": pa.array(["colour"] * rows), "row": numbers}
    table = pa.table(values | {"split": pa.array(["held"] * rows), "value": pa.array([0.5] * rows)})
    folder.write_table("predictions", conform("predictions", table), "large")


def test_tables_larger_than_the_memory_are_refused_before_they_are_read(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_predictions(folder, 200_000)  # 8 MB as rows
    monkeypatch.setattr(sql, "MEMORY", 6 * 2**20)
    count = "SELECT count(*) AS n FROM predictions WHERE row >= 100"
    assert query(folder, count)["n"][0] == 199_900, "this needs one column"
    taken: list[int] = []
    monkeypatch.setattr(Allowance, "take", lambda self, size: taken.append(size))
    for statement in ("SELECT * FROM predictions", "SELECT trial FROM predictions WHERE attempt + row + value > 9"):
        with pytest.raises(LimitError, match=r"reads more than 0\.0058\d* GiB of rows\. Name the columns"):
            query(folder, statement)
    assert max(taken) < 2**20, "the large file was not read"


PEAK = '''
import resource, sys
from results import sql
from results.query import query
from results.store import Store
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
sql.MEMORY = 64 * 2**20
folder = Store(sys.argv[1]).open("one")
query(folder, "SELECT count(*) FROM trials")
before = peak()
try:
    query(folder, sys.argv[2])
except sql.LimitError:
    print(peak() - before)
'''


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of `ru_maxrss` differs")
def test_the_process_stays_near_the_memory_that_an_answer_may_take(folder: SweepFolder) -> None:
    """Of an answer of 320 MB the process reads a part."""
    statement = "SELECT range, repeat('x', 300) AS text FROM range(1000000)"
    command = [sys.executable, "-c", PEAK, str(folder.path.parent), statement]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(process.stdout) < 200, "MiB; without parts by size it was 930"


def test_an_answer_of_several_parts_is_whole(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = "range AS n, CASE WHEN n > 5000 THEN n END AS later, CASE WHEN n < 5 THEN 'x' END AS text"
    statement = f"SELECT {columns} FROM range(9000)"
    whole = query(folder, statement)
    monkeypatch.setattr(sql, "PART", 1)
    pd.testing.assert_frame_equal(query(folder, statement), whole)
    assert whole["n"].tolist() == list(range(9000))
