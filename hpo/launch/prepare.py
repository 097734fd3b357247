"""From what somebody asks for to a plan: whatever can be known before compute is checked here, and nothing is
written.

A wrong parameter, a missing file, damaged weights, a full name, too few CPUs: each is a ValueError that names the
parameter, the rule, what was found and what would be accepted.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cluster.resources import Resources, local_cpus, local_gpus
from hpo.launch.plan import Plan, Preview, complete_for
from hpo.launch.record import BaseRecord, DataRecord, SweepRecord, TaskRecord, versions
from hpo.launch.request import Launch, LaunchError, Settings
from hpo.search.records import to_record
from hpo.search.schedulers import Scheduler, scheduler_from
from hpo.search.searchers import Searcher, searcher_from
from hpo.space.build import build
from hpo.space.space import Space
from minbert.tasks import Task, choose_tasks

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.data.files import Corpus
    from minbert.encoder.base import Base

EPOCHS = 3
MOST_EXAMPLES = 20_000
"""Budget of a trial when none is given: three passes over the training rows, at most 20,000 examples."""


def prepare(launch: Launch, estimate: bool = False) -> Plan:
    """Check everything and say what would run. `estimate`: time a few steps as well (some seconds)."""
    # Numbers, the space and its pins first: they need no data, and a mistake in them should not wait for imports.
    check_local(launch.store)
    searcher, scheduler = searcher_from(_named(launch.searcher)), _scheduler(launch)
    tasks = choose_tasks(launch.tasks)
    built = build(launch.space, list(tasks), launch.settings)
    space = built.space
    check_varied(space, launch)
    from hpo.launch.estimate import estimated
    from minbert.config import Config
    from minbert.data.files import read_corpus
    from minbert.encoder.base import find_base
    from minbert.training.evaluation import search_sizes

    legal = complete_for(tasks)
    space.check(legal, list(tasks))
    data = None if launch.data is None else str(Path(launch.data).expanduser().absolute())
    corpus = read_corpus(data, tasks)
    rows = {task: {split: corpus.size(task, split) for split in ("train", "search", "held", "test")} for task in tasks}
    base = find_base(launch.base)
    fits = _fits(corpus, base)
    configs = space.check(legal, list(tasks), fits)
    start = [_configuration(path, fits) for path in launch.start]
    name = _name(launch)
    steps = _milestones(launch, scheduler, rows, Config.from_dict(space.apply({}, legal), tasks))
    sizes, share = search_sizes({task: counts["search"] for task, counts in rows.items()}, steps)
    preview = Preview(
        evaluation_share=share,
        defaults=space.defaults_taken(legal),
        left_out=built.left_out,
        notes=(*built.notes, *space.partly(legal), *unusual_values(configs, tasks)),
        sizes=rows,
        problems=tuple(str(problem) for problem in corpus.problems),
    )
    plan = Plan(
        store=launch.store,
        record=_record(launch, name, searcher, scheduler, corpus, base, space, start, steps, sizes, data),
        space=space,
        trials=launch.trials,
        resources=_resources(launch),
        address=launch.address,
        time=launch.time,
        preview=preview,
    )
    plan.sweep(workers=1)  # refuses what does not fit together
    return estimated(plan, corpus) if estimate else plan


def _record(
    launch: Launch,
    name: str,
    searcher: Searcher,
    scheduler: Scheduler,
    corpus: Corpus,
    base: Base,
    space: Space,
    start: Sequence[Mapping[str, Any]],
    steps: tuple[int, ...],
    sizes: Mapping[str, int],
    data: str | None,
) -> SweepRecord:
    from hpo.launch.inputs import inputs
    from hpo.space.source import to_json
    from minbert.migrations import CONFIG_VERSION

    return SweepRecord(
        name=name,
        space=to_json(space.tree),
        space_hash=space.hash,
        pinned=space.pinned,
        start=start,
        seed=launch.seed,
        trials=launch.trials,
        milestones=steps,
        searcher=to_record(searcher),
        scheduler=to_record(scheduler),
        trainer=launch.trainer,
        resources=launch.resources,
        keep=launch.keep,
        data=DataRecord(data, corpus.fingerprint, inputs(space, start, corpus)),
        base=BaseRecord(_absolute(launch.base, base.path), base.name, base.sha256),
        search_sizes=sizes,
        tasks={name: TaskRecord.of(task) for name, task in corpus.tasks.items()},
        versions=versions(),
        config_version=CONFIG_VERSION,
        argv=sys.argv[1:],
        created=time.time(),
    )


def _fits(corpus: Corpus, base: Base) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """As `complete`, but also refuses what cannot be trained on the sweep's data."""
    from minbert import requirements
    from minbert.config import Config

    def whole(config: Mapping[str, Any]) -> dict[str, Any]:
        full = Config.from_dict(config, corpus.tasks)
        requirements.check(full, corpus, base)
        return full.to_dict()

    return whole


def _named(asked: str | Settings) -> Settings:
    return {"name": asked} if isinstance(asked, str) else asked


def _scheduler(launch: Launch) -> Scheduler:
    """The scheduler with `eta` and `grace` where they are asked for. Raises ValueError where it has no such setting."""
    given = {name: value for name in ("eta", "grace") if (value := getattr(launch, name)) is not None}
    return scheduler_from({**_named(launch.scheduler), **given})


def check_varied(space: Space, launch: Launch) -> None:
    """Refuse a space that varies nothing where trials would be drawn from it: they would repeat the default.

    Without draws it is legal: `--trials 1` trains and records the default configuration. So is a space whose parameters
    are all pinned, which compares seeds.
    """
    named = 1 + len(launch.start)
    if launch.trials > named and all(leaf.constant for leaf in space.whole):
        raise LaunchError(
            f"`space` varies nothing, so {launch.trials - named} of {launch.trials} trials would repeat one "
            f"configuration. Give it parameters, or run the default alone with `trials` of {named}."
        )


def unusual_values(configs: Iterable[Mapping[str, Any]], tasks: Mapping[str, Task]) -> list[str]:
    """One line for each parameter with a legal value that is rarely meant."""
    from minbert.config import Config
    from minbert.fields import unusual

    lines: dict[str, str] = {}
    for config in configs:
        lines |= unusual(Config.from_dict(config, tasks))
    return list(lines.values())


def _absolute(base: str | None, directory: Path | None) -> str | None:
    """A base that is a directory by its absolute path: workers and resumes may run in another folder."""
    if base is None or directory is None or Path(base).resolve() != directory:
        return base
    return str(Path(base).absolute())


def _configuration(path: Path, fits: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A configuration from a JSON file, complete."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LaunchError(f"`start`: {path} is no readable JSON file ({error}).") from error
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise LaunchError(f"`start`: {path} must hold one nested configuration as a JSON object, not {kind}.")
    try:
        return fits(values)
    except ValueError as error:
        raise LaunchError(f"`start`: {path}: {error}") from error


def _name(launch: Launch) -> str:
    """The sweep's name, free in its store; the store is checked on the way."""
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
            f"`name`: a sweep named {name!r} is in the store {launch.store} already. Go on with it by `hpo resume "
            f"{name}`, give it more trials by `hpo extend {name} --trials N`, or choose another name."
        )
    return name


def _clean(stem: str) -> str:
    """A file's stem as the beginning of a sweep's name, whatever the file is called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:100] or "sweep"


def _first_free(stem: str, taken: Iterable[str]) -> str:
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def check_local(store: str) -> None:
    """Raise for a store that is no folder of this machine or of a shared file system."""
    if "://" in store and not store.startswith("file://"):
        raise LaunchError(
            f"`store` must be a folder, on a local disk or a shared file system such as NFS, not {store}: checkpoints, "
            "logs and heartbeats are written there as plain files."
        )


def check_writable(store: str) -> None:
    """Raise where a local store could not be written; nothing is created."""
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
    """The rungs; none below what the default configuration's first step takes: scores there would be of nothing."""
    from minbert.techniques.mixings import Mix

    sizes = {task: counts["train"] for task, counts in rows.items()}
    batches = {task: default.batch_size[task] for task in rows}
    first = default.mixing.build(Mix(sizes, 0, batches)).tasks(0, 0.0)
    least = sum(batches[task] for task in first)
    budget = launch.budget or min(MOST_EXAMPLES, EPOCHS * sum(sizes.values()))
    for name, value in (("budget", budget), ("grace", launch.grace)):
        if value is not None and value < least:
            step = " + ".join(f"{batches[task]} of {task}" for task in first)
            raise LaunchError(
                f"`{name}` must be at least {least} examples, one step of the default configuration ({step}), not "
                f"{value}."
            )
    return scheduler.milestones(budget, least)


def _resources(launch: Launch) -> Resources | None:
    """Checked against this machine, or left open where a cluster has to be asked."""
    if launch.address is not None:
        return None
    cpus, gpus = local_cpus(), local_gpus()
    chosen = launch.resources.choose(cpus, gpus)
    chosen.check(cpus, gpus, "this machine")
    return chosen
