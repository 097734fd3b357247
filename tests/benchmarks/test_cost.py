"""The stored runs against the count of their work: whoever changes a technique's numbers or a constant sees it here."""

from __future__ import annotations

import pytest

from benchmarks import cost
from minbert.config import Config


def test_predicted_costs_are_close_to_those_of_the_stored_runs() -> None:
    runs = list(cost.stored_runs())
    assert len(runs) > 80
    far = {run.name: round(run.ratio, 2) for run in runs if not 0.5 < run.ratio < 2.0}
    assert not far
    assert sum(0.8 <= run.ratio <= 1.25 for run in runs) >= 0.9 * len(runs)


def test_draws_have_no_stages_and_are_the_same_every_time() -> None:
    first, second = dict(cost.draws(3, 0)), dict(cost.draws(4, 0))
    assert first.items() <= second.items()
    assert all(isinstance(config, Config) and not config.stages.chain() for config in first.values())


def test_the_summary_counts_what_is_near() -> None:
    runs = [cost.Run("a", "x", 1.0, 1.0), cost.Run("a", "y", 3.0, 2.0), cost.Run("b", "z", 1.0, 4.0)]
    assert [run.ratio for run in runs] == [1.0, 1.5, 0.25]
    lines = cost.summary(runs).splitlines()[2:]
    assert lines == ["| a | 2 | 1 | 2 | 1.00 to 1.50 | 22% |", "| b | 1 | 0 | 0 | 0.25 to 0.25 | 300% |"]


@pytest.mark.parametrize("pairs", [["encoding/qqp/kind=bi"], ["encoding/qqp/kind=bi", "encoding/qqp/pooling=mean"]])
def test_runs_of_version_5_pooled_the_first_token(pairs: list[str]) -> None:
    config = cost.of_version_5(pairs)
    assert config.encoding["qqp"].pooling == ("mean" if len(pairs) > 1 else "cls")
    assert config.encoding["sst"].pooling == "cls" and config.dropout.hidden == 0.1
