"""The answer in words and as JSON."""

from __future__ import annotations

import math

import pytest

from hpo.display.answer import chance, sentences, to_json
from hpo.display.tables import plain
from hpo.driver.answer import Comparison, Decision
from hpo.search.answer import Answer, Challenger, decide
from results.estimates import Estimate

HELD = Comparison(5, (5, 9), (0,), Estimate(0.0123, 0.0021, 0.0234, 5983))
SURE = decide((0.70, 0.70), [Challenger(5, (0.75, 0.75)), Challenger(2, (0.69,))])
UNSURE = decide((0.70, 0.70), [Challenger(5, (0.70,)), Challenger(2, (0.69,))])


def test_an_answer_that_beats_the_default() -> None:
    verdict, scores, held = sentences(Decision(SURE, HELD))
    assert verdict == "Answer: trial 5, better than the default with probability above 0.99."
    assert scores.startswith("On `search` trial 5 has 0.7500 (mean of 2 runs), the default 0.7000 (mean of 2 runs);")
    assert "expected gain +0.0" in scores
    expected = "answer against default, held out: +0.0123 (+0.0021 .. +0.0234), 2 runs against 1, n = 5,983"
    assert held == expected


def test_a_default_that_nothing_beats_for_sure() -> None:
    verdict, _, held = sentences(Decision(UNSURE, HELD))
    assert UNSURE.leader is not None
    assert verdict == (
        "Answer: the default (trial 0), as no configuration is better with a probability of 0.75 or more. The nearest "
        f"is trial 5 with {chance(UNSURE.leader.probability)}."
    )
    assert held.startswith("trial 5 against default, held out:"), "the default against itself says nothing"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (decide((), []), "Answer: none, as no trial has reached the full budget."),
        (decide((0.7,), []), "Answer: the default (trial 0), as no other configuration has reached the full budget."),
        (decide((), [Challenger(3, (0.7,))]), "Answer: trial 3, the best at full budget. It cannot be compared"),
    ],
)
def test_sweeps_with_nothing_to_compare(answer: Answer, words: str) -> None:
    (sentence,) = sentences(Decision(answer, None))
    assert sentence.startswith(words)


def test_json_holds_everything() -> None:
    values = plain(to_json(Decision(SURE, HELD)))
    assert (values["trial"], values["default_is_answer"], values["default_runs"]) == (5, False, 2)
    assert [judged["trial"] for judged in values["judged"]] == [5, 2]
    assert values["held"]["difference"] == {"value": 0.0123, "low": 0.0021, "high": 0.0234, "n": 5983}
    assert values["held"]["runs"] == [5, 9]
    assert plain(to_json(Decision(UNSURE, None)))["default_is_answer"]


def test_no_probability_is_shown_as_certain() -> None:
    assert [chance(value) for value in (0.0001, 0.5, 0.754, 0.9999, math.nan)] == [
        "below 0.01", "0.50", "0.75", "above 0.99", "-"]  # fmt: skip
