"""Endings: what becomes of a trial, by the cause of its attempts' ends; rests grow and end."""

from __future__ import annotations

import pytest

from hpo.cluster.faults import Cause
from hpo.search.endings import LOSSES, Ending, Endings, rest


@pytest.mark.parametrize(
    ("causes", "state"),
    [
        (["refused"], "failed"),
        (["raised"], "lost"),
        (["raised", "raised"], "failed"),
        (["raised", "place", "driver", "raised"], "failed"),
        (["memory"], "lost"),
        (["memory", "memory"], "failed"),
        (["memory", "raised"], "lost"),
        (["place"] * (LOSSES - 1), "lost"),
        (["place"] * LOSSES, "failed"),
        (["place", "driver"] * (LOSSES - 1), "paused"),
        (["driver"] * 20, "paused"),
        (["disk"] * 20, "paused"),
    ],
)
def test_the_causes_of_a_trial_s_ends_decide_its_state(causes: list[Cause], state: str) -> None:
    endings = Endings()
    assert [endings.add(Ending(cause)) for cause in causes][-1] == state


def test_after_running_out_of_memory_a_trial_runs_alone() -> None:
    endings = Endings()
    assert not endings.memory
    endings.add(Ending("memory"))
    endings.progress()
    assert endings.memory


def test_a_newer_checkpoint_is_progress_and_the_same_one_is_not() -> None:
    endings = Endings()
    for place in ("a", "b"):
        assert endings.add(Ending("place", place=place, reached=100)) == "lost"
    assert (endings.losses, endings.places) == (2, ["a", "b"])
    assert endings.add(Ending("place", place="c", reached=101)) == "lost"
    assert (endings.losses, endings.places) == (1, ["c"])
    assert endings.add(Ending("place", reached=101)) == "lost"
    assert endings.add(Ending("place", "node gone", reached=101)) == "failed"
    assert endings.why("node gone") == "lost at 3 places in a row: node gone"


def test_rests_grow_with_every_loss() -> None:
    assert [rest(losses) for losses in range(LOSSES)] == [0.0, 2.0, 8.0]
