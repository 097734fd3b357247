"""Priors: densities against scipy, draws against densities, modes, and domains without a prior."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from scipy import stats

from hpo.space.tree import Leaf
from search_spaces.domains import Domain, Float, Int, OneOf

RANGES = [
    Float(1e-5, 1e-3, log=True, prior=1e-4),
    Float(0.0, 0.3, prior=0.0),
    Float(0.0, 0.3, prior=0.3, sigma=0.05),
    Float(1e-3, 1.0, log=True, prior=1.0, sigma=3.0),
]
INTEGERS = [
    Int(1, 256, log=True, prior=8),
    Int(1, 3, prior=1),
    Int(2, 20, step=3, prior=11, sigma=0.3),
    Int(0, 5, prior=5, sigma=10.0),
]
CHOICES = [OneOf(8, 16, 32, weights=(1, 2, 1)), OneOf(1, True, "x", weights=(1, 5, 2)), OneOf("a", "b")]


def leaf(domain: Domain) -> Leaf:
    return Leaf("a", "a", domain)


def scale(domain: Float | Int, value: float) -> float:
    return math.log(value) if domain.log else value


def truncated(domain: Float | Int) -> stats.rv_continuous:
    """scipy's distribution of the prior on the domain's scale."""
    half = domain.step / 2 if isinstance(domain, Int) else 0.0
    assert domain.prior is not None
    centre = scale(domain, domain.prior)
    sigma = (domain.sigma or 0.2) * (scale(domain, domain.high) - scale(domain, domain.low))
    low, high = scale(domain, domain.low - half), scale(domain, domain.high + half)
    return stats.truncnorm((low - centre) / sigma, (high - centre) / sigma, centre, sigma)


def uniform(domain: Float | Int) -> stats.rv_continuous:
    half = domain.step / 2 if isinstance(domain, Int) else 0.0
    low, high = scale(domain, domain.low - half), scale(domain, domain.high + half)
    return stats.uniform(low, high - low)


@pytest.mark.parametrize("domain", RANGES, ids=str)
def test_a_range_has_the_density_of_a_truncated_normal_and_its_draws_too(domain: Float) -> None:
    prior, source = truncated(domain), Random(0)
    drawn = [leaf(domain).drawn(source) for _ in range(2000)]
    assert all(domain.low <= value <= domain.high for value in drawn)
    assert stats.kstest([scale(domain, value) for value in drawn], prior.cdf).pvalue > 0.01
    for value in [*drawn[:50], domain.low, domain.high]:
        place = scale(domain, value)
        expected = prior.logpdf(place) - uniform(domain).logpdf(place)
        assert leaf(domain).log_prior(value) == pytest.approx(expected, abs=1e-9)
    assert leaf(domain).mode == domain.prior


@pytest.mark.parametrize("domain", INTEGERS, ids=str)
def test_an_integer_has_the_probability_of_its_cell_and_its_draws_too(domain: Int) -> None:
    values = range(domain.low, domain.high + 1, domain.step)
    ends = [(scale(domain, value - domain.step / 2), scale(domain, value + domain.step / 2)) for value in values]
    expected = np.array([np.diff(truncated(domain).cdf(end))[0] for end in ends])
    assert expected.sum() == pytest.approx(1)
    for value, end, probability in zip(values, ends, expected, strict=True):
        against = probability / np.diff(uniform(domain).cdf(end))[0]
        assert leaf(domain).log_prior(value) == pytest.approx(math.log(max(against, 1e-300)), abs=1e-4)
    source = Random(0)
    drawn = Counter(leaf(domain).drawn(source) for _ in range(4000))
    assert drawn.keys() <= set(values)
    likely = expected > 0.002
    observed = np.array([drawn[value] for value in values])
    rest = np.array([4000 - observed[likely].sum() + 1])
    counts = np.append(observed[likely], rest)
    shares = np.append(expected[likely], 1 - expected[likely].sum() + 1 / 4000)
    assert stats.chisquare(counts, shares * counts.sum() / shares.sum()).pvalue > 0.01
    assert leaf(domain).mode == domain.prior


@pytest.mark.parametrize("domain", CHOICES, ids=repr)
def test_a_choice_has_its_weight(domain: OneOf) -> None:
    weights = np.array(domain.weights or [1.0] * len(domain.values))
    shares = weights / weights.sum()
    for choice, share in zip(domain.choices, shares, strict=True):
        assert leaf(domain).log_prior(choice) == pytest.approx(math.log(share * len(shares)))
    source = Random(0)
    drawn = [repr(leaf(domain).drawn(source)) for _ in range(4000)]
    assert stats.chisquare([drawn.count(repr(choice)) for choice in domain.choices], 4000 * shares).pvalue > 0.01
    assert leaf(domain).mode is domain.choices[int(np.argmax(shares))]


@pytest.mark.parametrize("domain", [Float(1e-4, 1.0, log=True), Float(-1.0, 1.0), Int(1, 64, log=True), Int(0, 6, 3)])
def test_a_range_without_a_prior_is_uniform_on_its_scale(domain: Float | Int) -> None:
    source = Random(0)
    drawn = [leaf(domain).drawn(source) for _ in range(4000)]
    assert all(leaf(domain).log_prior(value) == 0.0 for value in drawn)
    half = domain.step / 2 if isinstance(domain, Int) else 0.0
    middle = math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2
    middle = round(middle) + half if isinstance(domain, Int) else middle
    below = uniform(domain).cdf(scale(domain, middle))
    assert sum(value < middle for value in drawn) == pytest.approx(4000 * below, abs=4 * 32)
    assert leaf(domain).mode == leaf(domain).first() == domain.low


def test_a_density_far_from_a_narrow_prior_is_finite() -> None:
    for domain in (Float(0.0, 1.0, prior=0.0, sigma=1e-3), Int(0, 1000, prior=0, sigma=1e-3)):
        assert -1e7 < leaf(domain).log_prior(domain.high) < -600
        assert leaf(domain).drawn(Random(0)) <= 0.01 * domain.high


def test_a_wide_prior_is_uniform() -> None:
    domain = leaf(Float(1e-5, 1e-3, log=True, prior=1e-4, sigma=100))
    assert max(abs(domain.log_prior(value)) for value in (1e-5, 1e-4, 1e-3)) < 1e-4


def test_a_domain_with_one_value_draws_it() -> None:
    for domain in (Float(0.5, 0.5, prior=0.5), Int(3, 3, prior=3), OneOf("a", weights=(2,))):
        single = leaf(domain)
        assert single.constant
        assert single.drawn(Random(0)) == single.mode == single.first()
        assert single.log_prior(single.mode) == 0.0
