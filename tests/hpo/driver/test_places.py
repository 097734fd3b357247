"""Quarantine: whose fault a failure is, and whole sweeps on clusters with broken places, in simulated time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.faults import Cause
from hpo.driver.places import ALIKE, RECENT, SAME_FAILURES, Places
from hpo.search.endings import Ending
from hpo.worker.job import Assignment
from tests.hpo.driver.test_recorder import STEPS, Bench, failing

ECC = "CUDA error: uncorrectable ECC error"


def fail(
    places: Places, trial: int, place: str, cause: Cause = "place", reason: str = ECC, final: bool = False
) -> None:
    places.failed(trial, Ending(cause, reason, place), final)


def suspect(others: Iterable[str] = ("b",)) -> Places:
    """Places where `a` has failed two trials alike, while others are at work."""
    places = Places(workers=16)
    places.at_work(others, now=0.0)
    for trial in range(ALIKE):
        fail(places, trial, "a")
    return places


def test_a_place_where_two_trials_fail_alike_gets_no_more() -> None:
    places = Places(workers=16)
    places.at_work(["a", "b"], now=0.0)
    fail(places, 0, "a")
    fail(places, 0, "a", reason="process 12 died")
    assert places.quarantined(0.0) == {}, "one trial may be at fault itself"
    fail(places, 1, "a", reason="process 7 died")
    assert places.quarantined(0.0) == {"a": "2 trials failed there alike: process 12 died"}


def test_failures_are_alike_whatever_host_they_name() -> None:
    places = Places(workers=2)
    for trial in range(SAME_FAILURES):
        host = "abcde"[trial]
        fail(places, trial, f"{host} GPU 3", reason=f"FileNotFoundError: {host} does not reach the sweep's store")
    assert places.fault(0.0) == "5 failures in a row were alike: FileNotFoundError: e does not reach the sweep's store"


def test_a_report_from_a_place_clears_it() -> None:
    places = suspect()
    places.reported(2, "b")
    assert places.quarantined(0.0)
    places.reported(2, "a")
    assert places.quarantined(0.0) == {}


def test_a_trial_that_fails_for_good_takes_its_failures_with_it() -> None:
    places = suspect()
    fail(places, 0, "b", final=True)
    assert places.quarantined(0.0) == {}


def test_the_last_place_is_not_given_up() -> None:
    assert suspect(others=()).quarantined(0.0) == {}
    places = suspect()
    assert places.quarantined(RECENT)
    assert places.quarantined(RECENT + 1.0) == {}, "the other place is gone"


def test_an_error_counts_against_a_place_once_its_trial_reports_from_another() -> None:
    places = Places(workers=16)
    places.at_work(["a", "b"], now=0.0)
    for trial in range(ALIKE):
        fail(places, trial, "a", "raised", "ValueError: the data differ")
    assert places.quarantined(0.0) == {}, "two configurations may be at fault"
    for trial in range(ALIKE):
        places.reported(trial, "b")
    assert places.quarantined(0.0) == {"a": "2 trials failed there alike: ValueError: the data differ"}


def test_a_trial_avoids_the_host_where_it_was_lost_or_else_the_device() -> None:
    places = Places(workers=16)
    assert places.avoid(["n1 GPU 0"], 0.0) == (), "no other place is known"
    places.at_work(["n1 GPU 0", "n1 GPU 1"], now=0.0)
    assert places.avoid(["n1 GPU 0"], 0.0) == ("n1 GPU 0",)
    places.at_work(["n2 GPU 0"], now=0.0)
    assert places.avoid(["n1 GPU 0"], 0.0) == ("n1",)
    assert Assignment(0, 1, {}, 0, avoid=("n1",)).avoids("n1 GPU 1")
    assert not Assignment(0, 1, {}, 0, avoid=("n1",)).avoids("n2 GPU 1")
    assert not Assignment(0, 1, {}, 0, avoid=("n1 GPU 1",)).avoids("n1 GPU 10")


class Simulation(Bench):
    """A sweep on a cluster where some places fail, each two seconds after a trial begins there. Others take minutes for
    a report."""

    def __init__(self, folder: Path, places: list[str], broken: set[str], death: bool = False) -> None:
        super().__init__(folder, trials=40, workers=len(places), repeats=0)
        self.cluster, self.broken, self.death = places, broken, death
        self.lost: Counter[int] = Counter()
        """Trial -> number of attempts that a broken place ended."""
        self._events: list[tuple[float, int, str, str, int]] = []
        """Time, order, place, Tune's id, number of reports before."""

    def run(self) -> None:
        free, order = list(self.cluster), 0
        while not self.recorder.closed or self._events:
            if self.recorder.fault:
                self.recorder.abandon("the launch stops")
                return
            for place in list(free):
                if assignments := self.recorder.issue():
                    free.remove(place)
                    order += 1
                    self._begin(assignments[0], place, order)
            if not self._events:
                self.now += 1.0  # every trial that is left rests
                assert self.now < 1e6, "the sweep does not end"
                continue
            self.now, order, place, tune_id, reports = heapq.heappop(self._events)
            if not self._happen(tune_id, place, order, reports):
                free.append(place)

    def _begin(self, assignment: Assignment, place: str, order: int) -> None:
        self.board.places[assignment.id] = place
        declines = place in self.board.closed or assignment.avoids(place)
        seconds = 0.1 if declines else 2.0 if place in self.broken else 300.0
        heapq.heappush(self._events, (self.now + seconds, order, place, assignment.id, -1 if declines else 0))

    def _happen(self, tune_id: str, place: str, order: int, reports: int) -> bool:
        """Let the next thing happen to an attempt; returns whether its worker stays with it."""
        if reports < 0:
            stays = self.result(tune_id, kind="declined", place=place)
        elif place in self.broken:
            self.lost[int(tune_id.partition("-")[0])] += 1
            if self.death:
                self.recorder.lost(tune_id, f"worker process {order} died", "")
            else:
                self.result(tune_id, **failing(ECC, cause="place", exits=True))
                self.recorder.lost(tune_id, "its process left", "")
            stays = False
        else:
            stays = self.report(tune_id, STEPS[reports], 0.5 + order / 1000)
            reports += 1
        if stays:
            wait = 1.0 if reports < 0 else 300.0
            heapq.heappush(self._events, (self.now + wait, order, place, tune_id, reports))
        return stays


@pytest.mark.parametrize("death", [False, True], ids=["device error", "death"])
def test_one_broken_device_of_sixteen_costs_no_trial_and_is_named(tmp_path: Path, death: bool) -> None:
    devices = [f"n{node} GPU {device}" for node in range(2) for device in range(8)]
    sweep = Simulation(tmp_path, devices, {"n0 GPU 3"}, death)
    sweep.run()
    states = Counter(record.state for record in sweep.sweep.records.values())
    assert sweep.sweep.finished
    assert states["complete"] + states["pruned"] == 40, "no healthy trial fails"
    assert sweep.lost.total() == ALIKE
    assert list(sweep.placement.quarantined) == ["n0 GPU 3"]
    assert [message for message in sweep.messages if "no more trials" in message] == [
        f"n0 GPU 3 gets no more trials in this launch: {sweep.placement.quarantined['n0 GPU 3']}"
    ]


@pytest.mark.parametrize("hosts", [2, 16])
def test_a_broken_host_costs_no_trial(tmp_path: Path, hosts: int) -> None:
    """All eight devices of one host fail, such as without the data."""
    devices = [f"n{node} GPU {device}" for node in range(hosts) for device in range(8)]
    broken = set(devices[:8])
    sweep = Simulation(tmp_path, devices, broken)
    sweep.run()
    assert sweep.sweep.finished
    assert "failed" not in {record.state for record in sweep.sweep.records.values()}
    assert set(sweep.placement.quarantined) <= broken
    assert max(sweep.lost.values()) < 3
    assert sweep.lost.total() <= 8 * ALIKE


def test_what_all_places_lack_stops_the_launch_and_costs_no_trial(tmp_path: Path) -> None:
    devices = [f"n{node}" for node in range(16)]
    sweep = Simulation(tmp_path, devices, set(devices))
    sweep.run()
    assert sweep.recorder.fault == f"16 failures in a row were alike: {ECC}"
    assert {record.state for record in sweep.sweep.records.values()} == {"waiting"}


def test_a_single_broken_place_stops_the_launch(tmp_path: Path) -> None:
    sweep = Simulation(tmp_path, ["laptop"], {"laptop"})
    sweep.run()
    assert sweep.recorder.fault == f"{SAME_FAILURES} failures in a row were alike: {ECC}"
    assert "failed" not in {record.state for record in sweep.sweep.records.values()}


def test_a_trial_that_fails_everywhere_fails_alone(tmp_path: Path) -> None:
    """Its first places are not held for broken after that."""

    class Poisoned(Simulation):
        def _begin(self, assignment: Assignment, place: str, order: int) -> None:
            self.broken = {place} if assignment.trial == 7 else set()
            super()._begin(assignment, place, order)

        def _happen(self, tune_id: str, place: str, order: int, reports: int) -> Any:
            self.broken = {place} if tune_id.startswith("7-") else set()
            return super()._happen(tune_id, place, order, reports)

    sweep = Poisoned(tmp_path, [f"n{node}" for node in range(4)], set())
    sweep.run()
    states = {number: record.state for number, record in sweep.sweep.records.items()}
    assert [number for number, state in states.items() if state == "failed"] == [7]
    assert sweep.lost == {7: 3}
    assert sweep.placement.quarantined == {}
