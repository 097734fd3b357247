"""Tables on terminals of several widths, and the parameters of trials side by side."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

import search_spaces
from hpo.display import tables
from hpo.display.trials import event_rows, show_parameters
from hpo.space.source import load_space
from hpo.space.tree import expand, leaves
from hpo.space.tree import path_of as path_of_leaf
from minbert.tasks import DEFAULT_TASKS
from results.names import path_of

WIDE = 10_000
"""Width of a console that is no terminal: a file or a pipe."""


def drawn(rows: list[dict[str, Any]], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    show_parameters(rows, console)
    return console.export_text()


def trials(count: int, parameters: int) -> list[dict[str, Any]]:
    """Rows as `trial_records` makes them: parameters that differ, one that is the same, one that only trial 0 has."""
    rows = []
    for trial in range(count):
        rates = {f"optimizer/schedule/rate_{number}": (trial + 1) * (number + 1) / 3e4 for number in range(parameters)}
        first = {"adapter/targets": "query+key+value+intermediate+output"} if trial == 0 else {"adapter/targets": None}
        rows.append({"trial": trial, "params": {}, **rates, **first, "selection": "last"})
    return rows


@pytest.mark.parametrize("width", [80, 120])
def test_parameters_of_ten_trials_fit_the_terminal(width: int) -> None:
    text = drawn(trials(10, 30), width)
    assert max(map(len, text.splitlines())) <= width
    lines = [line.split() for line in text.splitlines()]
    for number in range(30):
        name = f"optimizer/schedule/rate_{number}"
        values = [value for line in lines if line[:1] == [name] for value in line[1:]]
        assert values == [tables.cell(row[name]) for row in trials(10, 30)], "whole names, and a value of each trial"
    headers = [line for line in lines if line[:2] == ["parameter", "trial"]]
    assert [int(word) for line in headers for word in line[2::2]] == list(range(10))
    assert "query+key+value+intermed\n" in drawn(trials(2, 1), 60).replace(" ", ""), "a long value goes on below"


def test_parameters_stand_in_one_table_where_there_is_no_terminal() -> None:
    text = drawn(trials(10, 30), WIDE)
    [header] = [line for line in text.splitlines() if line.startswith("parameter ") and "trial" in line]
    assert [f"trial {trial}" in header for trial in range(10)] == [True] * 10
    assert "query+key+value+intermediate+output" in text, "nothing is folded"
    assert "(continued)" not in text


def test_parameters_that_all_trials_share_are_shown_once() -> None:
    text = drawn(trials(10, 2), 80)
    differing, shared = text.split("parameters that are the same in all of them")
    assert "selection" not in differing
    assert shared.split()[-2:] == ["selection", "last"]
    assert text.count("adapter/targets") == 1, "a block names only what one of its trials has"


def test_parameters_of_a_single_trial_are_all_its_own() -> None:
    text = drawn(trials(1, 2), 80)
    assert text.startswith("its parameters\n")
    assert "same in all" not in text
    assert "selection" in text
    assert drawn([{"trial": 0, "params": {}}], 80) == "no parameter was drawn\n"


@pytest.mark.parametrize("width", [1, 30, 50, 200])
def test_blocks_hold_every_column_once_and_fit_where_that_is_possible(width: int) -> None:
    rows = [{"name": "n" * 10, **{f"c{number}": "x" * (number % 7 + 2) for number in range(20)}}]
    columns = list(rows[0])
    groups = tables.blocks(rows, columns, width)
    assert [name for group in groups for name in group[1:]] == columns[1:]
    assert all(group[0] == "name" for group in groups)
    for group in groups:
        needed = sum(len(rows[0][name]) for name in group) + tables.GAP * (len(group) - 1)
        assert needed <= width or len(group) == 2


@pytest.mark.parametrize("space", search_spaces.names())
def test_the_store_and_the_search_agree_on_the_path_of_a_name(space: str) -> None:
    """`results` may not import `hpo`, so each has the rule; both must give the path in the configuration."""
    space_leaves = leaves(expand(load_space(space), list(DEFAULT_TASKS)))
    assert [path_of(leaf.name) for leaf in space_leaves] == [leaf.path for leaf in space_leaves]
    assert [path_of_leaf(leaf.name) for leaf in space_leaves] == [leaf.path for leaf in space_leaves]


def test_a_later_end_of_an_attempt_tells_of_its_weights() -> None:
    empty = dict.fromkeys(("state", "cause", "place", "reason", "checkpoint"))
    start, end = empty | {"event": "start", "time": 0.0}, empty | {"event": "end", "time": 1.0}
    pruned = end | {"state": "pruned", "reason": "rank 2 of 2", "checkpoint": "0-300"}
    events = [start, end | {"state": "lost"}, start, pruned, pruned | {"checkpoint": None}]
    rows = event_rows([event | {"attempt": attempt} for attempt, event in zip((0, 0, 1, 1, 1), events, strict=True)])
    shown = [(row["attempt"], row["event"], row["state"], row["reason"], row["weights"]) for row in rows]
    assert shown == [
        (0, "start", "", "", ""),
        (0, "end", "lost", "", ""),
        (1, "start", "", "", ""),
        (1, "end", "pruned", "rank 2 of 2", "0-300"),
        (1, "weights", "", "its weights are no longer kept", ""),
    ]
