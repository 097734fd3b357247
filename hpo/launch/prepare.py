"""Preparation of a new sweep: from a request to a plan. Mistakes are found here, before compute; nothing is written.

A wrong parameter, a missing file, damaged weights, a name already in use, too few CPUs: each is a ValueError that names
the parameter, the rule, the value found and what would be accepted.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cluster.resources import Resources, local_cpus, local_gpus
from hpo.cluster.versions import versions
from hpo.launch.plan import Plan, Preview, complete_for
from hpo.launch.record import (
    BaseRecord,
    DataRecord,
    SweepRecord,
    TaskRecord,
    WarmStart,
    check_first,
)
from hpo.launch.request import Launch, LaunchError, Settings
from hpo.launch.warm import sources, warm
from hpo.search.records import to_record
from hpo.search.schedulers import EXEMPT, Scheduler, scheduler_from
from hpo.search.searchers import SEARCHERS, Searcher, searcher_from
from hpo.space.build import build
from hpo.space.space import Space
from minbert.tasks import Task, choose_tasks

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.data.files import Corpus
    from minbert.encoder.base import Base
    from results.objectives import Objective

EPOCHS = 3
MOST_EXAMPLES = 20_000
"""Budget of a trial when none is given: three passes over the training rows, at most 20,000 examples."""


def prepare(launch: Launch, estimate: bool = False) -> Plan:
    """The checked plan of a new sweep. `estimate`: time a few steps as well, which takes some seconds."""
    # Numbers, space and pins come first: a mistake in them is reported without reading data, and without importing
    # torch where the check needs no configuration.
    searcher, scheduler = searcher_from(_named(launch.searcher)), _scheduler(launch)
    found = sources(launch, searcher)
    tasks = choose_tasks(launch.tasks)
    built = build(launch.space, list(tasks), launch.settings, raced="stopped" in scheduler.columns)
    from hpo.launch.estimate import estimated
    from minbert.config import Config
    from minbert.data.files import read_corpus
    from minbert.encoder.base import find_base
    from minbert.training.milestones import report_rows

    base = find_base(launch.base)
    legal = complete_for(tasks, base.traits)
    built.check(legal, list(tasks))
    space = built.space.resolved(legal)
    check_varied(space, launch)
    searcher.check(space.leaves)
    objectives = chosen_objectives(launch, searcher, tasks)
    data = None if launch.data is None else str(Path(launch.data).expanduser().absolute())
    corpus = read_corpus(data, tasks)
    rows = {task: {split: corpus.size(task, split) for split in ("train", "search", "held", "test")} for task in tasks}
    recorded_base = BaseRecord(_absolute(launch.base, base.path), base.name, base.sha256, base.traits)
    space, warm_start, warm_notes = warm(
        found, searcher, space, legal, base=recorded_base, fingerprint=corpus.fingerprint, tasks=_tasks(corpus)
    )
    fits = _fits(corpus, base)
    configs = space.check(legal, list(tasks), fits)
    start = [_configuration("start", path, fits) for path in launch.start]
    start += [_configuration("start_full", path, fits) for path in launch.start_full]
    name = _name(launch)
    steps = _milestones(launch, scheduler, rows, Config.from_dict(space.apply({}, legal), tasks))
    scored = report_rows({task: counts["search"] for task, counts in rows.items()}, steps)
    preview = Preview(
        defaults=space.defaults_taken(legal),
        left_out=built.left_out,
        notes=(
            *built.notes,
            *warm_notes,
            *space.partly(legal),
            *unusual_values(configs, tasks),
            *foreign_rates(launch, start, base, tasks),
            *_unread(searcher, scheduler, objectives),
        ),
        sizes=rows,
        problems=tuple(str(problem) for problem in corpus.problems),
    )
    plan = Plan(
        store=launch.store,
        record=_record(
            launch,
            name,
            searcher,
            scheduler,
            objectives,
            corpus,
            recorded_base,
            space,
            start,
            warm_start,
            steps,
            scored,
            data,
        ),
        space=space,
        trials=launch.trials,
        resources=_resources(launch),
        address=launch.address,
        time=launch.time,
        trial_timeout=launch.trial_timeout,
        pause_timeout=launch.pause_timeout,
        trainer=launch.trainer,
        preview=preview,
    )
    # Raises where trials, start configurations and milestones do not fit together.
    plan = capped(plan, plan.sweep(workers=1).trials)
    return estimated(plan, corpus) if estimate else plan


def _record(
    launch: Launch,
    name: str,
    searcher: Searcher,
    scheduler: Scheduler,
    objectives: Sequence[Objective],
    corpus: Corpus,
    base: BaseRecord,
    space: Space,
    start: Sequence[Mapping[str, Any]],
    warm_start: Sequence[WarmStart],
    steps: tuple[int, ...],
    scored: tuple[Mapping[str, int], ...],
    data: str | None,
) -> SweepRecord:
    from hpo.launch.inputs import inputs, workload
    from hpo.space.source import to_json
    from minbert.migrations import CONFIG_VERSION
    from minbert.training.milestones import EVALUATION_VERSION

    return SweepRecord(
        name=name,
        space=to_json(space.tree),
        space_hash=space.hash,
        pinned=space.pinned,
        start=start,
        warm_start=warm_start,
        exempt=(*EXEMPT, *range(1 + len(launch.start), 1 + len(start))),
        seed=launch.seed,
        trials=launch.trials,
        milestones=steps,
        searcher=to_record(searcher),
        scheduler=to_record(scheduler),
        objectives=tuple(map(str, objectives)),
        trainer=launch.trainer,
        resources=launch.resources,
        keep=launch.keep,
        repeats=launch.repeats,
        data=DataRecord(data, corpus.fingerprint, inputs(space, start, corpus), workload(space, start, corpus)),
        base=base,
        report_rows=scored,
        tasks=_tasks(corpus),
        versions=versions(),
        config_version=CONFIG_VERSION,
        evaluation_version=EVALUATION_VERSION,
        argv=sys.argv[1:],
        created=time.time(),
    )


def _tasks(corpus: Corpus) -> dict[str, TaskRecord]:
    return {name: TaskRecord.of(task) for name, task in corpus.tasks.items()}


def _fits(corpus: Corpus, base: Base) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A function that completes a configuration. It raises ValueError if data or base encoder do not fit it."""
    from minbert import requirements
    from minbert.config import Config

    def complete_and_check(config: Mapping[str, Any]) -> dict[str, Any]:
        result = Config.from_dict(config, corpus.tasks, base.traits)
        requirements.check(result, corpus, base)
        return result.to_dict()

    return complete_and_check


def _named(technique: str | Settings) -> Settings:
    return {"name": technique} if isinstance(technique, str) else technique


def _scheduler(launch: Launch) -> Scheduler:
    """The scheduler with the launch's `eta` and `grace`. Raises ValueError if it lacks a setting that is asked for."""
    settings = {name: value for name in ("eta", "grace") if (value := getattr(launch, name)) is not None}
    return scheduler_from({**_named(launch.scheduler), **settings})


def check_varied(space: Space, launch: Launch) -> None:
    """Raise LaunchError if trials would be drawn from a space that varies nothing: they would repeat the default.

    Such a space is legal where nothing is drawn: `--trials 1` trains and records the default configuration. A space
    whose parameters are all pinned is legal too: its trials compare seeds.
    """
    not_drawn = 1 + len(launch.start) + len(launch.start_full)
    if launch.trials > not_drawn and all(leaf.constant for leaf in space.whole):
        raise LaunchError(
            f"`space` varies nothing, so {launch.trials - not_drawn} of {launch.trials} trials would repeat one "
            f"configuration. Give it parameters, or run the default alone with `trials` of {not_drawn}."
        )


def unusual_values(configs: Iterable[Mapping[str, Any]], tasks: Mapping[str, Task]) -> list[str]:
    """One line for each parameter with a legal value that is probably a mistake."""
    from minbert.config import Config
    from minbert.fields import unusual

    warnings: dict[str, str] = {}
    for config in configs:
        warnings |= unusual(Config.from_dict(config, tasks))
    return list(warnings.values())


def capped(plan: Plan, most: int) -> Plan:
    """The plan with at most so many trials, and a note if these are fewer than were asked for."""
    if most >= plan.trials:
        return plan
    note = f"the searcher `{plan.searcher.name}` tries each configuration once: {most} trials instead of {plan.trials}"
    preview = replace(plan.preview, notes=(*plan.preview.notes, note))
    return replace(plan, trials=most, record=replace(plan.record, trials=most), preview=preview)


def chosen_objectives(launch: Launch, searcher: Searcher, tasks: Collection[str]) -> tuple[Objective, ...]:
    """The objectives of the launch. Raises LaunchError for unknown ones, and for one alone where the searcher needs
    several."""
    from results.objectives import objectives_from

    try:
        objectives = objectives_from(launch.objective, tasks)
        check_first(objectives)
    except ValueError as error:
        raise LaunchError(f"`objective`: {error}") from error
    if searcher.several and len(objectives) == 1:
        raise LaunchError(
            f"The searcher `{searcher.name}` searches for several objectives, and `objective` names `{objectives[0]}` "
            f"alone. Name a second one, such as {objectives[0]},-trainable_parameters, or choose another searcher: "
            "`changes` too changes the best trials."
        )
    return objectives


def _unread(searcher: Searcher, scheduler: Scheduler, objectives: Sequence[Objective]) -> list[str]:
    """A line if the searcher does not read some of the objectives, or not those of trials that are stopped early."""
    stops = "stopped" in scheduler.columns
    if not searcher.several and len(objectives) > 1:
        several = ", ".join(name for name, entry in SEARCHERS.items() if entry.several)
        return [
            f"the searcher `{searcher.name}` optimises {objectives[0]} alone; `hpo top --pareto` compares all "
            f"objectives. Searchers for several objectives: {several}"
        ]
    if searcher.several and stops:
        return [
            f"the searcher `{searcher.name}` learns from complete trials alone, and the scheduler `{scheduler.name}` "
            "leaves few of them: with `none` all are complete"
        ]
    return []


FOREIGN = 2.0
"""A rate above FOREIGN times the base's default, or below 1 / FOREIGN of it, gets a note."""


def foreign_rates(
    launch: Launch, start: Sequence[Mapping[str, Any]], base: Base, tasks: Mapping[str, Task]
) -> list[str]:
    """One line for each learning rate of a start configuration that is in use and seems to be made for another base."""
    from minbert.config import Config
    from minbert.techniques.optimizer import default_adapter_lr, default_encoder_lr

    usual = {"encoder_lr": default_encoder_lr(base.traits), "adapter_lr": default_adapter_lr(base.traits)}
    notes = []
    options = [("start", path) for path in launch.start] + [("start_full", path) for path in launch.start_full]
    for (option, path), config in zip(options, start, strict=True):
        for name in Config.from_dict(config, tasks).adapter.rates:
            rate, default = config["optimizer"][name], usual[name]
            if not 1 / FOREIGN <= rate / default <= FOREIGN:
                notes.append(
                    f"`{option}`: {path}: optimizer/{name} = {rate:g}, and the default for the base {base.name} is "
                    f"{default:g}: was the file made for another base?"
                )
    return notes


def _absolute(base: str | None, directory: Path | None) -> str | None:
    """The absolute path of a base that is a directory: workers and resumes may run in another folder."""
    if base is None or directory is None or Path(base).resolve() != directory:
        return base
    return str(Path(base).absolute())


def _configuration(option: str, path: Path, fits: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The complete configuration of a JSON file, which an option names. Raises LaunchError."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LaunchError(f"`{option}`: {path} is no readable JSON file ({error}).") from error
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise LaunchError(f"`{option}`: {path} must hold one nested configuration as a JSON object, not {kind}.")
    try:
        return fits(values)
    except ValueError as error:
        raise LaunchError(f"`{option}`: {path}: {error}") from error


def _name(launch: Launch) -> str:
    """Name of the sweep, not in use in its store. Raises LaunchError if it is, or if the store cannot be written."""
    from results.files import safe_name
    from results.store import Store

    taken = set(Store(launch.store).sweeps())
    check_writable(launch.store)
    if launch.name is None:
        stem = "sweep" if isinstance(launch.space, Mapping) else _clean(Path(launch.space).stem)
        return _first_free(stem, taken)
    name = safe_name(launch.name, "Sweep name")
    if name in taken:
        raise LaunchError(
            f"`name`: the store {launch.store} already has a sweep named {name!r}. Continue it with `hpo resume "
            f"{name}`, give it more trials with `hpo extend {name} --trials N`, or choose another name."
        )
    return name


def _clean(stem: str) -> str:
    """A file's stem without the characters that a sweep's name must not hold; `sweep` if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:100] or "sweep"


def _first_free(stem: str, taken: Iterable[str]) -> str:
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def check_writable(store: str) -> None:
    """Raise LaunchError if a local store could not be written; nothing is created."""
    if "://" in store:
        return
    path = Path(store).expanduser().absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        raise LaunchError(f"`store` must be a folder; {path} is a file.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise LaunchError(f"`store`: {path} cannot be written by this user; choose another folder with --store.")


def _milestones(
    launch: Launch, scheduler: Scheduler, rows: Mapping[str, Mapping[str, int]], default: Config
) -> tuple[int, ...]:
    """Milestones of the sweep in examples, ascending: the first lies where the default configuration can be judged.

    The scheduler may set it lower, but never below the examples of the default configuration's first step: a trial
    would report before it learned.
    """
    from minbert.training.milestones import examples_to_judge, rows_of_steps

    sizes = {task: counts["train"] for task, counts in rows.items()}
    budget = launch.budget or min(MOST_EXAMPLES, EPOCHS * sum(sizes.values()))
    first = rows_of_steps(default, sizes, budget, steps=1)
    least = sum(first.values())
    for name, value in (("budget", budget), ("grace", launch.grace)):
        if value is not None and value < least:
            step = " + ".join(f"{count} of {task}" for task, count in first.items() if count)
            raise LaunchError(
                f"`{name}` must be at least {least} examples, one step of the default configuration ({step}), not "
                f"{value}."
            )
    return scheduler.milestones(budget, examples_to_judge(default, sizes, budget), step=least)


def _resources(launch: Launch) -> Resources | None:
    """Resources of the trials, checked against this machine; None for a running cluster, which is not reached yet."""
    if launch.address is not None:
        return None
    cpus, gpus = local_cpus(), local_gpus()
    resources = launch.resources.choose(cpus, gpus)
    resources.check(cpus, gpus, "this machine")
    return resources
