"""From what somebody asks for to a plan: whatever can be known before compute is checked here, and nothing is
written.

A wrong parameter, a missing file, damaged weights, a full name, too few CPUs: each is a ValueError that names the
parameter, the rule, what was found and what would be accepted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cluster import resources
from hpo.cluster.resources import Resources
from hpo.launch.plan import Plan, complete
from hpo.launch.request import Launch, LaunchError, check_numbers
from hpo.search.schedulers import Asha
from search_spaces.domains import Node

if TYPE_CHECKING:
    from minbert.data.files import Corpus
    from minbert.encoder.base import Base

EPOCHS = 3
MOST_EXAMPLES = 20_000
"""Budget of a trial when none is given: three passes over the training rows, at most 20,000 examples."""


def prepare(launch: Launch, estimate: bool = False) -> Plan:
    """Check everything and say what would run. `estimate`: time a few steps as well (some seconds)."""
    from hpo.launch.estimate import estimated
    from hpo.launch.inputs import inputs
    from hpo.space.check import check, defaults_taken
    from hpo.space.pins import apply_pins, partly
    from hpo.space.source import load_space
    from hpo.space.tasks import of_tasks, restrict
    from hpo.space.tree import expand, leaves
    from minbert import requirements
    from minbert.config import settings
    from minbert.data.files import read_corpus
    from minbert.encoder.base import find_base
    from minbert.tasks import TASKS, choose_tasks
    from minbert.training.evaluation import search_sizes

    check_numbers(launch)
    check_local(launch.store)
    pinned = settings(launch.settings)
    data = None if launch.data is None else str(Path(launch.data).expanduser().absolute())
    corpus = read_corpus(data, choose_tasks(launch.tasks))
    tasks = {task.name: describe_task(task) for task in corpus.tasks}
    requirements.check_tasks(pinned, tasks)
    used, left_out = restrict(load_space(launch.space), TASKS.keys() - tasks.keys())
    used, notes = _unmixed(used, list(tasks))
    tree = expand(used, list(tasks))
    rows = {task: {split: corpus.size(task, split) for split in ("train", "search", "held", "test")} for task in tasks}
    base = find_base(launch.checkpoint)
    fits = _fits(corpus, base)
    check(tree, fits, pinned)
    start = [_configuration(path, fits) for path in launch.start]
    name = _name(launch)
    steps = _milestones(launch, rows, apply_pins({}, pinned, leaves(tree), complete))
    sizes, share = search_sizes({task: counts["search"] for task, counts in rows.items()}, steps)
    plan = Plan(
        name=name,
        store=launch.store,
        space=tree,
        trials=launch.trials,
        milestones=steps,
        eta=launch.eta,
        seed=launch.seed,
        resources=_resources(launch),
        data=data,
        fingerprint=corpus.fingerprint,
        inputs=inputs(tree, pinned, start, corpus),
        base=_absolute(launch.checkpoint, base.path),
        base_name=base.name,
        base_sha256=base.sha256,
        search_sizes=sizes,
        tasks=tasks,
        pinned=pinned,
        start=start,
        address=launch.address,
        keep=launch.keep,
        time=launch.time,
        workers_asked=launch.workers,
        cpus_per_trial=launch.cpus_per_trial,
        gpus_per_trial=launch.gpus_per_trial,
        trainer=launch.trainer,
        evaluation_share=share,
        defaults=of_tasks(defaults_taken(tree, complete, pinned), TASKS.keys() - tasks.keys()),
        left_out=left_out,
        notes=(*notes, *partly(leaves(tree), pinned)),
        sizes=rows,
        problems=tuple(str(problem) for problem in corpus.problems),
    )
    plan.sweep(workers=1, trials=plan.trials)  # refuses what does not fit together
    return estimated(plan, corpus) if estimate else plan


def _fits(corpus: Corpus, base: Base) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """As `complete`, but also refuses what cannot be trained on the sweep's data."""
    from minbert import requirements
    from minbert.config import Config

    def whole(config: Mapping[str, Any]) -> dict[str, Any]:
        found = Config.from_dict(dict(config))
        requirements.check(found, corpus, base)
        return found.to_dict()

    return whole


def _unmixed(space: dict[str, Node], tasks: Sequence[str]) -> tuple[dict[str, Node], list[str]]:
    """The space without what one task makes meaningless, and a word on it."""
    from hpo.space.tasks import alone

    if len(tasks) > 1:
        return space, []
    kept, out = alone(space)
    if not kept and out:
        raise LaunchError(
            f"`space` only compares ways to mix several tasks ({', '.join(out)}), and this sweep has one: {tasks[0]}. "
            "Give it more `tasks`, or another space."
        )
    return kept, [f"{', '.join(out)} left out: with the one task {tasks[0]} there is nothing to mix"] if out else []


def _absolute(checkpoint: str | None, found: Path | None) -> str | None:
    """A base that is a directory by its absolute path: workers and resumes may stand elsewhere."""
    if checkpoint is None or found is None or Path(checkpoint).resolve() != found:
        return checkpoint
    return str(Path(checkpoint).absolute())


def describe_task(task: Any) -> dict[str, Any]:
    """What `results` needs to score a task alone."""
    fields = ("kind", "classes", "metric", "weight", "low", "high")
    return {name: getattr(task, name) for name in fields} | {"leaderboard": list(task.leaderboard)}


def _configuration(path: Path, fits: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A configuration from a JSON file, complete."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LaunchError(f"`start`: {path} is no readable JSON file ({error}).") from error
    if not isinstance(values, dict):
        found = type(values).__name__
        raise LaunchError(f"`start`: {path} must hold one nested configuration as a JSON object, not {found}.")
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


def _milestones(launch: Launch, rows: Mapping[str, Mapping[str, int]], default: Mapping[str, Any]) -> tuple[int, ...]:
    """The rungs; none below what the default configuration's first step takes: scores there would be of nothing."""
    from minbert.config import Config
    from minbert.techniques.mixings import Mix

    config, sizes = Config.from_dict(dict(default)), {task: counts["train"] for task, counts in rows.items()}
    batches = {task: config.batch_size[task] for task in rows}
    first = config.mixing.build(Mix(sizes, 0, batches)).tasks(0, 0.0)
    least = sum(batches[task] for task in first)
    budget = launch.budget or min(MOST_EXAMPLES, EPOCHS * sum(sizes.values()))
    for name, value in (("budget", budget), ("grace", launch.grace)):
        if value is not None and value < least:
            step = " + ".join(f"{batches[task]} of {task}" for task in first)
            raise LaunchError(
                f"`{name}` must be at least {least} examples, one step of the default configuration ({step}), not "
                f"{value}."
            )
    return Asha(launch.eta, launch.grace).milestones(budget, least)


def _resources(launch: Launch) -> Resources | None:
    """Checked against this machine, or left open where a cluster has to be asked."""
    if launch.address is not None:
        return None
    cpus, gpus = resources.local_cpus(), resources.local_gpus()
    chosen = resources.choose(launch.workers, launch.cpus_per_trial, launch.gpus_per_trial, cpus, gpus)
    chosen.check(cpus, gpus, "this machine")
    return chosen
