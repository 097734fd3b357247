"""Responses: what configurations of a space are worth, drawn anew for each seed. The table RESPONSES holds all kinds.

A response gives a configuration's true score at full budget less that of the default configuration. It is a sum over
the parameters that the configuration has:

    score(x) - score(default) = sum over p of effect_p(x_p),    effect_p(default) = 0

Effects above 0 are gains. They are scaled together until the best configuration of the space is `gap` above the
default; effects below 0, harm, stay as drawn.

good         the default is good: means of the effects are half of what `docs/techniques.md` measured, 4 in 5 parameters
             keep a tenth of their gains, and the gap is 0.01 to 0.04
optimal      as good, but no change gains anything: gap 0
poor         effects on both sides of 0, with a deviation of 0.015 over uniform draws, 60 to 90 % of which beat the
             default
interacting  as good, but gains come in pairs of parameters: one without the other costs half of what it would gain
generic      all parameters matter a little, gains and harm are equally likely; the gap is 0.01 to 0.04
fitted       as good, with effects drawn from their posterior after the trials of a real sweep; see
             `benchmarks.search.fitting`

A parameter that several branches have at one path with one domain has the same effect in all of them.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from hpo.space.pins import Complete
from hpo.space.space import Space
from hpo.space.tree import Leaf, compose, nest
from search_spaces.domains import OneOf

GAP = (0.01, 0.04)
"""Gap between the default and the best configuration, uniform."""
SHRUNK = 0.5
"""Factor on the measured means: they come from short runs against an older default."""
SPARSE = 0.8
"""Share of the parameters that keep a tenth of their gains."""
KEPT = 0.1
SPREAD = 0.003
"""Least standard deviation of an effect around its mean; above, a quarter of the mean."""
POOR_DEVIATION = 0.015
POOR_SHARE = (0.6, 0.9)
"""Share of uniform draws that beat a poor default."""

CHOICES: Mapping[str, float] = {
    "adapter/kind=frozen": -0.164,
    "adapter/kind=lora": -0.078,
    "adapter/kind=dora": -0.077,
    "adapter/kind=pal": -0.074,
    "adapter/encoder=trained": 0.073,
    "adapter/targets=query+key": -0.068,
    "adapter/targets=query+key+value": 0.015,
    "adapter/targets=all linear": 0.065,
    "adapter/heads=lora": -0.0145,
    "adapter/layers/kind=top": -0.05,
    "stages/*": -0.001,
    "augmentation/kind=edit": -0.006,
    "average/kind=exponential": -0.002,
    "encoding/qqp/kind=bi": -0.045,
    "encoding/sts/kind=bi": -0.09,
    "encoding/*/features=sum": 0.002,
    "encoding/*/features=product": 0.010,
    "encoding/*/features=difference": 0.050,
    "encoding/*/head/cosine=added": 0.012,
    "encoding/sts/head/kind=cosine": 0.100,
    "encoding/sts/head/kind=cosine_embedding": 0.110,
    "encoding/sts/head/transform=sigmoid": -0.070,
    "encoding/*/pooling=cls": -0.005,
    "encoding/*/pooling=pooler": -0.006,
    "encoding/*/pooling=max": -0.007,
    "shared_head/kind=linear": -0.0045,
    "mixing/kind=round_robin": 0.020,
    "mixing/kind=alpha": 0.012,
    "mixing/kind=annealed": 0.010,
    "mixing/kind=sequential": -0.077,
    "mixing/upweight/*": 0.010,
    "mixing/combine/kind=pcgrad": -0.0025,
    "mixing/combine/kind=gse": 0.0096,
    "mixing/balance/kind=uncertainty": 0.0076,
    "mixing/balance/kind=gradnorm": 0.0158,
    "regularizer/sst/kind=smart": 0.0,
    "regularizer/qqp/kind=smart": -0.030,
    "regularizer/sts/kind=smart": -0.011,
    "proximal/kind=bregman": 0.004,
    "taper/*/kind=*": -0.003,
    "optimizer/accumulation=2": -0.035,
    "optimizer/schedule/kind=constant": 0.004,
    "optimizer/schedule/kind=cosine": -0.0074,
}
"""`path=choice` (patterns) -> mean effect, from the table "Measured" of `docs/techniques.md`; 0 for all others."""
RANGES: Mapping[str, float] = {
    "optimizer/encoder_lr": 0.12,
    "optimizer/adapter_lr": 0.06,
    "optimizer/head_lr": 0.03,
    "optimizer/layer_decay": 0.018,
    "optimizer/weight_decay": 0.002,
    "adapter/rank": 0.03,
    "adapter/alpha": 0.02,
    "dropout/hidden": 0.07,
    "dropout/attention": 0.035,
    "dropout/head": 0.015,
    "regularizer/*/weight": 0.03,
}
"""Path (pattern) -> mean loss at the end of a numeric range that is farther from the default; RANGE for all others."""
RANGE = 0.01


@dataclass(frozen=True)
class Choice:
    """Effects of a categorical parameter."""

    effects: Mapping[Any, float]
    """Choice -> effect; the default's is 0."""

    def __call__(self, choice: Any) -> float:
        return self.effects[choice]

    def top(self) -> float:
        return max(self.effects.values())


@dataclass(frozen=True)
class Parabola:
    """Effect of a numeric parameter at the position u of its (log) range, 0 <= u <= 1:

    c ((default - best)^2 - (u - best)^2)
    """

    low: float
    high: float
    log: bool
    default: float
    """Position of the default."""
    best: float
    """Position of the best value."""
    curvature: float
    """c."""

    def __call__(self, choice: float) -> float:
        u = position(choice, self.low, self.high, self.log)
        return self.curvature * ((self.default - self.best) ** 2 - (u - self.best) ** 2)

    def top(self) -> float:
        return self.curvature * (self.default - self.best) ** 2


Effect = Choice | Parabola
Key = tuple[str, str]
"""What decides an effect: a parameter's path and its values."""


def position(value: float, low: float, high: float, log: bool) -> float:
    """Position of a value in its range, 0 at the low end and 1 at the high end."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def key_of(leaf: Leaf) -> Key:
    domain = leaf.domain
    values = domain.choices if isinstance(domain, OneOf) else (domain.low, domain.high)
    return leaf.path, "|".join(map(str, values))


@dataclass(frozen=True)
class Plan:
    """A space as responses need it: its drawn parameters, each with the choice that counts as its default."""

    leaves: tuple[Leaf, ...]
    """All leaves of the space, constants included."""
    defaults: Mapping[str, Any]
    """Leaf's name -> the default configuration's choice, or that of its branch where the default lacks the leaf."""

    @staticmethod
    def of(space: Space, complete: Complete) -> Plan:
        default = space.parameters(space.apply({}, complete), complete)
        drawn = [leaf for leaf in space.leaves if not leaf.constant]
        return Plan(space.leaves, {leaf.name: default.get(leaf.name, _usual(leaf, complete)) for leaf in drawn})

    @cached_property
    def keyed(self) -> dict[Key, Leaf]:
        """The first leaf of each key."""
        found: dict[Key, Leaf] = {}
        for leaf in self.leaves:
            if leaf.name in self.defaults:
                found.setdefault(key_of(leaf), leaf)
        return found


def _usual(leaf: Leaf, complete: Complete) -> Any:
    """The choice that a configuration with just the leaf's branches takes; the middle of the domain if there is
    none."""
    domain = leaf.domain
    try:
        value: Any = complete(nest(dict(leaf.conditions)))
        for key in leaf.path.split("/"):
            value = value[key]
        return leaf.choice(value)
    except (ValueError, KeyError, TypeError):
        if isinstance(domain, OneOf):
            return domain.choices[0]
        return math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2


@dataclass(frozen=True)
class Response:
    """Scores of configurations, less the default's."""

    plan: Plan
    effects: Mapping[Key, Effect]
    kept: Mapping[Key, float] = field(default_factory=dict)
    """Factor on the gains of a parameter; 1 for the others."""
    scale: float = 1.0
    """Factor on all gains."""
    partners: Mapping[Key, Key] = field(default_factory=dict)
    """Parameters that gain only together."""

    @cached_property
    def _keys(self) -> dict[str, Key]:
        return {leaf.name: key_of(leaf) for leaf in self.plan.leaves}

    def _gained(self, key: Key, effect: float) -> float:
        return effect * self.kept.get(key, 1.0) * self.scale if effect > 0 else effect

    def parts(self, params: Mapping[str, Any]) -> dict[Key, float]:
        """Parameter -> its part of the score; `params` are by Optuna's names, without constants."""
        found: dict[Key, float] = {}
        for name, value in params.items():
            key = self._keys[name]
            found[key] = self._gained(key, self.effects[key](value))
        for key, partner in self.partners.items():
            if found.get(key, 0.0) > 0 and found.get(partner, 0.0) <= 0:
                found[key] *= -0.5
        return found

    def score(self, params: Mapping[str, Any]) -> float:
        """True score at full budget less the default's."""
        return sum(self.parts(params).values())

    def gap(self) -> float:
        """Score of the best configuration of the space less the default's, exact: parameters add up, and both
        partners of a pair exist in every configuration."""
        groups: dict[tuple[tuple[str, str], ...], list[Leaf]] = {}
        for leaf in self.plan.leaves:
            groups.setdefault(leaf.conditions, []).append(leaf)

        def best(conditions: tuple[tuple[str, str], ...]) -> float:
            return sum(best_of(leaf) for leaf in groups.get(conditions, ()))

        def best_of(leaf: Leaf) -> float:
            key = key_of(leaf)
            if leaf.is_kind:
                effect = self.effects.get(key, Choice(dict.fromkeys(leaf.domain.choices, 0.0)))
                return max(self._gained(key, effect(kind)) + best((*leaf.conditions, (leaf.path, kind)))
                           for kind in leaf.domain.choices)
            return 0.0 if leaf.constant else max(0.0, self._gained(key, self.effects[key].top()))

        return best(())

    def with_gap(self, gap: float) -> Response:
        """The response with its gains scaled so that its gap is this one, or the nearest that scaling reaches."""
        low, high = 0.0, 1.0
        while replace(self, scale=high).gap() < gap and high < 1e6:
            low, high = high, 2 * high
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if replace(self, scale=middle).gap() < gap else (low, middle)
        return replace(self, scale=high)


def uniform(plan: Plan, rng: random.Random) -> dict[str, Any]:
    """Parameters of a uniform draw, whatever the priors are."""
    return compose(plan.leaves, lambda leaf: leaf.random(rng))[1]


def mean_of(table: Mapping[str, float], name: str, otherwise: float) -> float:
    return next((mean for pattern, mean in table.items() if fnmatchcase(name, pattern)), otherwise)


def measured_effect(leaf: Leaf, default: Any, rng: random.Random) -> Effect:
    """An effect drawn around what was measured of the parameter."""
    domain = leaf.domain
    if isinstance(domain, OneOf):
        means = {choice: SHRUNK * mean_of(CHOICES, f"{leaf.path}={choice}", 0.0) for choice in domain.choices}
        return Choice({choice: 0.0 if choice == default else rng.gauss(mean, max(SPREAD, abs(mean) / 4))
                       for choice, mean in means.items()})
    loss = mean_of(RANGES, leaf.path, RANGE) * math.exp(rng.gauss(0, 0.5))
    return _parabola(leaf, default, loss, 0.15, rng)


def _parabola(leaf: Leaf, default: float, loss: float, deviation: float, rng: random.Random) -> Parabola:
    """A parabola that loses about `loss` at the end that is farther from the default, with its top `deviation` (sd)
    from it."""
    domain = leaf.domain
    start = position(default, domain.low, domain.high, domain.log)
    best = min(1.0, max(0.0, rng.gauss(start, deviation)))
    return Parabola(domain.low, domain.high, domain.log, start, best, loss / max(start, 1 - start) ** 2)


def even_effect(leaf: Leaf, default: Any, rng: random.Random) -> Effect:
    """An effect of a size that all parameters share, of either sign."""
    domain = leaf.domain
    if isinstance(domain, OneOf):
        return Choice({choice: 0.0 if choice == default else rng.gauss(0, SPREAD) for choice in domain.choices})
    start = position(default, domain.low, domain.high, domain.log)
    return Parabola(domain.low, domain.high, domain.log, start, rng.random(), 2 * SPREAD)


def _effects(
    plan: Plan, rng: random.Random, draw: Callable[[Leaf, Any, random.Random], Effect]
) -> dict[Key, Effect]:
    return {key: draw(leaf, plan.defaults[leaf.name], rng) for key, leaf in plan.keyed.items()}


def sparse(effects: Mapping[Key, Effect], rng: random.Random) -> dict[Key, float]:
    """Factor on each parameter's gains."""
    return {key: KEPT if rng.random() < SPARSE else 1.0 for key in effects}


def good(plan: Plan, rng: random.Random) -> Response:
    effects = _effects(plan, rng, measured_effect)
    return Response(plan, effects, sparse(effects, rng)).with_gap(rng.uniform(*GAP))


def optimal(plan: Plan, rng: random.Random) -> Response:
    return replace(good(plan, rng), scale=0.0)


def poor(plan: Plan, rng: random.Random) -> Response:
    """Effects are drawn until the default has its place among 200 uniform draws, at most 1,000 times."""
    draws = [uniform(plan, rng) for _ in range(200)]
    for _ in range(1000):
        response = Response(plan, _effects(plan, rng, even_effect))
        scores = [response.score(draw) for draw in draws]
        if POOR_SHARE[0] <= sum(score > 0 for score in scores) / len(scores) <= POOR_SHARE[1]:
            factor = POOR_DEVIATION / statistics.pstdev(scores)
            return replace(response, effects={key: _times(effect, factor) for key, effect in response.effects.items()})
    raise ValueError("`poor`: no response was drawn in which 60 to 90 % of uniform draws beat the default.")


def _times(effect: Effect, factor: float) -> Effect:
    if isinstance(effect, Choice):
        return Choice({choice: factor * value for choice, value in effect.effects.items()})
    return replace(effect, curvature=factor * effect.curvature)


def interacting(plan: Plan, rng: random.Random) -> Response:
    response = good(plan, rng)
    everywhere = [key for key, leaf in plan.keyed.items() if not leaf.conditions and not leaf.is_kind]
    everywhere += [key for key, leaf in plan.keyed.items() if not leaf.conditions and leaf.is_kind]
    able = [key for key in everywhere if response.effects[key].top() > 0]
    rng.shuffle(able)
    pairs = list(zip(able[::2], able[1::2], strict=False))
    return replace(response, partners={**dict(pairs), **{second: first for first, second in pairs}})


def generic(plan: Plan, rng: random.Random) -> Response:
    return Response(plan, _effects(plan, rng, even_effect)).with_gap(rng.uniform(*GAP))


RESPONSES: Mapping[str, Callable[[Plan, random.Random], Response]] = {
    "good": good,
    "optimal": optimal,
    "poor": poor,
    "interacting": interacting,
    "generic": generic,
}
"""Every kind of response by its name."""
NAMES: Sequence[str] = tuple(RESPONSES)
