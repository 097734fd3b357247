"""Priors of domains: draws, densities, modes. A domain without a prior is uniform on its scale.

The prior of a range is a normal around its centre m, truncated to the domain, on its linear or logarithmic scale:

    p(x) = phi((x - m) / s) / (s Z),   Z = Phi((b - m) / s) - Phi((a - m) / s),   a <= x <= b,   s = sigma (high - low)

An integer k has the probability of the cell from half a step below it to half a step above it, so that [a, b] is half a
step wider at both ends than the domain (as Optuna draws integers). A choice has the probability that its weight gives
it.
"""

from __future__ import annotations

import math
import random
import sys
from statistics import NormalDist
from typing import Any

from search_spaces.domains import SIGMA, Domain, Float, Int, OneOf, same

_NORMAL = NormalDist()


def drawn(domain: Domain, source: random.Random) -> Any:
    """A draw from the prior."""
    if isinstance(domain, OneOf):
        return source.choices(domain.choices, domain.weights)[0]
    low, high = _ends(domain)
    if domain.prior is None or domain.low == domain.high:
        return _from_scale(domain, source.uniform(low, high))
    centre, sigma = _centre(domain), _deviation(domain)
    shares = _NORMAL.cdf((low - centre) / sigma), _NORMAL.cdf((high - centre) / sigma)
    share = min(max(source.uniform(*shares), sys.float_info.min), 1 - sys.float_info.epsilon)  # 0 < share < 1
    return _from_scale(domain, centre + sigma * _NORMAL.inv_cdf(share))


def log_prior(domain: Domain, choice: Any) -> float:
    """Log of the prior's density at a choice over that of the uniform density on the domain's scale.

    0.0 everywhere without a prior; for choices log(weight * number of choices), with weights that sum to 1. Finite also
    where the density is smaller than the smallest float.
    """
    if isinstance(domain, OneOf):
        weight = weight_of(domain, choice)
        return math.log(weight * len(domain.values))
    if domain.prior is None or domain.low == domain.high:
        return 0.0
    low, high = _ends(domain)
    centre, sigma = _centre(domain), _deviation(domain)
    mass = _mass((low - centre) / sigma, (high - centre) / sigma)
    if isinstance(domain, Int):
        below, above = _cell(domain, choice)
        share = max(_mass((below - centre) / sigma, (above - centre) / sigma), sys.float_info.min)
        return math.log(share / mass) - math.log((above - below) / (high - low))
    z = (_scaled(domain, choice) - centre) / sigma
    return -z * z / 2 - math.log(sigma * math.sqrt(2 * math.pi) * mass / (high - low))


def mode(domain: Domain) -> Any:
    """The centre of a range's prior, or the heaviest choice; without a prior the lowest value or the first choice."""
    if isinstance(domain, OneOf):
        return max(domain.choices, key=lambda choice: weight_of(domain, choice))
    centre = domain.low if domain.prior is None else domain.prior
    return float(centre) if isinstance(domain, Float) else centre


def weight_of(domain: OneOf, choice: Any) -> float:
    """The probability of a choice under the prior."""
    weights = domain.weights or (1.0,) * len(domain.values)
    share = sum(weight for weight, other in zip(weights, domain.choices, strict=True) if same(other, choice))
    return share / sum(weights)


def _mass(below: float, above: float) -> float:
    """Probability of a standard normal between two values, precise in both tails."""
    below, above = (-above, -below) if below > 0 else (below, above)
    return _NORMAL.cdf(above) - _NORMAL.cdf(below)


def _scaled(domain: Float | Int, value: float) -> float:
    return math.log(value) if domain.log else float(value)


def _centre(domain: Float | Int) -> float:
    assert domain.prior is not None
    return _scaled(domain, domain.prior)


def _deviation(domain: Float | Int) -> float:
    sigma = SIGMA if domain.sigma is None else domain.sigma
    return sigma * (_scaled(domain, domain.high) - _scaled(domain, domain.low))


def _ends(domain: Float | Int) -> tuple[float, float]:
    """Ends of the domain on its scale; those of an integer range include the half steps."""
    if isinstance(domain, Int):
        return _cell(domain, domain.low)[0], _cell(domain, domain.high)[1]
    return _scaled(domain, domain.low), _scaled(domain, domain.high)


def _cell(domain: Int, value: int) -> tuple[float, float]:
    """Ends of an integer's cell on the domain's scale."""
    return _scaled(domain, value - domain.step / 2), _scaled(domain, value + domain.step / 2)


def _from_scale(domain: Float | Int, place: float) -> Any:
    """The domain's value at a place on its scale."""
    value = math.exp(place) if domain.log else place
    if isinstance(domain, Int):
        value = domain.low + domain.step * round((value - domain.low) / domain.step)
    return min(max(value, domain.low), domain.high)
