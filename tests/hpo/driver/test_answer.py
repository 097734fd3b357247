"""The answer of a stored sweep, and its difference from the default on `held`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.driver.answer import compared, decided, of_sweep, runs_at_full_budget, sampling_errors
from hpo.driver.jury import scoring
from hpo.driver.ledger import Ledger
from hpo.driver.selection import needed, select
from hpo.search.answer import Challenger, decide
from results.choice import labels_of
from results.predictions import headline
from results.store import SweepFolder
from tests.hpo import stored
from tests.hpo.driver.test_selection import parts, predict

BUDGET = stored.MILESTONES[-1]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Trials 0 to 3 reached the full budget, with evidence and kept weights; nobody has predicted."""
    made = stored.make(tmp_path, unpredicted=True)
    for path in (made.path / "predictions").iterdir():
        path.unlink()
    return made


def repeat(folder: SweepFolder, trial: int, of: int, state: str = "complete", score: float = 0.7) -> None:
    """Add a repeat of a trial, which predicts as trial 2 does."""
    config = next(row["config"] for row in folder.events() if row["trial"] == of and row["event"] == "start")
    key = {"trial": trial, "attempt": 0}
    with folder.writer() as writer:
        start = {"event": "start", "origin": "repeat", "replicate": 1, "config": config}
        writer.append("trials", key | start)
        diverged = state == "diverged"
        reported: dict[str, Any] = {"step": BUDGET, "examples": BUDGET, "diverged": diverged, "overall": score}
        writer.append("reports", key | reported | {"scores": stored.scores(2, BUDGET)}, stored.evidence(2))
        end = {"event": "end", "state": state, "checkpoint": f"checkpoints/{trial}/0-300"}
        writer.append("trials", key | end | ({"checkpoint": None} if diverged else {}))


def test_runs_are_grouped_under_the_trial_that_drew_the_configuration(folder: SweepFolder) -> None:
    repeat(folder, 6, of=3)
    repeat(folder, 7, of=0)
    ledger = Ledger(folder.events())
    runs = runs_at_full_budget(ledger, BUDGET)
    assert list(runs.items()) == [(0, [0, 7]), (3, [3, 6]), (2, [2]), (1, [1])]
    assert runs_at_full_budget(ledger, 2 * BUDGET) == {}


def test_a_configuration_of_which_a_repeat_diverged_is_no_answer(folder: SweepFolder) -> None:
    def leader() -> int:
        found = decided(folder, Ledger(folder.events()), BUDGET).leader
        assert found is not None
        return found.trial

    assert leader() == 3
    repeat(folder, 6, of=3, state="diverged")
    assert 3 not in runs_at_full_budget(Ledger(folder.events()), BUDGET)
    assert leader() == 2
    repeat(folder, 7, of=0, state="diverged")
    assert runs_at_full_budget(Ledger(folder.events()), BUDGET)[0] == [0], "the default stays what others must beat"


def test_the_answer_is_that_of_the_scores_and_the_errors_from_evidence(folder: SweepFolder) -> None:
    ledger = Ledger(folder.events())
    runs = runs_at_full_budget(ledger, BUDGET)
    errors = sampling_errors(folder, runs)
    assert errors.keys() == {1, 2, 3}
    assert all(0.001 < error < 0.2 for error in errors.values())
    scores = {trial: stored.overall(stored.scores(trial, BUDGET)) for trial in range(4)}
    given = [Challenger(trial, (scores[trial],), errors[trial]) for trial in (3, 2, 1)]
    assert decided(folder, ledger, BUDGET) == decide([scores[0]], given)
    for path in (folder.path / "evidence").iterdir():
        path.unlink()
    assert sampling_errors(folder, runs) == {}
    without = [Challenger(trial, (scores[trial],)) for trial in (3, 2, 1)]
    assert decided(folder, ledger, BUDGET) == decide([scores[0]], without)


def test_every_run_of_the_answer_and_of_the_default_predicts(folder: SweepFolder) -> None:
    repeat(folder, 6, of=3)
    repeat(folder, 7, of=0)
    ledger = Ledger(folder.events())
    answer = decided(folder, ledger, BUDGET)
    assert compared(ledger, answer, BUDGET) == [3, 6, 0, 7]
    assert compared(ledger, answer, BUDGET, without=[6]) == [3, 0, 7]
    assert {(trial, "held") for trial in (0, 3, 6, 7)} <= set(parts(needed(folder, ledger, select(folder, ledger))))


def test_scores_on_held_are_averaged_over_the_runs_that_have_predicted(folder: SweepFolder) -> None:
    repeat(folder, 6, of=3)
    decision = of_sweep(folder)
    assert decision is not None
    assert decision.held is None, "nobody has predicted"
    for trial in (0, 3):
        predict(folder, trial, "held")
    decision = of_sweep(folder)
    assert decision is not None
    assert decision.held is not None
    assert (decision.held.trial, decision.held.runs, decision.held.default_runs) == (3, (3,), (0,))
    rows = [row | {"trial": 6} for row in stored.predictions(2) if row["split"] == "held"]
    folder.write_table("predictions", rows, "6-0-held")
    decision = of_sweep(folder)
    assert decision is not None
    assert decision.held is not None
    assert decision.held.runs == (3, 6)
    score = scoring(folder)

    def overall(trial: int) -> float:
        members = headline(folder, trial)
        labels = labels_of(folder, score, ("held",), {task: part.rows for task, part in members.items()})
        return score.overall(score.scores({task: part.values for task, part in members.items()}, labels))

    difference = (overall(3) + overall(6)) / 2 - overall(0)
    assert decision.held.difference.value == pytest.approx(difference)
    assert decision.held.difference.low < difference < decision.held.difference.high


def test_there_is_no_answer_before_the_search_has_ended(tmp_path: Path) -> None:
    from results.store import Store

    empty = Store(tmp_path).create("small-1", stored.record("small-1").to_json())
    assert of_sweep(empty) is None
