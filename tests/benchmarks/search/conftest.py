"""The small space of the search's own tests, as the search benchmark sees it."""

from __future__ import annotations

import pytest

from benchmarks.search.responses import Plan
from benchmarks.search.rivals import Setting
from benchmarks.search.runs import least
from hpo.space.space import Space
from tests.hpo.simulation import TREE, complete


@pytest.fixture(scope="session")
def space() -> Space:
    return Space(TREE, {})


@pytest.fixture(scope="session")
def plan(space: Space) -> Plan:
    return Plan.of(space, complete)


@pytest.fixture
def setting(space: Space, plan: Plan) -> Setting:
    return Setting(space, complete, lambda config: 1.0, plan.defaults, seed=3, workers=4, least=least())
