"""Sentences and rows about an ensemble, made from its record."""

from __future__ import annotations

from typing import Any

from hpo.display import ensemble

ESTIMATE = {"overall": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 60}, "tasks": {}}
GAIN = {"value": 0.01, "low": 0.0, "high": 0.02}


def record(method: str, size: int, trials: list[int]) -> dict[str, Any]:
    member = {"weight": 1 / len(trials), "weights": {"sst": 1 / len(trials)}, "alone": 0.7, "gain": {}, "seconds": 1.0}
    return {
        "method": method, "size": size, "best_single": trials[0], "default": 0,
        "members": [member | {"trial": trial, "repeat_of": 1 if trial == 12 else None} for trial in trials],
        "compared": [{"method": "top-k", "size": 1}, {"method": "stack", "size": 5}],
        "estimates": {role: {"held": ESTIMATE} for role in ("ensemble", "best_single", "default")},
        "gain": GAIN, "gain_over_default": GAIN,
    }  # fmt: skip


def test_a_choice_of_the_best_single_trial_says_so_and_shows_it_once() -> None:
    alone = record("top-k", 1, [12])
    sentence = ensemble.alone(alone)
    assert sentence is not None and "trial 12 predicts alone" in sentence
    assert [row[""].split(" (")[0] for row in ensemble.estimate_rows(alone, "held")] == [
        "best single trial on `search`",
        "default",
    ]
    assert [line.split(",")[0] for line in ensemble.gains(alone)] == ["best single trial minus default"]
    asked = alone | {"compared": alone["compared"][:1]}
    assert ensemble.alone(asked) is None, "nothing else was tried"


def test_an_ensemble_stands_beside_the_best_single_trial() -> None:
    pair = record("stack", 5, [12, 3])
    assert ensemble.alone(pair) is None
    assert len(ensemble.estimate_rows(pair, "held")) == 3
    assert len(ensemble.gains(pair)) == 2


def test_a_repeat_names_its_trial() -> None:
    pair = record("stack", 5, [12, 3])
    assert [row["trial"] for row in ensemble.member_rows(pair)] == ["12 (repeat of 1)", "3"]
