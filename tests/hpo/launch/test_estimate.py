"""Estimate of a dry run: time of the search, work of the stages before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.display.dry_run import stage_words
from hpo.launch.estimate import stage_work
from hpo.launch.plan import Plan
from hpo.launch.prepare import prepare
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import find_base
from minbert.stages.stages import MNRL, NLI
from search_spaces.domains import Float, Kind, OneOf
from tests.hpo.conftest import launch


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(None, find_base("tiny"), cache=tmp_path_factory.mktemp("cache"))


def planned(store: Path, **changes: Any) -> Plan:
    return prepare(launch(store, **{"trainer": "hpo.worker.trainer"} | changes))


def worded(plan: Plan, data: Data) -> list[str]:
    return [stage_words(work) for work in stage_work(plan, data)]


def test_each_stage_that_can_be_drawn_has_its_rows_and_steps(tmp_path: Path, sample: Data) -> None:
    mlm, nli, mnrl = worded(planned(tmp_path, space="stages"), sample)
    assert mlm == "MLM 3,000 rows, 94 to 281 steps of 32", "600 reviews and 2 x 1,200 sentences of pairs; 1 or 3 epochs"
    rows = len(NLI().read(sample).labels)
    assert nli == f"NLI {rows} rows, {round(rows / 32)} to {round(5 * rows / 32)} steps of 32"
    assert mnrl.startswith(f"MNRL {len(MNRL().read(sample).labels)} rows, ")


def test_a_pin_a_start_file_or_a_space_without_stages_changes_the_estimate(tmp_path: Path, sample: Data) -> None:
    pinned = planned(tmp_path, space="stages", settings=("stages/mlm/kind=none", "stages/nli/kind=none"))
    assert [line.split()[0] for line in worded(pinned, sample)] == ["MNRL"]
    assert worded(planned(tmp_path), sample) == []
    start = tmp_path / "start.json"
    start.write_text('{"stages": {"mlm": {"kind": "mlm", "epochs": 2, "batch_size": 100}}}')
    assert worded(planned(tmp_path, start=(start,)), sample) == ["MLM 3,000 rows, 60 steps of 100"]
    ranges = {"adapter": Kind(none={}, lora={"/stages/mnrl": Kind(mnrl={"min_score": OneOf(3.0, 4.0, 5.0)})}),
              "stages": {"mlm": Kind(mlm={"epochs": Float(0.5, 1.0)})}}  # fmt: skip
    mlm, mnrl = worded(planned(tmp_path, space=ranges), sample)
    assert mlm == "MLM 3,000 rows, 47 to 94 steps of 32"
    rows = sorted(len(MNRL(min_score=least).read(sample).labels) for least in (3.0, 5.0))
    assert mnrl.startswith(f"MNRL {rows[0]} to {rows[1]} rows, ")


def test_the_time_is_known_however_early_the_first_rung_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    plan = prepare(launch(tmp_path, trainer="hpo.worker.trainer", budget=192, grace=64), estimate=True)
    assert plan.record.milestones == (64, 192)
    assert plan.preview.seconds is not None
    assert plan.preview.seconds > 0
