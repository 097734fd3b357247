"""Paired seeds: one seed for all trials of a replicate, and the draws of an unpaired sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpo.__main__
from benchmarks import paired
from hpo.launch.prepare import prepare
from hpo.search import sweep
from tests.hpo.conftest import launch


def test_trials_share_a_seed_and_draw_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(launch(tmp_path)).sweep(4), prepare(launch(tmp_path)).sweep(4)
    before = [made[0].next() for _ in range(4)]
    monkeypatch.setattr(sweep, "training_seed", sweep.training_seed)  # restores it at the end
    monkeypatch.setattr(hpo.__main__, "main", lambda: None)
    paired.main()
    after = [made[1].next() for _ in range(4)]
    assert len({start.seed for start in before if start}) == 4 and len({start.seed for start in after if start}) == 1
    assert [start.config for start in before if start] == [start.config for start in after if start]
    assert paired.paired_seed(0, 1, 0) == paired.paired_seed(0, 2, 0) != paired.paired_seed(0, 1, 1)
