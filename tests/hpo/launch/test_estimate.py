"""Estimate of a dry run: time of the search, work of the stages before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.display.dry_run import stage_words
from hpo.launch.estimate import cost_spread, drawn, stage_work
from hpo.launch.plan import Plan
from hpo.launch.prepare import prepare
from minbert.data.files import read_corpus
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import find_base
from minbert.stages.stages import MLM, MNRL, NLI
from minbert.tasks import choose_tasks
from minbert.training.cost import StageRows, Workload, stage_examples
from search_spaces.domains import Float, Kind, OneOf
from tests.hpo.conftest import launch

WORKLOAD = Workload.of(read_corpus(None, choose_tasks()), find_base("tiny").traits)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(None, find_base("tiny"), cache=tmp_path_factory.mktemp("cache"))


def planned(store: Path, **changes: Any) -> Plan:
    return prepare(launch(store, **{"trainer": "hpo.worker.trainer"} | changes))


def worded(plan: Plan, data: Data) -> list[str]:
    """Rows and steps of each stage, without its cost."""
    configs = drawn(plan)[:20]
    return [stage_words(work).partition(", as long as")[0] for work in stage_work(plan, data, WORKLOAD, configs)]


def test_the_cost_of_a_stage_and_the_share_of_its_draws(tmp_path: Path, sample: Data) -> None:
    plan = planned(tmp_path, space={"stages": {"mlm": Kind(none={}, mlm={"epochs": OneOf(1.0, 2.0)})}})
    (work,) = stage_work(plan, sample, WORKLOAD, drawn(plan))
    assert work.rows == (3_000, 3_000)
    assert work.examples[1] == pytest.approx(2 * work.examples[0], abs=1)
    tokens = MLM().read(sample).texts[0].offsets[-1] / 3_000 + 2  # with [CLS] and [SEP]
    assert work.examples[0] == round(stage_examples(MLM(), 3_000, tokens, WORKLOAD))
    assert 0.4 < work.share < 0.6


def test_rows_of_a_stage_are_those_that_it_reads(sample: Data) -> None:
    """Word pieces are estimated from words, for a large vocabulary: nearly all words and marks are one piece."""
    corpus, vocabulary = read_corpus(None, choose_tasks()), find_base("tiny").vocabulary
    for stage in (MLM(), NLI(), MNRL(), MNRL(min_score=3.0)):
        rows, file = StageRows.of(stage, corpus), stage.read(sample)
        assert rows.rows == len(file.labels)
        pieces = [vocabulary[index] for texts in file.texts for index in texts.ids]
        whole = sum(not piece.startswith("##") for piece in pieces) / rows.rows
        assert rows.tokens == pytest.approx(whole + len(file.texts) + stage.sequences, rel=0.15)
    largest = StageRows.of(MNRL(min_score=3.0), corpus)
    assert Workload.of(corpus, stages=[MNRL(), MNRL(min_score=3.0), MNRL()]).stages == {"mnrl": largest}


def test_costs_of_draws_are_those_of_the_space(tmp_path: Path) -> None:
    same = planned(tmp_path, space={"optimizer": {"head_lr": Float(1e-4, 1e-2, log=True)}})
    costs = cost_spread(drawn(same), WORKLOAD)
    assert costs is not None and (costs.low, costs.median, costs.dearest) == (1.0, 1.0, 1.0)
    smart = planned(tmp_path, space={"regularizer": {"qqp": Kind(none={}, smart={})}})
    costs = cost_spread(drawn(smart), WORKLOAD)
    assert costs is not None
    assert (costs.draws, costs.low) == (200, 1.0)
    assert 1.1 < costs.high == costs.dearest < 3.0
    assert costs.low < costs.mean < costs.dearest
    fixed = planned(tmp_path, space={"optimizer": {"head_lr": OneOf(1e-3)}}, trials=1)
    assert drawn(fixed) == [] and cost_spread([], WORKLOAD) is None


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
    assert plan.preview.costs is not None and plan.preview.example_seconds is not None
