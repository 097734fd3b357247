"""The ledger against the reader's fold of the same rows, `results.views`, on stored sweeps with every kind of end."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest

from hpo.driver.ledger import KeptWeights, Ledger
from hpo.driver.monitor import Monitor
from hpo.driver.placement import Placement
from hpo.driver.recorder import Recorder
from hpo.driver.weights import Shelf
from hpo.search.schedulers import Asha
from hpo.search.searchers import Random
from hpo.search.states import CLOSED, INTERRUPTIONS, STATES, ranking
from hpo.search.sweep import Sweep
from hpo.space.space import Space
from hpo.worker.job import Assignment
from results import views
from results.places import locate
from results.store import Store, SweepFolder
from tests.hpo.board import MemoryBoard
from tests.hpo.conftest import SPACE
from tests.hpo.files import checkpoint_folder
from tests.hpo.stored import record

STEPS = (100, 300, 900)
TRIALS = 24


class Driver:
    """A launch on a stored sweep, without Ray: every kind of event happens to its trials at random."""

    def __init__(self, folder: SweepFolder, seed: int) -> None:
        parts: dict[str, Any] = {"searcher": Random(), "scheduler": Asha(), "complete": lambda config: config}
        self.sweep = Sweep(Space(SPACE), seed=0, trials=TRIALS, milestones=STEPS, workers=4, **parts)
        self.writer = folder.writer()
        self.path = folder.path
        rows = folder.events()
        self.sweep.replay(rows)
        shelf, monitor = Shelf(locate(self.path), keep=3), Monitor("s", TRIALS, STEPS, Asha())
        # Every look at the clock is minutes after the last one, so that no lost trial rests.
        clock = itertools.count(step=100).__next__
        placement = Placement(self.sweep.workers, MemoryBoard(), lambda message: None, clock)
        self.recorder = Recorder(self.sweep, self.writer, shelf, monitor, placement)
        self.recorder.recall(rows)
        self.reached = {int(row["trial"]): STEPS.index(row["step"]) + 1 for row in rows if "step" in row}
        self.reported: set[str] = set()
        self.running: list[Assignment] = []
        self.rng = random.Random(f"{seed}/driver")

    def run(self, events: int) -> None:
        """Run for at most `events` events. Trials that still run are left as a killed driver leaves them."""
        for _ in range(events):
            while assignments := self.recorder.issue() or (self.writer.barrier() and self.recorder.issue()):
                self.running += assignments
            if not self.running:
                break
            assignment = self.rng.choice(self.running)
            if not self.event(assignment):
                self.running.remove(assignment)
        self.writer.close()

    def event(self, assignment: Assignment) -> bool:
        """Let a random event happen to an attempt; returns whether it continues."""
        chance = self.rng.random()
        key = {"trial": assignment.trial, "attempt": assignment.attempt, "place": "here"}
        if chance < 0.08:
            self.recorder.lost(assignment.id, "its process died", "all that Ray says")
            return False
        if chance < 0.16:
            return self.recorder.result(assignment.id, [key | {"kind": "paused", "place": ""}])[0]
        if chance < 0.22:
            failure = {"kind": "failure", "reason": f"ValueError: {chance}", "error": "trace", "exits": False}
            return self.recorder.result(assignment.id, [key | failure | {"cause": "refused"}])[0]
        reached = self.reached.get(assignment.trial, 0)
        again = reached > 0 and assignment.id not in self.reported and self.rng.random() < 0.6
        step = STEPS[reached - again]  # an attempt may begin at an older checkpoint and repeat a report
        self.reached[assignment.trial] = max(reached, reached - again + 1)
        self.reported.add(assignment.id)
        checkpoint = checkpoint_folder(self.path, assignment.trial) / f"{assignment.attempt}-{step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        value = self.rng.random()
        report = {"kind": "report", "step": step, "examples": step + self.rng.randrange(5), "overall": value}
        diverged = chance > (0.5 if again else 0.93)
        report |= {"scores": {"sst": value, "sts": value / 2}, "diverged": diverged, "checkpoint": str(checkpoint)}
        return self.recorder.result(assignment.id, [key | report])[0]


@pytest.fixture(scope="module", params=range(4))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A sweep of three launches, the first two of them killed."""
    made = Store(tmp_path_factory.mktemp("store")).create("s", record("s", TRIALS).to_json())
    for launch, events in enumerate((25, 25, 10_000)):
        Driver(made, 10 * request.param + launch).run(events)
    return made


def test_the_ledger_says_what_the_views_say(folder: SweepFolder) -> None:
    for last in (*range(4, 120, 12), 10_000):
        ledger = Ledger(row for row in folder.events() if row["seq"] <= last)
        frame = views.trials_frame(until(folder, last))
        assert list(frame["trial"]) == sorted(ledger.trials)
        for trial, entry in ledger.trials.items():
            view, report = frame[frame["trial"] == trial].iloc[0], entry.last_report
            assert entry.state == ("waiting" if view["state"] in INTERRUPTIONS else view["state"])
            assert (entry.attempts, entry.origin) == (view["attempts"], view["origin"])
            assert ledger.kept.get(trial) == (
                KeptWeights(trial, entry.attempt, view["checkpoint"]) if view["kept"] else None
            )
            if report is None:
                assert (view["step"], view["examples"]) == (0, 0)
            else:
                assert (report.step, report.examples) == (view["step"], view["examples"])
                assert [report.overall, report.scores["sst"], report.scores["sts"]] == pytest.approx(
                    [view["overall"], view["sst"], view["sts"]], nan_ok=True
                )
        assert ledger.ranking() == views.ranking(frame)


def test_a_ledger_made_at_once_equals_one_that_was_fed(folder: SweepFolder) -> None:
    for last in (*range(4, 120, 12), 10_000):
        fed, made = Ledger(row for row in folder.events() if row["seq"] <= last), Ledger.of(until(folder, last))
        for ledger in (fed, made):
            for entry in ledger.trials.values():
                entry.steps = tuple(sorted(entry.steps))
        assert repr(sorted(made.trials.items())) == repr(sorted(fed.trials.items()))
        assert (made.kept, made.examples_used, made.rows) == (fed.kept, fed.examples_used, fed.rows)
        for part in ("searched", "repeats", "open"):
            assert getattr(made, part).keys() == getattr(fed, part).keys()
        assert (made.counts(), made.ranking()) == (fed.counts(), fed.ranking())
        assert made.standings.best_per_task() == fed.standings.best_per_task()


def test_what_is_kept_up_to_date_equals_what_is_computed_anew(folder: SweepFolder) -> None:
    ledger = Ledger()
    for row in folder.events():
        ledger.feed(row)
        trials = ledger.trials
        assert ledger.counts() == {state: sum(each.state == state for each in trials.values()) for state in STATES}
        assert ledger.open == {number: each for number, each in trials.items() if each.state not in CLOSED}
        order, best = ranking(trials), dict[str, tuple[int, float]]()
        for number in order:
            report = trials[number].last_report
            for task, score in (report.scores if report else {}).items():
                if task not in best or score > best[task][1]:
                    best[task] = number, score
        assert (ledger.ranking(), ledger.standings.trials(3)) == (order, order[:3])
        assert ledger.standings.best_per_task() == best


def until(folder: SweepFolder, last: int) -> Any:
    """The sweep as it stood after the row `last`."""

    class Part:
        meta = folder.meta
        tasks = folder.tasks

        rows = folder.rows

        def read(self, table: str, columns: Any = None) -> Any:
            rows = folder.read(table, columns=columns)
            return rows.filter([seq <= last for seq in rows["seq"].to_pylist()])

        def history(self, trials: Any = None, reports: Any = None) -> Any:
            return self.read("trials", trials), self.read("reports", reports)

    return Part()


def test_the_sweeps_compared_hold_every_kind_of_end(folder: SweepFolder) -> None:
    rows = folder.events()
    ends = Counter(row["state"] for row in rows if row.get("event") == "end")
    assert set(ends) == {"complete", "pruned", "diverged", "failed", "lost", "paused"}
    ledger = Ledger(rows)
    assert max(entry.attempts for entry in ledger.trials.values()) >= 2
    reports = Counter((row["trial"], row["step"]) for row in rows if "step" in row)
    assert max(reports.values()) >= 2, "some steps were reported by two attempts"


def test_weights_that_a_row_names_are_on_the_disk_and_no_others(folder: SweepFolder) -> None:
    kept = Ledger(folder.events()).kept
    assert 0 < len(kept) <= 4, "the best three, and the baseline"
    paths = sorted(path for path in (folder.path / "checkpoints").glob("*/*"))
    assert [str(path) for path in paths] == sorted(weights.checkpoint for weights in kept.values())


START = {"trial": 0, "attempt": 0, "event": "start", "origin": "default"}


def report(step: int, value: float | None, **changes: Any) -> dict[str, Any]:
    return {"trial": 0, "attempt": 0, "step": step, "examples": step + 2, "overall": value, "diverged": False} | changes


def test_of_the_reports_of_a_step_the_first_that_has_not_diverged_counts() -> None:
    ledger = Ledger([START, report(100, 0.3), report(300, None, diverged=True), report(300, 0.4)])
    assert ledger.trials[0].last == (300, 0.4)
    ledger.feed(report(100, 0.9))
    assert ledger.trials[0].last == (300, 0.4), "a repeated step takes nothing back"
    ledger.feed(report(300, 0.5))
    assert ledger.trials[0].last == (300, 0.4), "it was the first"
    assert ledger.examples_used == 302


def test_a_row_alone_says_that_a_trial_diverged() -> None:
    ledger = Ledger([START, report(100, 0.3, diverged=True)])
    assert ledger.trials[0].last_report is not None
    assert ledger.trials[0].last_report.diverged
    assert ledger.ranking() == []


def test_kept_weights_are_those_of_the_last_end_row() -> None:
    end = {"trial": 0, "attempt": 1, "event": "end", "state": "complete", "reason": "", "checkpoint": "a/0/1-300"}
    ledger = Ledger([START, end])
    assert ledger.kept == {0: KeptWeights(0, 1, "a/0/1-300")}
    ledger.feed(end | {"checkpoint": None})
    assert ledger.kept == {}


def test_rows_before_the_row_of_a_trials_start_count_nowhere() -> None:
    end = {"trial": 0, "attempt": 0, "event": "end", "state": "complete", "reason": "", "checkpoint": "a/0/0-300"}
    ledger = Ledger([report(300, 0.9), end])
    assert (ledger.trials, ledger.kept, ledger.examples_used) == ({}, {}, 0)
    ledger.feed(START | {"attempt": 1})
    ledger.feed(report(100, 0.1, attempt=1))
    assert ledger.trials[0].last == (100, 0.1)
