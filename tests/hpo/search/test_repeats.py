"""Which configurations run again, in which order, and how many repeats the share allows."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hpo.search.repeats import FINALISTS, SHARE, Repeat, Run, allowed, finalists, missing, most

BUDGET = 900


def run(trial: int, score: float, *, step: int = BUDGET, state: Any = "complete", config: str | None = None) -> Run:
    origin = "sampler" if trial else "default"
    return Run(trial, config or f"c{trial}", 0, origin, state, (step, score))


def again(trial: int, of: int, replicate: int) -> Run:
    return Run(trial, f"c{of}", replicate, "repeat", "complete", (BUDGET, 0.5))


SEARCH = [run(0, 0.70), run(1, 0.60), run(2, 0.75), run(3, 0.72), run(4, 0.65), run(5, 0.90, step=300, state="pruned")]
FILLED = [*SEARCH, *(run(trial, 0.1) for trial in range(10, 50))]
"""A search with the same finalists, long enough for all repeats."""


def test_finalists_are_the_best_the_default_and_two_more() -> None:
    assert finalists(SEARCH, BUDGET) == [2, 0, 3, 4]
    assert finalists(SEARCH[:3], BUDGET) == [2, 0, 1]
    assert finalists([*SEARCH, run(6, 0.75)], BUDGET) == [2, 0, 6, 3], "of equal scores the older trial is first"


def test_a_configuration_is_a_finalist_once_and_the_default_never_beside_itself() -> None:
    twice = [*SEARCH, run(6, 0.74, config="c2"), run(7, 0.73, config="c0")]
    assert finalists(twice, BUDGET) == [2, 0, 3, 4]


def test_without_something_to_compare_nobody_is_a_finalist() -> None:
    assert finalists([], BUDGET) == []
    assert finalists(SEARCH[:1], BUDGET) == []
    assert finalists([run(0, 0.7), run(1, 0.8, config="c0")], BUDGET) == [], "all parameters are pinned"
    assert finalists([run(0, 0.7, state="diverged"), *SEARCH[1:]], BUDGET) == [2, 3, 4]
    assert finalists([run(0, 0.7), run(1, 0.8, step=300)], BUDGET) == [], "the row of its last report was lost"


def test_the_first_replicate_of_all_comes_before_the_second_of_any() -> None:
    first = [Repeat(trial, 1) for trial in (2, 0, 3, 4)]
    assert missing(FILLED, BUDGET, 2) == [*first, *(Repeat(trial, 2) for trial in (2, 0, 3, 4))]
    assert missing(FILLED, BUDGET, 1) == first
    assert missing(FILLED, BUDGET, 0) == []
    assert len(missing(FILLED, BUDGET, 2)) == most(2)


def test_repeats_that_have_started_are_not_missing_whatever_became_of_them() -> None:
    started = [again(60, 2, 1), again(61, 0, 1)._replace(state="diverged"), again(62, 3, 1)._replace(state="running")]
    assert missing([*FILLED, *started], BUDGET, 2) == missing(FILLED, BUDGET, 2)[3:]


def test_the_share_counts_all_examples_repeats_included() -> None:
    assert allowed(20 * BUDGET, BUDGET) == 5
    assert allowed(20 * BUDGET - 1, BUDGET) == 4
    assert len(missing(SEARCH, BUDGET, 2)) == 1, "5 and a third full trials"
    others = [again(60 + place, 30 + place, 1) for place in range(3)]
    longer = [*SEARCH, *(run(trial, 0.1) for trial in range(10, 21))]
    assert len(missing(longer, BUDGET, 2)) == 4
    assert missing([*longer, *others], BUDGET, 2) == [Repeat(2, 1)], "repeats before an extension count"


@pytest.mark.parametrize("seed", range(20))
def test_no_sweep_spends_more_than_its_share_and_none_less_than_it_could(seed: int) -> None:
    rng = random.Random(seed)
    runs = [run(trial, rng.random(), step=rng.choice((100, 300, BUDGET)), state="complete")
            for trial in range(rng.randrange(1, 60))]  # fmt: skip
    replicates = rng.randrange(4)
    repeats = missing(runs, BUDGET, replicates)
    used = sum(each.last[0] for each in runs if each.last)
    assert SHARE * BUDGET * len(repeats) <= used + BUDGET * len(repeats)
    room = SHARE * BUDGET * (len(repeats) + 1) <= used + BUDGET * (len(repeats) + 1)
    assert not room or len(repeats) == replicates * len(finalists(runs, BUDGET))
    assert len(finalists(runs, BUDGET)) <= FINALISTS + 1


def test_what_is_missing_does_not_depend_on_when_it_is_asked() -> None:
    runs, order = list(FILLED), missing(FILLED, BUDGET, 2)
    for place, repeat in enumerate(order):
        assert missing(runs, BUDGET, 2) == order[place:]
        runs.append(again(100 + place, repeat.of, repeat.replicate))
    assert missing(runs, BUDGET, 2) == []
