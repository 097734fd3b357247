"""The pinned space of a run, built from a space, tasks and settings.

Checks that need neither torch nor data are done here: keys, domains, names of tasks, spelling of pins. `Built.check`
does the others, which need the configuration, and reports the mistakes of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.space.mistakes import objection, refuse
from hpo.space.pins import Complete, read_pins
from hpo.space.resolve import resolved
from hpo.space.shape import sound
from hpo.space.source import load_space
from hpo.space.space import Space
from hpo.space.tasks import LATE, MIXING, alone, judged_early, restrict
from hpo.space.tree import Nested, leaves, written_out
from minbert.tasks import TASKS
from search_spaces.domains import Node, SpaceError


@dataclass(frozen=True)
class Built:
    """The space of a run, and the parts of the requested space that were left out."""

    space: Space
    """The legal part of the requested space."""
    left_out: tuple[str, ...]
    """Parts that only concern tasks which the run does not have."""
    notes: tuple[str, ...]
    """Remarks for the dry run."""
    mistakes: tuple[str, ...] = ()
    """Mistakes of the tree, which `check` reports."""

    def check(self, complete: Complete, tasks: Collection[str]) -> list[Nested]:
        """Raise SpaceError with all mistakes: of the tree, of its priors, of `Space.check`, whose result it returns."""
        _, priors = resolved(self.space.tree, complete)
        return self.space.check(complete, tasks, found=(*self.mistakes, *priors))


def build(
    source: str | Path | Mapping[str, Node],
    tasks: Sequence[str],
    settings: Sequence[str] = (),
    raced: bool = False,
) -> Built:
    """The pinned space over a run's tasks, with the mistakes of its tree; `raced`: trials are stopped early.

    Raises SpaceError if no space remains to check: nothing is legal, or two parameters set the same value. Raises
    ConfigError for pins that cannot be read.
    """
    legal, mistakes = sound(load_space(source))
    space, left_out = restrict(legal, TASKS.keys() - set(tasks))
    space, notes = _unmixed(space, tasks)
    if raced:
        space, more_notes = _judged_early(space)
        notes += more_notes
    tree, more_mistakes = written_out(space, tasks)
    mistakes += more_mistakes
    if not tree or objection(lambda: leaves(tree)):
        refuse(mistakes)
    built = Space(tree, read_pins(settings))
    if raced:
        _refuse_late(built)
    return Built(built, left_out, notes, tuple(mistakes))


def _judged_early(space: dict[str, Node]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space without tasks one after the other, and a note that says so."""
    remaining, left_out = judged_early(space)
    reason = "tasks trained one after the other cannot be judged early; `--scheduler none` includes them"
    return remaining, (f"{', '.join(left_out)} left out: {reason}",) if left_out else ()


def _refuse_late(space: Space) -> None:
    """Raise SpaceError if a pin or the space itself still asks for tasks one after the other."""
    leaves = [leaf for leaf in space.leaves if leaf.path == f"{MIXING}/kind"]
    if space.pins.get(f"{MIXING}/kind") == LATE or any(LATE in leaf.ends() for leaf in leaves):
        raise SpaceError(
            f"`{MIXING}/kind` = {LATE}: tasks trained one after the other cannot be judged before the end of a trial, "
            "and this sweep stops trials early. Give it `--scheduler none`, or another mixing."
        )


def _unmixed(space: dict[str, Node], tasks: Sequence[str]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space without the mixing of tasks if the run has one task, and a note that says so."""
    if len(tasks) > 1:
        return space, ()
    remaining, left_out = alone(space)
    if not remaining and left_out:
        raise SpaceError(
            f"`space` only compares ways to mix several tasks ({', '.join(left_out)}), and this sweep has one: "
            f"{tasks[0]}. Give it more `tasks`, or another space."
        )
    note = f"{', '.join(left_out)} left out: with the one task {tasks[0]} there is nothing to mix"
    return remaining, (note,) if left_out else ()
