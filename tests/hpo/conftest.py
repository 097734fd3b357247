"""A small Ray cluster that the tests of a process share, and launches with a trainer that needs no model.

Tests that kill drivers start them as subprocesses, with clusters of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.connection import Cluster, own_cluster
from hpo.launch.plan import Plan
from hpo.launch.record import SweepRecord
from hpo.launch.request import Launch, Relaunch, from_options
from search_spaces.domains import Float
from tests.hpo import inline

SPACE = {"optimizer": {"encoder_lr": Float(1e-6, 1e-2, log=True)}}


FAKES = Relaunch(trainer="tests.hpo.fakes")
"""Another launch of a sweep whose record names the fake trainer."""


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    # The GPUs are numbers that Ray hands out: nothing of the tests' trainer computes on one.
    with own_cluster(cpus=2, gpus=2) as cluster:
        yield cluster


def launch(store: Path, **changes: Any) -> Launch:
    """A launch of eight trials with the trainer of `tests.hpo.fakes`."""
    values: dict[str, Any] = {
        "space": SPACE,
        "base": "tiny",
        "store": str(store),
        "name": "s",
        "trials": 8,
        "budget": 900,
        "grace": 100,
        "workers": 1,
        "gpus_per_trial": 0.0,
        "repeats": 0,
        "trainer": "tests.hpo.fakes",
    }
    return from_options(Launch, values | changes)


def written(plan: Plan) -> SweepRecord:
    """The record of a plan's sweep, as read back from its file."""
    assert plan.resources is not None
    return SweepRecord.from_json(json.loads(json.dumps(plan.begun(plan.resources).to_json())))


def script(sweep: Path, faults: dict[int, dict[str, Any]] | None = None, slow: float = 0.0) -> None:
    """Write the faults of trials for the fake trainer, and the seconds of each step (see `tests.hpo.fakes`)."""
    sweep.mkdir(parents=True, exist_ok=True)
    for name, content in {"faults": faults or {}, "slow": slow}.items():
        half = sweep / f"{name}.half"
        half.write_text(json.dumps(content))
        half.replace(sweep / f"{name}.json")  # whole or not at all: trainers read it meanwhile


def calls(sweep: Path) -> list[tuple[int, int, int, int]]:
    """(trial, attempt, examples at which it began, process) of every training that began, in order."""
    lines = (sweep / "calls.log").read_text().splitlines()
    return [tuple(int(part) for part in line.split()) for line in lines]  # type: ignore[misc]


@pytest.fixture(scope="session")
def two_sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two finished sweeps of one space, `a` and `b`, of other seeds. Tests only read it."""
    store = tmp_path_factory.mktemp("two")
    for seed, name in enumerate(("a", "b")):
        inline.run(launch(store, name=name, seed=seed, trials=7, repeats=1))
    return store
