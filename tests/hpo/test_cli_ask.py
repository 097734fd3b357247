"""`hpo top`, `show`, `query` on a stored sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from minbert.tasks import TASKS
from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo, refused


@pytest.fixture(scope="module")
def kept_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read, or add ensembles to."""
    path = tmp_path_factory.mktemp("store")
    stored.make(path)
    return path


def test_top(kept_store: Path) -> None:
    rows = answer("top", SWEEP, "-n", "3", store=kept_store)
    assert [row["trial"] for row in rows] == [3, 2, 1]
    assert rows[0]["overall"] == pytest.approx(stored.overall(stored.scores(3, 300)))
    text = hpo("top", SWEEP, "-n", "3", store=kept_store).stdout
    assert [line.split()[0] for line in text.splitlines()[3:6]] == ["3", "2", "1"]
    for words in ("overall", *TASKS, "0.7583", "adapter.lora/rank"):
        assert words in text


def test_top_where(kept_store: Path) -> None:
    rows = answer("top", SWEEP, "--where", "overall < 0.7 AND state = 'complete'", store=kept_store)
    assert [row["trial"] for row in rows] == [1, 0]
    assert "nosuch" in refused(hpo("top", SWEEP, "--where", "nosuch > 1", store=kept_store))


def test_show(kept_store: Path) -> None:
    facts = answer("show", SWEEP, "3", store=kept_store)
    assert facts["trial"] == 3
    assert facts["config"]["adapter"]["rank"] == 16
    assert [report["step"] for report in facts["reports"]] == [100, 300]
    text = hpo("show", SWEEP, "3", store=kept_store).stdout
    for words in ("adapter/rank", "16", "complete", "300", "0.7583"):
        assert words in text


def test_show_prints_a_workers_traceback(kept_store: Path) -> None:
    text = hpo("show", SWEEP, "5", store=kept_store).stdout
    assert stored.ERROR in text
    assert "failed" in text


def test_show_of_an_unknown_trial(kept_store: Path) -> None:
    assert "99" in refused(hpo("show", SWEEP, "99", store=kept_store))


def test_query(kept_store: Path) -> None:
    sql = "SELECT trial, max(overall) AS best FROM reports GROUP BY trial ORDER BY best DESC LIMIT 2"
    rows = answer("query", sql, store=kept_store)
    assert [row["trial"] for row in rows] == [3, 2]
    text = hpo("query", sql, store=kept_store).stdout
    assert text.split()[:2] == ["trial", "best"]
    assert answer("query", sql, "--sweep", SWEEP, store=kept_store) == rows


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "SELECT nosuch FROM reports", "DELETE FROM reports", "SELECT * FROM 'x.csv'"]
)
def test_query_refuses_what_is_no_read(kept_store: Path, sql: str) -> None:
    refused(hpo("query", sql, store=kept_store))
