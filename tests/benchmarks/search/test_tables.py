"""Tables and plot of stored runs: farthest runs, intervals, pairs by seed."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.common import missing
from benchmarks.search.tables import bootstrap, differences, gains, groups, plot, table


def row(engine: str, seed: int, gain: float, until: float = 12.0, **more: Any) -> dict[str, Any]:
    points = [point for point in (3, 6, 12, 24) if point <= until]
    answers = {f"{point}": {"gain": gain, "ruled": gain / 2, "trials": 5, "default": False} for point in points}
    return {"cell": "good/low/8", "engine": engine, "label": "", "seed": seed, "until": until, "answers": answers,
            "draw_ms": 1.0, **more}  # fmt: skip


ROWS = [row("a", seed, 0.001 * seed) for seed in range(4)] + [row("b", seed, 0.001 * seed - 0.002) for seed in range(4)]


def test_the_run_that_went_farthest_counts() -> None:
    rows = [row("a", 0, 0.5, until=24.0), row("a", 0, 0.1, until=6.0)]
    found = groups(rows)["good/low/8", "a"]
    assert gains(found.values(), "24") == [0.5]
    assert gains(found.values(), "24", "ruled") == [0.25]
    assert gains(found.values(), "50") == []


def test_an_ablation_has_a_name_of_its_own() -> None:
    assert list(groups([row("a", 0, 0.1, label="no priors")])) == [("good/low/8", "a (no priors)")]


def test_the_interval_holds_the_mean_and_shrinks_with_seeds() -> None:
    low, high = bootstrap([0.0, 1.0, 2.0, 3.0])
    wide = high - low
    assert low < 1.5 < high
    low, high = bootstrap([0.0, 1.0, 2.0, 3.0] * 25)
    assert high - low < wide / 3
    assert bootstrap([2.0, 2.0]) == (2.0, 2.0)


def test_the_table_has_a_line_for_each_engine() -> None:
    lines = table(ROWS).splitlines()
    assert len(lines) == 6
    assert "| best observed | +1.5 (" in lines[2] and "| rule | +0.8 (" in lines[3] and "| -0.5 (" in lines[4]


def test_differences_are_paired_by_seed() -> None:
    found = differences([*ROWS, row("a", 9, 0.5)], "good/low/8", "12")
    assert "| a | b | best observed | +2.0 (2.0 .. 2.0; 4) |" in found
    assert "| a | b | rule | +1.0 (1.0 .. 1.0; 4) |" in found
    assert len(differences(ROWS, "good/low/8", "24").splitlines()) == 2


def test_the_plot_has_a_line_and_bars_for_each_engine() -> None:
    root = ElementTree.fromstring(plot(ROWS, "good/low/8"))
    words = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"a", "b"} < set(words)
    assert sum("stroke-width" in node.attrib for node in root.iter()) == 2
    ElementTree.fromstring(plot([], "good/low/8"))


def test_stored_jobs_are_not_missing() -> None:
    jobs = [{"seed": 0, "cell": "x"}, {"seed": 1, "cell": "x"}]
    assert missing(jobs, [{"seed": 1, "cell": "x", "gain": 0.1}]) == jobs[:1]


@pytest.mark.parametrize("values", [[0.1], [0.1, 0.2]])
def test_one_seed_is_enough_for_a_table(values: list[float]) -> None:
    assert table([row("a", seed, value) for seed, value in enumerate(values)])
