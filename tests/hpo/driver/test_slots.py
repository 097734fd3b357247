"""The number of slots follows a simulated cluster; a real one changes under a sweep and under a launch that waits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.cluster.connection import Cluster
from hpo.cluster.machines import Room
from hpo.cluster.resources import NodeResources, ResourceError, ResourceRequest, Resources
from hpo.driver.arrival import check_hope, waiting_text
from hpo.driver.session import Session
from hpo.driver.slots import LOOK, Slots
from hpo.launch.prepare import prepare
from hpo.launch.relaunch import plan_again
from results.store import Store
from tests.hpo.conftest import FAKES, calls, launch, script
from tests.hpo.driver.test_interruptions import driver, reports, wait
from tests.hpo.machines import machines

MOST = 100


class Site:
    """A simulated cluster, whose jobs take resources at once, and a launch that keeps its slots busy."""

    def __init__(self, *nodes: NodeResources, each: Resources, taken: int = 0) -> None:
        """`taken`: trials' worth of resources that other people's jobs hold on the first node."""
        self.nodes, self.each, self.taken, self.held, self.now = list(nodes), each, taken, 0, 0.0
        self.messages: list[str] = []
        self.slots = Slots(each, self.look, self.messages.append, 0.0)

    def look(self) -> Room:
        used, free = self.held + self.taken, []
        for cpus, gpus in self.nodes:
            here = min(used, self.each.fits([(cpus, gpus)]))
            used -= here
            free.append((cpus - here * self.each.cpus_per_trial, gpus - here * self.each.gpus_per_trial))
        return Room(tuple(self.nodes), tuple(free))

    def run(self, seconds: float = 2 * LOOK) -> int:
        """Pass time, in which a trial starts in each slot that has room. Returns the number of trials that run."""
        for _ in range(round(seconds)):
            self.now += 1.0
            room = self.each.fits(self.nodes) - self.taken
            self.held = max(0, min(self.slots.follow(self.held, self.now), room))
        return self.held


CPU = Resources(MOST, 1)


def test_all_machines_are_used_at_once_and_one_trial_waits() -> None:
    site = Site((4.0, 0.0), (2.0, 0.0), each=CPU)
    assert site.slots.number == 7
    assert site.run(seconds=1) == 6
    assert site.run(seconds=60) == 6
    assert site.slots.number == 7
    assert site.messages == []


def test_machines_that_join_are_used_and_machines_that_leave_are_missed_by_nobody() -> None:
    site = Site((4.0, 0.0), each=CPU)
    site.run()
    site.nodes.append((3.0, 0.0))
    assert site.run(seconds=1) == 5, "the trial that waited starts at once"
    assert site.run() == 7
    site.nodes.pop(0)
    assert site.run(2 * LOOK) == 3
    assert site.slots.number == 4
    assert [message.split(",")[0] for message in site.messages] == [
        "machines joined: the cluster has room for 7 trials at a time",
        "machines left: the cluster has room for 3 trials at a time",
    ]


def test_other_people_s_jobs_are_left_alone() -> None:
    site = Site((8.0, 0.0), each=CPU, taken=5)
    assert site.slots.number == 4
    assert site.run() == 3
    site.taken = 2
    assert site.run() == 6
    assert site.run(60) == 6


def test_what_one_look_sees_changes_nothing() -> None:
    site = Site((8.0, 0.0), each=CPU, taken=4)
    site.run()
    for taken in (0, 4, 1, 4, 0, 4):
        site.taken = taken
        site.slots.follow(4, site.now + LOOK)
        site.now += LOOK
        assert site.slots.number == 5, "a job ends just as another begins"


def test_the_number_moves_as_far_as_two_looks_agree() -> None:
    site = Site((8.0, 0.0), each=CPU, taken=6)
    numbers = []
    for taken in (2, 4, 3, 7, 6):
        site.taken, site.now = taken, site.now + LOOK
        numbers.append(site.slots.follow(0, site.now))
    assert numbers == [3, 5, 5, 5, 3]


def test_workers_are_the_most() -> None:
    site = Site((4.0, 0.0), each=Resources(3, 1))
    assert site.slots.number == 3, "nothing waits in Ray's queue"
    site.nodes.append((4.0, 0.0))
    assert site.run(60) == 3
    assert site.messages == []


def test_a_trial_fits_onto_one_node_and_one_device() -> None:
    assert Site((3.0, 0.0), (3.0, 0.0), each=Resources(MOST, 2)).slots.number == 3
    assert Site((8.0, 1.0), (8.0, 0.0), each=Resources(MOST, 1, 0.5)).slots.number == 3
    assert Site((4.0, 8.0), each=Resources(MOST, 2, 1.0)).slots.number == 3


def test_an_empty_cluster_keeps_one_trial_waiting_and_says_so_once() -> None:
    site = Site((4.0, 1.0), each=Resources(MOST, 2, 1.0))
    site.run()
    site.nodes[:] = [(8.0, 0.0)]
    assert site.run(60) == 0
    assert site.slots.number == 1, "an autoscaler has something to start a machine for"
    assert site.messages == [
        "machines left: the cluster has room for 0 trials at a time (before: 1)",
        "a trial waits for a machine: it needs 2 CPUs and 1 GPU on one machine, and 8 CPUs and 0 GPUs are free in all",
    ]
    site.nodes.append((4.0, 1.0))
    assert site.run() == 1


def test_a_dead_node_s_trials_are_no_room_even_before_they_are_missed() -> None:
    site = Site((4.0, 0.0), (4.0, 0.0), each=CPU)
    site.run()
    site.nodes.pop()
    for _ in range(2):
        site.now += LOOK
        site.slots.follow(8, site.now)
    assert site.slots.number == 5


@pytest.mark.parametrize(
    ("request_", "nodes", "absent", "expected"),
    [
        (ResourceRequest(), [(8.0, 0.0)], [], Resources(9, 1, 0.0)),
        (ResourceRequest(), [(8.0, 0.0)], [(16.0, 2.0)], Resources(9, 8, 1.0)),  # asleep or gone
        (ResourceRequest(gpus_per_trial=0.0), [(8.0, 0.0)], [(16.0, 2.0)], Resources(9, 1, 0.0)),
        (ResourceRequest(), [(12.0, 4.0)], [(16.0, 2.0)], Resources(9, 3, 1.0)),  # as on a cluster without others
        (ResourceRequest(gpus_per_trial=0.5), [], [], Resources(9, 1, 0.5)),
        (ResourceRequest(4, 2, 1.0), [(8.0, 0.0)], [], Resources(4, 2, 1.0)),  # a sweep that used GPUs
    ],
)
def test_gpus_that_are_asleep_or_gone_are_expected(
    request_: ResourceRequest, nodes: list[NodeResources], absent: list[NodeResources], expected: Resources
) -> None:
    assert request_.expect(nodes, absent, 9) == expected


SMALL, LARGE = (4.0, 1.0), (64.0, 8.0)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("recorded", "nodes", "now", "cpus", "told"),
    [
        (None, [SMALL], None, 4, False),  # the default follows the machine
        (None, [LARGE], None, 8, False),
        (8, [SMALL], None, 4, True),  # an older version recorded its default
        (3, [SMALL], None, 3, False),
        (8, [LARGE], None, 8, False),
        (8, [SMALL], 8, None, False),  # this launch asks for it
    ],
)
def test_a_sweep_of_a_large_machine_goes_on_on_a_small_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: bool,
    recorded: int | None,
    nodes: list[NodeResources],
    now: int | None,
    cpus: int | None,
    told: bool,
) -> None:
    plan = prepare(launch(tmp_path))
    plan = replace(plan, record=replace(plan.record, resources=ResourceRequest(cpus_per_trial=recorded)))
    record = plan.begun(Resources(8, recorded or 8, 1.0))
    relaunch = replace(FAKES, resources=ResourceRequest(cpus_per_trial=now))
    session = Session(plan_again(plan.store, record, record.trials, relaunch), None)
    monkeypatch.setattr("hpo.driver.arrival.living_nodes", lambda closed: tuple(nodes))
    monkeypatch.setattr("hpo.driver.arrival.absent_nodes", tuple)
    total = [sum(numbers) for numbers in zip(*nodes, strict=True)]
    cluster = Cluster(own, *total, None, tuple(nodes))
    if cpus is None:
        with pytest.raises(ResourceError, match="8"):
            session._resources(cluster)
        return
    resources = session._resources(cluster)
    assert (resources.cpus_per_trial, resources.gpus_per_trial) == (cpus, 1.0)
    session._tell_of_less(resources)
    message = "a trial had 8 CPUs, and no machine here has so many: it gets 4"
    assert session._screen.messages == ([message] if told else [])


def test_what_no_known_machine_can_hold_is_refused() -> None:
    check_hope(Resources(9, 2, 1.0), [(8.0, 0.0)])  # GPUs may come
    check_hope(Resources(9, 64), [(0.0, 0.0)])  # machines may come
    check_hope(Resources(9, 8), [(4.0, 0.0), (8.0, 0.0)])  # one that is absent has the room
    with pytest.raises(ResourceError, match="with 4 CPUs and 0 GPUs.* hold 0: less for each trial"):
        check_hope(Resources(9, 64), [(4.0, 0.0)])
    with pytest.raises(ResourceError, match="hold 0: less for each trial"):
        check_hope(Resources(9, 1, 4.0), [(8.0, 0.0), (8.0, 2.0)])


def test_a_launch_says_for_what_it_waits() -> None:
    assert waiting_text(Resources(9, 4, 1.0), [(8.0, 0.0)]) == (
        "waiting for a machine with 4 CPUs and 1 GPU for a trial; the cluster has 8 CPUs and 0 GPUs now; "
        "--gpus-per-trial 0 trains on CPUs"
    )
    assert (
        waiting_text(Resources(9, 4), []) == "waiting for a machine with 4 CPUs for a trial; the cluster has 0 CPUs now"
    )


def lost(store: Path) -> list[int]:
    return [row["trial"] for row in Store(store).open("s").events() if row.get("state") == "lost"]


def processes(store: Path) -> set[int]:
    """Processes that have trained."""
    return {call[3] for call in calls(store / "s")}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_on_machines_that_join_and_leave(tmp_path: Path) -> None:
    """It waits for a first machine, uses a second that joins, survives the loss of one, and resumes on a smaller
    cluster than it asked for."""
    script(tmp_path / "s", slow=1.5)
    with machines() as cluster:
        with driver("run", tmp_path, address=cluster.address, trials=6, workers=3) as process:
            time.sleep(20)
            assert process.poll() is None, "it waits: the head runs no trials"
            assert not (tmp_path / "s" / "sweep.json").exists()
            cluster("add 1 0")
            wait(lambda: reports(tmp_path), 400, "a report")
            assert len(processes(tmp_path)) == 1
            cluster("add 2 0")
            wait(lambda: len(processes(tmp_path)) >= 3, 400, "trials on the second machine")
            cluster("remove 1")
            wait(lambda: lost(tmp_path), 400, "the loss of trials")
            process.terminate()
            output, _ = process.communicate(timeout=400)
            assert output.splitlines()[-1] == "stopped", output
        script(tmp_path / "s")
        with driver("resume", tmp_path, address=cluster.address) as process:
            output, _ = process.communicate(timeout=600)
            assert output.splitlines()[-1] == "done", output
    rows = Store(tmp_path).open("s").events()
    states = {row["trial"]: row["state"] for row in rows if row.get("event") == "end"}
    assert sorted(states) == list(range(6))
    assert set(states.values()) <= {"complete", "pruned"}, "no trial fails for a machine that left"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_free_worker_takes_the_trial_that_waits_for_a_machine(tmp_path: Path) -> None:
    """One trial runs, one waits for a machine that never comes. Before both have ended, no repeat is known, and the
    search is not over for Tune."""
    with machines() as cluster:
        cluster("add 1 0")
        options = {"trials": 2, "workers": 2, "repeats": 1, "scheduler": "none", "grace": None}
        with driver("run", tmp_path, address=cluster.address, **options) as process:
            output, _ = process.communicate(timeout=180)
    assert output.splitlines()[-1] == "done", output
    rows = Store(tmp_path).open("s").events()
    assert {row["trial"] for row in rows if row.get("state") == "complete"} == {0, 1}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_launch_waits_for_gpus_that_have_gone(tmp_path: Path) -> None:
    """The tests' GPUs are numbers: once one has joined, the survey of the machines refuses it, unless it is real."""
    with machines() as cluster:
        cluster("add 2 1")
        cluster("add 2 0")
        cluster("remove 0")
        with driver("run", tmp_path, address=cluster.address, trials=1, gpus_per_trial=None) as process:
            time.sleep(30)
            assert process.poll() is None, "it does not train on CPUs"
            assert not (tmp_path / "s").exists()
            cluster("add 2 1")
            process.communicate(timeout=400)
    assert (tmp_path / "s").exists() == (process.returncode == 0)
