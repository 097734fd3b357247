"""Warm start: the best trials of other sweeps, as parents of a new sweep's draws and centres of its priors.

Of each sweep the BEST best trials count among those that came furthest: at full budget, if any did. The searcher
changes them as it changes the default configuration; the priors move to the best of them all. None of them runs again
by itself, because its score is known and a change of it may be better.

The other sweeps are read once, when the new one begins. Its `sweep.json` holds the configurations with their SHA-256,
and the moved priors within the space, so later launches never read another sweep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.launch.record import BaseRecord, SweepRecord, TaskRecord, WarmStart, record_of
from hpo.launch.request import Launch, LaunchError
from hpo.search.searchers import SEARCHERS, Searcher
from hpo.space.pins import Complete
from hpo.space.space import Carried, Space
from hpo.space.tree import at
from search_spaces.domains import same

if TYPE_CHECKING:
    from results.store import SweepFolder

BEST = 4
"""Trials of each sweep, as many as the searcher `changes` keeps parents of its own."""


@dataclass(frozen=True)
class Source:
    """A sweep whose trials a new one begins with."""

    folder: SweepFolder
    record: SweepRecord


@dataclass(frozen=True)
class Ranked:
    """One of the best trials of a sweep."""

    trial: int
    step: int
    """Milestone of its last report, in examples."""
    overall: float
    config: Mapping[str, Any]
    """Its complete configuration, as stored."""


def sources(launch: Launch, searcher: Searcher) -> list[Source]:
    """The sweeps that a launch names. Raises LaunchError if the searcher cannot use them, StoreError if one is
    unknown."""
    if not launch.warm_start:
        return []
    if not searcher.warm_start:
        able = ", ".join(sorted(name for name, entry in SEARCHERS.items() if entry.warm_start))
        raise LaunchError(
            f"`warm_start`: the searcher `{searcher.name}` has neither parents nor priors, so other sweeps cannot help "
            f"it. Expected one of: {able}."
        )
    from results.store import Store  # imports pyarrow: only a warm start needs it this early

    store = Store(launch.store)
    folders = [store.open(name) for name in launch.warm_start]
    return [Source(folder, record_of(folder)) for folder in folders]


def warm(
    found: Sequence[Source],
    searcher: Searcher,
    space: Space,
    complete: Complete,
    *,
    base: BaseRecord,
    fingerprint: str,
    tasks: Mapping[str, TaskRecord],
) -> tuple[Space, list[WarmStart], list[str]]:
    """The space with moved priors, what `sweep.json` records, and notes.

    `base`, `fingerprint` and `tasks` are the new sweep's. Raises LaunchError if a sweep has others, no trial that ended
    with a score, or no configuration that is legal in the space.
    """
    records: list[WarmStart] = []
    notes: list[str] = []
    bests: list[tuple[Ranked, Carried]] = []
    for source in found:
        name = source.record.name
        if unequal := list(differences(source.record, base, fingerprint, tasks)):
            raise LaunchError(
                f"`warm_start`: trials of {name!r} cannot be compared with those of this sweep: "
                f"{'; '.join(unequal)}. Expected a sweep with equal base, data and tasks."
            )
        usable = _usable(name, best(source.folder), space, complete)
        records.append(WarmStart.of(name, [ranked.trial for ranked, _, _ in usable], [full for _, full, _ in usable]))
        left_out = set[str]().union(*(_left_out(source.record, full, carried) for _, full, carried in usable))
        notes += [_note(name, len(usable), len(left_out), searcher), *source.folder.warnings]
        bests += [(ranked, carried) for ranked, _, carried in usable]
    if bests:
        _, carried = min(bests, key=lambda each: (-each[0].step, -each[0].overall))
        space = space.centred(carried.own)
    return space, records, notes


def best(folder: SweepFolder) -> list[Ranked]:
    """The best trials of a sweep, best first. Raises LaunchError if none has ended with a score."""
    from results.views import ranking, trials_frame

    frame = trials_frame(folder, wanted=lambda names: ["config"])
    ended = frame[frame["state"].isin(("complete", "pruned"))]
    rows = ended.set_index("trial")
    trials = [
        Ranked(trial, int(rows["step"][trial]), float(rows["overall"][trial]), json.loads(rows["config"][trial]))
        for trial in ranking(ended)
    ]
    if not trials:
        raise LaunchError(
            f"`warm_start`: no trial of {folder.name!r} has ended with a score yet. Wait for one, or name another "
            "sweep."
        )
    return [ranked for ranked in trials if ranked.step == trials[0].step][:BEST]


def _usable(
    name: str, trials: Sequence[Ranked], space: Space, complete: Complete
) -> list[tuple[Ranked, dict[str, Any], Carried]]:
    """Of each trial that has a legal configuration in the space: its complete configuration, and that in the space."""
    usable, refused = [], ""
    for ranked in trials:
        try:
            full = complete(dict(ranked.config))  # an older configuration is migrated
            usable.append((ranked, full, space.carried(full, complete)))
        except ValueError as error:
            refused = refused or str(error)
    if not usable:
        raise LaunchError(
            f"`warm_start`: none of the best configurations of {name!r} is legal in this space: {refused}"
        )
    return usable


def differences(
    record: SweepRecord, base: BaseRecord, fingerprint: str, tasks: Mapping[str, TaskRecord]
) -> Iterator[str]:
    """What makes trials of a sweep incomparable with those of another one, which has this base, data fingerprint and
    tasks."""
    if record.base.sha256 != base.sha256:
        there, here = record.base.name, base.name
        yield f"its base is {there}, here it is {here}" if there != here else f"its weights of {here} are others"
    if record.tasks != tasks:
        there, here = ",".join(record.tasks), ",".join(tasks)
        yield f"its tasks are {there}, here they are {here}" if there != here else "its tasks are declared otherwise"
    elif record.data.fingerprint != fingerprint:  # other tasks have other files
        yield f"its data are others (fingerprint {record.data.fingerprint[:8]}, here {fingerprint[:8]})"


def _left_out(record: SweepRecord, config: Mapping[str, Any], carried: Carried) -> set[str]:
    """Paths of the parameters, varied or pinned by the other sweep, whose values the new sweep cannot draw."""
    source = Space.from_json(record.space, record.pinned)
    paths = {leaf.path for leaf in source.whole if not leaf.constant} | source.pins.keys()
    return {path for path in paths if not _agree(path, config, carried.config)}


def _agree(path: str, config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a configuration lacks a path or shares its value with the other one."""
    try:
        value = at(config, path)
    except KeyError:
        return True
    try:
        return same(value, at(other, path))
    except KeyError:
        return False


def _note(name: str, configs: int, left_out: int, searcher: Searcher) -> str:
    note = f"warm start from {name}: {configs} configuration{'s' * (configs != 1)}"
    if left_out:
        note += f", {left_out} parameter{'s' * (left_out != 1)} left out that this space does not have"
    return note if searcher.warm_start == "parents" else f"{note}; `{searcher.name}` takes centres of its priors alone"
