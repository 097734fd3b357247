"""From a space, settings and tasks, as somebody gives them, to the pinned space of a run.

All of it is checked that needs no configuration, so neither torch nor data: keys, domains, names of tasks, spelling of
pins. `Space.check` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.space.mistakes import refuse
from hpo.space.pins import read_pins
from hpo.space.shape import sound
from hpo.space.source import load_space
from hpo.space.space import Space
from hpo.space.tasks import alone, restrict
from hpo.space.tree import written_out
from minbert.tasks import TASKS
from search_spaces.domains import Node, SpaceError


@dataclass(frozen=True)
class Built:
    """The space of a run, and what was left out of the given one."""

    space: Space
    left_out: tuple[str, ...]
    """Parts that only concern tasks which the run does not have."""
    notes: tuple[str, ...]
    """Sentences for the person who launches."""


def build(given: str | Path | Mapping[str, Node], tasks: Sequence[str], settings: Sequence[str] = ()) -> Built:
    """The pinned space over a run's tasks. Raises SpaceError, with all mistakes of the tree at once, or ConfigError."""
    legal, mistakes = sound(load_space(given))
    used, left_out = restrict(legal, TASKS.keys() - set(tasks))
    used, notes = _unmixed(used, tasks)
    tree, more = written_out(used, tasks)
    refuse([*mistakes, *more])
    return Built(Space(tree, read_pins(settings)), left_out, notes)


def _unmixed(space: dict[str, Node], tasks: Sequence[str]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space without what one task makes meaningless, and a note on it."""
    if len(tasks) > 1:
        return space, ()
    kept, out = alone(space)
    if not kept and out:
        raise SpaceError(
            f"`space` only compares ways to mix several tasks ({', '.join(out)}), and this sweep has one: {tasks[0]}. "
            "Give it more `tasks`, or another space."
        )
    note = f"{', '.join(out)} left out: with the one task {tasks[0]} there is nothing to mix"
    return kept, (note,) if out else ()
