"""Domains: an invalid domain is refused when it is created, with the rule and the value found."""

from __future__ import annotations

import re
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
        (lambda: Float(0.0, 1.0, prior=2.0), "`prior` must be within 0 .. 1, not 2.0"),
        (lambda: Float(0.0, 1.0, prior=float("nan")), "`prior` must be a finite number, not nan"),
        (lambda: Float(1e-3, 1.0, log=True, sigma=0), "`sigma` must be above 0, in units of the log range, not 0"),
        (lambda: Float(0.0, 1.0, sigma=True), "`sigma` must be a finite number, not True"),
        (lambda: Int(1, 8, prior=2.5), "`prior` must be an integer, not 2.5"),  # type: ignore[arg-type]
        (lambda: Int(1, 9, step=4, prior=4), "`prior` must be a number of steps of 4 above 1, not 4"),
        (lambda: OneOf(8, 16, weights=(1,)), "one number for each of its 2 choices (8, 16), not 1"),
        (lambda: OneOf(8, 16, weights=(1, 0)), "`weights` must be above 0, not 0; leave out a choice instead"),
        (lambda: OneOf(8, 16, weights=(1, "2")), "`weights` must be a finite number, not '2'"),  # type: ignore[arg-type]
        (lambda: OneOf(8, 16, weights={"8": 1}), "one number for each choice, in their order"),  # type: ignore[arg-type]
        (lambda: OneOf(8, 16, weights=1.0), "the default's share, above 0 and below 1, not 1.0"),
        (lambda: Kind(none={}, lora={}, weights={"none": 1}), "for each of none, lora, or one number, found none"),
        (lambda: Kind(none={}, weights={}), "cannot be the name of a branch"),
        (lambda: Kind(none={}, weights={"lr": Float(0, 1)}), "cannot be the name of a branch"),
        (lambda: Kind(none={}, lora={}, weights=(1, 2)), "cannot be the name of a branch"),  # type: ignore[arg-type]
        (lambda: Kind(none={}, lora={}, weights=2), "the default's share, above 0 and below 1, not 2"),
    ],
)
def test_a_domain_that_cannot_be_drawn_from_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(message)):
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


@pytest.mark.parametrize(
    ("domain", "shown", "written"),
    [
        (Float(1e-5, 1e-3, log=True), "1e-05 .. 0.001 (log)", "Float(1e-05, 0.001, log=True)"),
        (Float(0.0, 0.3, prior=0.1), "0 .. 0.3, about 0.1", "Float(0.0, 0.3, prior=0.1)"),
        (Float(0.0, 0.3, prior=0.1, sigma=0.2), "0 .. 0.3, about 0.1", "Float(0.0, 0.3, prior=0.1, sigma=0.2)"),
        (Float(0.0, 0.3, sigma=0.5), "0 .. 0.3", "Float(0.0, 0.3, sigma=0.5)"),
        (Int(1, 64, log=True, prior=8, sigma=0.5), "1 .. 64 (log), about 8 (sigma 0.5)",
         "Int(1, 64, log=True, prior=8, sigma=0.5)"),
        (Int(0, 8, 4), "0 .. 8 step 4", "Int(0, 8, step=4)"),
        (OneOf("a", "b", weights=(3, 1)), "a 75 % | b 25 %", "OneOf('a', 'b', weights=(3.0, 1.0))"),
        (OneOf("a", "b", weights=0.8), "a | b (default 80 %)", "OneOf('a', 'b', weights=0.8)"),
        (OneOf(labels={"x": 1}, weights=(3,)), "x", "OneOf(labels={'x': 1}, weights=(3.0,))"),
        (Kind(none={}, lora={}, weights={"lora": 3, "none": 1}), "none 25 % | lora 75 %", None),
    ],
)  # fmt: skip
def test_priors_are_shown_and_written_as_in_a_space(domain: Any, shown: str, written: str | None) -> None:
    assert str(domain) == shown
    if written is not None:
        assert repr(domain) == written
        assert eval(written, {"Float": Float, "Int": Int, "OneOf": OneOf}) == domain  # noqa: S307 (our own text)


def test_choices_that_become_equal_share_the_weights_of_both() -> None:
    domain = OneOf(labels={"small": [1, 2], "large": [1, 3], "other": [4]}, weights=(1, 2, 4))
    cut = domain.changed({"small": [1], "large": [1], "other": [4]})
    assert cut == OneOf(labels={"small": [1], "other": [4]}, weights=(3, 4))
    assert domain.changed({"large": [1, 3]}) == OneOf(labels={"large": [1, 3]}, weights=(2,))
    assert OneOf(1, 2, weights=0.7).changed({"1": 3, "2": 4}).share == 0.7
    kind = Kind(none={}, lora={}, dora={}, weights={"none": 1, "lora": 2, "dora": 3})
    assert kind.changed({"lora": {"rank": Int(1, 4)}, "dora": {}}).weights == {"lora": 2, "dora": 3}
