"""Sentences about sweeps that are compared."""

from __future__ import annotations

from dataclasses import replace

from hpo.display.compared import sentence
from hpo.driver.compare import Compared, Pair, Side
from results.estimates import Estimate

A = Side("a", 24, 2700, 43_392, 0, (0, 24), 0.66, (0.66,))
B = replace(A, sweep="b", runs=(0, 25))
PAIR = Pair("b", (0, 25), (0, 24), Estimate(0.0205, 0.0113, 0.0302, 5983))
FOUND = Compared((43_392,), (A, B), (PAIR,), {"adapter/kind": {"a": "none", "b": "lora"}}, {})


def test_a_difference_has_its_interval_and_a_verdict() -> None:
    assert sentence(FOUND, PAIR) == (
        "b minus a, held out: +0.0205 (+0.0113 .. +0.0302), 2 runs against 2, n = 5,983: b is better"
    )
    unsure = replace(PAIR, difference=Estimate(0.0061, -0.0036, 0.0163, 5983))
    assert sentence(FOUND, unsure).endswith(": no difference is shown")
    assert "b minus a, held out: unknown" in sentence(FOUND, replace(PAIR, difference=None))


def test_equal_configurations_are_no_better_than_each_other() -> None:
    equal = replace(FOUND, settings={"taper/sst/kind": {"a": "constant", "b": "constant", "c": "inverse"}})
    assert sentence(equal, PAIR).endswith(": budget and configuration are equal, so neither is better")
    longer = replace(equal, sides=(A, replace(B, budget=5400)))
    assert sentence(longer, PAIR).endswith(": b is better")
