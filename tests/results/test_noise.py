"""Noise of one run, and means that cannot be told apart."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from results.noise import SPREAD, WEIGHT, Z, alike, pooled


def test_without_repeats_the_noise_is_what_was_measured_before() -> None:
    assert pooled([]) == pytest.approx(SPREAD)
    assert pooled([[0.7], [0.5], []]) == pytest.approx(SPREAD)


def test_the_pooled_noise_is_the_closed_form() -> None:
    groups = [[0.70, 0.72, 0.71], [0.60, 0.64], [0.5]]
    squares = sum((len(values) - 1) * statistics.variance(values) for values in groups if len(values) > 1)
    assert pooled(groups) == pytest.approx(math.sqrt((WEIGHT * SPREAD**2 + squares) / (WEIGHT + 3)))


@pytest.mark.parametrize("noise", [0.004, 0.016])
def test_many_repeats_outweigh_what_was_measured_before(noise: float) -> None:
    rng = random.Random(0)
    groups = [[rng.gauss(place, noise) for _ in range(3)] for place in range(200)]
    assert pooled(groups) == pytest.approx(noise, rel=0.1)


def test_means_are_alike_within_the_noise_of_their_difference() -> None:
    assert alike(0.9 * Z * 0.01 * math.sqrt(2), 1, 1, 0.01)
    assert not alike(-1.1 * Z * 0.01 * math.sqrt(2), 1, 1, 0.01)
    assert not alike(0.9 * Z * 0.01 * math.sqrt(2), 3, 3, 0.01), "more runs tell more"
