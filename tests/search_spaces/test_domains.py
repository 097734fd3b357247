"""Domains: an invalid domain is refused when it is created, with the rule and the value found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search_spaces.domains import Float, Int, Kind, OneOf, SpaceError, same


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Float(1.0, 0.5), "`low` must be at most `high`, but 1.0 > 0.5"),
        (lambda: Float(0.0, 1.0, log=True), "with log=True `low` must be above 0, not 0.0"),
        (lambda: Float("1e-3", 1.0), "`low` must be a finite number, not '1e-3'"),  # type: ignore[arg-type]
        (lambda: Float(0.0, float("inf")), "`high` must be a finite number, not inf"),
        (lambda: Float(False, 1.0), "`low` must be a finite number, not False"),
        (lambda: Int(1.0, 8), "`low` must be an integer, not 1.0"),  # type: ignore[arg-type]
        (lambda: Int(1, 8, step=2), "divide high - low = 7, not 2"),
        (lambda: Int(8, 16, step=4, log=True), "`step` must be 1 with log=True"),
        (lambda: OneOf(), "at least one value"),
        (lambda: OneOf(8, 16, 8), "8 is given twice"),
        (lambda: OneOf(1, 1.0), "1.0 is given twice"),
        (lambda: OneOf(object()), "must be JSON"),
        (lambda: OneOf(float("nan")), "must be JSON"),
        (lambda: OneOf({"a": 1, "b": 2}, {"b": 1, "a": 2}), "have the same label '1/2'"),
        (lambda: OneOf(8, labels={"eight": 8}), "not both"),
        (lambda: Kind(), "at least one branch"),
        (lambda: Kind(lora=8), "branch `lora` must be a dict of its parameters"),  # type: ignore[arg-type]
        (lambda: Kind(**{"a.b": {}}), "not 'a.b'"),
        (lambda: Kind(lora={"kind": OneOf("x")}), "must not hold `kind`"),
    ],
)
def test_a_domain_that_cannot_be_drawn_from_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message.replace("(", r"\(").replace("|", r"\|")):
        build()


def test_composite_values_have_labels_and_are_returned_as_json() -> None:
    targets = OneOf(("query", "value"), ("query", "key"))
    assert targets.choices == ("query+value", "query+key")
    assert targets.value("query+key") == ["query", "key"]
    assert targets.choice(["query", "value"]) == "query+value"
    sizes = OneOf({"sst": 3, "qqp": 32, "sts": 2}, {"sst": 16, "qqp": 32, "sts": 16})
    assert sizes.choices == ("3/32/2", "16/32/16")
    assert sizes.choice({"sts": 2, "sst": 3, "qqp": 32}) == "3/32/2"
    assert OneOf(labels={"all": ["a", "b"], "one": ["a"]}).choices == ("all", "one")
    assert OneOf(8, 16).choices == (8, 16)
    assert OneOf(None, True, 1.5, "x").choices == (None, True, 1.5, "x")


def test_callers_cannot_change_a_value_of_the_space() -> None:
    domain = OneOf(["a"], ["b"])
    domain.value("a").append("changed")
    assert domain.value("a") == ["a"]


def test_an_unknown_value_names_what_is_accepted() -> None:
    with pytest.raises(SpaceError, match="12 is none of 8, 16"):
        OneOf(8, 16).choice(12)


def test_true_is_not_one_but_sixteen_is_sixteen_point_zero() -> None:
    assert same(16, 16.0)
    assert same({"a": [1, 2]}, {"a": [1, 2.0]})
    assert not same(True, 1)
    assert not same({"a": 1}, {"a": 1, "b": 2})
    assert not same([1], [1, 2])
    assert len(OneOf(True, 1).values) == 2
