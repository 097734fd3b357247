"""States of a trial, identity of a configuration, ranking of trials."""

from __future__ import annotations

import hashlib
import json
import math
import random
from typing import Any

import pytest

from hpo.search.states import (
    CLOSED,
    INTERRUPTIONS,
    STATES,
    UNRANKED,
    Start,
    State,
    TrialRecord,
    configuration_id,
    ranking,
    sharing,
)
from hpo.search.study import OPTUNA_STATES


def test_a_trial_is_open_or_closed() -> None:
    assert ("running", "waiting", *CLOSED) == STATES
    assert not set(INTERRUPTIONS) & set(STATES), "an interrupted attempt leaves its trial waiting"
    assert set(CLOSED) >= UNRANKED
    assert tuple(OPTUNA_STATES) == CLOSED


def test_a_configuration_s_identity_is_the_hash_of_its_canonical_json() -> None:
    text = '{"adapter":{"kind":"lora","rank":4},"x":0.25}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert configuration_id({"x": 0.25, "adapter": {"rank": 4, "kind": "lora"}}) == expected
    assert configuration_id({"x": 0.5, "adapter": {"rank": 4, "kind": "lora"}}) != expected
    assert configuration_id({}) == "44136fa355b3678a", "stored sweeps depend on it"


def test_a_number_that_json_cannot_hold_has_no_identity() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        configuration_id({"x": math.nan})


def test_configurations_share_what_is_exactly_equal() -> None:
    known = {"x": 1, "flag": True, "nothing": None, "rate": 0.1, "adapter": {"kind": "lora", "on": ["query", 1]}}
    cases = [
        known,
        {"x": 2, "flag": True, "nothing": None, "rate": 0.1, "adapter": {"kind": "lora", "on": ["query", 1]}},
        {"x": 1.0, "flag": 1, "nothing": {}, "rate": 0.2, "adapter": {"kind": "lora", "on": ["query", True]}},
        {"adapter": {"on": ["query", 1], "kind": "lora"}, "other": {"x": 1}},
        {"x": math.nan, "adapter": "lora"},
        {},
    ]
    for config in cases:
        own = json.loads(json.dumps(config))
        assert json.dumps(sharing(own, known)) == json.dumps(config), "the same JSON text, types and order included"
    own = json.loads(json.dumps(cases[1]))
    assert sharing(own, known)["adapter"] is known["adapter"]
    assert sharing(json.loads(json.dumps(known)), known) is known


def record(state: State, **values: Any) -> TrialRecord:
    trial = TrialRecord(Start(0, 0, {}, {}, 0, "sampler", ""), state)
    trial.values = {int(step.removeprefix("at_")): value for step, value in values.items()}
    return trial


def test_the_ranking_goes_by_the_last_step_then_the_value_then_age() -> None:
    trials = {
        5: record("complete", at_100=0.9, at_300=0.4),
        4: record("running", at_100=0.8, at_300=0.5),
        3: record("pruned", at_100=0.9),
        2: record("pruned", at_100=0.7),
        6: record("waiting", at_100=0.9),
        1: record("failed", at_100=0.99, at_300=0.99),
        0: record("diverged", at_100=0.99, at_300=math.nan),
        7: record("running"),
        8: record("running", at_300=math.nan),
    }
    assert ranking(trials) == [4, 5, 3, 6, 2]
    shuffled = list(trials.items())
    random.Random(0).shuffle(shuffled)
    assert ranking(dict(shuffled)) == [4, 5, 3, 6, 2]
