"""A store that an earlier version wrote (configuration version 4) still answers: top, show, query, ensemble, predict.

The sweep had five trials of the space `quickstart` with the tiny encoder on the sample corpus. The archive holds it as
it was written, without the logs, two of the three checkpoints, and the predictions of trial 0, whose checkpoint has to
predict.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.hpo.cli import answer, hpo

ARCHIVE = Path(__file__).resolve().parent.parent / "old" / "store-0.1-config-4.tar.xz"
SCORES = {2: 0.4703, 1: 0.4591, 0: 0.4454, 3: 0.4524, 4: 0.4729}
"""Trial -> overall on `search` in its last report, best first: the furthest rung counts before the score."""


@pytest.fixture(scope="module")
def old_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(store, filter="data")
    return store


def test_the_best_trials_are_the_same(old_store: Path) -> None:
    rows = answer("top", "old", store=old_store)
    assert {row["trial"]: round(row["overall"], 4) for row in rows} == SCORES
    assert [row["trial"] for row in rows] == list(SCORES)


def test_status_and_list_know_the_sweep(old_store: Path) -> None:
    assert answer("status", "old", store=old_store)["counts"]["complete"] == 3
    assert [row["sweep"] for row in answer("list", store=old_store)] == ["old"]


@pytest.mark.parametrize("trial", SCORES)
def test_every_trial_is_shown(old_store: Path, trial: int) -> None:
    facts = answer("show", "old", str(trial), store=old_store)
    assert facts["config"]["adapter"]["kind"] == ("lora" if trial > 2 else "none")
    assert round(facts["reports"][-1]["overall"], 4) == SCORES[trial]
    shown = hpo("show", "old", str(trial), store=old_store)
    assert shown.exit_code == 0, shown.output
    assert "cfimdb" not in shown.stdout


def test_sql_reads_the_rows(old_store: Path) -> None:
    rows = answer("query", "SELECT count(*) AS n, max(overall) AS best FROM reports", store=old_store)
    assert rows[0]["n"] == 12
    assert round(rows[0]["best"], 4) == 0.503


def test_an_old_checkpoint_predicts_and_an_ensemble_is_chosen(old_store: Path, tmp_path: Path) -> None:
    done = hpo("predict", "old", "--trial", "0", "--out", tmp_path / "trial", store=old_store)
    assert done.exit_code == 0, done.output
    assert "trial 0 predicts test now (3 of 3)" in done.stderr
    assert len(list((tmp_path / "trial").glob("*.csv"))) == 6
    record = answer("ensemble", "old", "--method", "greedy", "--name", "again", store=old_store)
    assert {member["trial"]: member["weight"] for member in record["members"]} == pytest.approx({2: 0.8, 1: 0.2})
    assert round(record["estimates"]["ensemble"]["held"]["overall"]["value"], 4) == 0.4921
    done = hpo("predict", "old", "--ensemble", "again", "--out", tmp_path / "ensemble", store=old_store)
    assert done.exit_code == 0, done.output


def test_a_page_is_made(old_store: Path, tmp_path: Path) -> None:
    done = hpo("report", "old", "--out", tmp_path / "old.html", store=old_store)
    assert done.exit_code == 0, done.output
    assert "greedy-5: held out (n = " in (tmp_path / "old.html").read_text(encoding="utf-8")
