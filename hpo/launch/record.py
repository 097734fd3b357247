"""Record of a sweep, stored in `sweep.json`. It is written once, when the sweep begins; every later launch reads it.

Only this file knows the format: `SweepRecord` is written, read and compared here. A field that a later version adds
needs a line in `_completed` with the value that earlier sweeps had. Fields that this version does not know are kept and
ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hpo.cluster.resources import ResourceRequest, Resources
from hpo.cluster.versions import versions
from hpo.launch.request import Settings
from hpo.launch.typed import FieldError, from_json
from hpo.worker.job import TRAINER, Job
from minbert.encoder.traits import Traits
from minbert.training.cost import StageRows

if TYPE_CHECKING:
    from minbert.tasks import Task
    from minbert.training.cost import Workload
    from results.files import Folder
    from results.objectives import Objective
    from results.store import SweepFolder


class RecordError(ValueError):
    """The `sweep.json` is damaged, or another program wrote it."""


class MismatchError(ValueError):
    """Space, data, base weights, tasks, or a version of configuration or evaluation differ from the sweep's first."""


@dataclass(frozen=True)
class WorkloadRecord:
    """Facts about the training rows that the cost of a configuration depends on; see `minbert.training.cost`."""

    rows: Mapping[str, int]
    """Training rows of each task."""
    tokens: Mapping[str, float]
    """Mean word pieces of a training row of each task."""
    stages: Mapping[str, StageRows] = field(default_factory=dict)
    """Rows of each kind of stage that a trial may have; older sweeps recorded none, and draw without their cost."""

    @classmethod
    def of(cls, workload: Workload) -> WorkloadRecord:
        """The record of a workload; tasks and base have records of their own."""
        return cls(workload.rows, workload.tokens, workload.stages)


@dataclass(frozen=True)
class DataRecord:
    """The data that a sweep's trials read."""

    folder: str | None
    """Folder of the corpus, absolute; None: the sample corpus."""
    fingerprint: str
    """SHA-256 over the tasks' files."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """File name -> SHA-256, for the input files besides the tasks' data files; see `hpo.launch.inputs`."""
    workload: WorkloadRecord | None = None
    """What the cost of a configuration depends on; older sweeps recorded none, and draw without it."""

    @property
    def place(self) -> str:
        """The folder as text for messages."""
        return self.folder or "the sample corpus"


@dataclass(frozen=True)
class BaseRecord:
    """The base encoder that trials begin from."""

    asked: str | None
    """Name or directory in the launch's request; None: the packaged encoder."""
    name: str
    sha256: str
    """SHA-256 of its weights."""
    traits: Traits | None = None
    """What default values depend on; older sweeps recorded none."""


@dataclass(frozen=True)
class TaskRecord:
    """Declaration of a task, as far as scoring its predictions needs it."""

    kind: str
    """classification or regression."""
    classes: int
    metric: str
    weight: float
    """Weight of the task's score in `overall`."""
    low: float
    """Lowest label."""
    high: float
    """Highest label."""
    leaderboard: tuple[str, str]
    """First part of the names of its files in the class leaderboard format, and the title of their column."""

    @classmethod
    def of(cls, task: Task) -> TaskRecord:
        """The record of a declared task."""
        plain = {each.name: getattr(task, each.name) for each in fields(cls) if each.name != "leaderboard"}
        stem, title = task.leaderboard
        return cls(**plain, leaderboard=(stem, title))


@dataclass(frozen=True)
class WarmStart:
    """The best configurations of another sweep, with which a sweep began; see `hpo.launch.warm`."""

    sweep: str
    trials: Sequence[int]
    """Their trials there, best first."""
    configs: Sequence[Mapping[str, Any]]
    """The complete configurations of these trials."""
    sha256: str
    """SHA-256 of `configs` as canonical JSON."""

    @classmethod
    def of(cls, sweep: str, trials: Sequence[int], configs: Sequence[Mapping[str, Any]]) -> WarmStart:
        """The record of configurations, with their hash."""
        text = json.dumps(configs, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return cls(sweep, trials, configs, hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True)
class SweepRecord:
    """Everything that was requested for a sweep and decided before its first trial."""

    name: str
    space: Mapping[str, Any]
    """The search space as JSON, expanded over the tasks; see `hpo.space.source`."""
    space_hash: str
    """SHA-256 of the search space."""
    pinned: Mapping[str, Any]
    """Values of pinned parameters, nested as a configuration."""
    start: Sequence[Mapping[str, Any]]
    """Complete configurations to run right after the default one."""
    warm_start: Sequence[WarmStart]
    """Configurations of other sweeps that the searcher may change; the priors of `space` have moved to the best."""
    exempt: tuple[int, ...]
    """Trials that early stopping spares, ascending: the default one and those of `--start-full`."""
    seed: int
    """Seed of the draws and of the training."""
    trials: int
    """Trials that the first launch asked for; a later one may have asked for more."""
    milestones: tuple[int, ...]
    """Examples at which a trial reports, ascending; the last is the budget."""
    searcher: Settings
    """Name and settings of the searcher."""
    scheduler: Settings
    """Name and settings of the scheduler."""
    objectives: tuple[str, ...]
    """Objectives as they are written, `overall` first; see `results.objectives`."""
    trainer: str
    """Module that trains; see `hpo.worker.job.Job.trainer`."""
    resources: ResourceRequest
    """Resources that the first launch got; a later launch may request others."""
    keep: int
    """Number of best trials whose weights are kept, beside trial 0, repeats and an ensemble's members."""
    repeats: int
    """Further replicates of each finalist after the search; see `hpo.search.repeats`."""
    data: DataRecord
    base: BaseRecord
    report_rows: tuple[Mapping[str, int], ...]
    """For each milestone: task -> `search` rows that the report is scored on."""
    tasks: Mapping[str, TaskRecord]
    versions: Mapping[str, str]
    """Versions of Python and of the packages in `hpo.cluster.versions.PACKAGES`."""
    config_version: int
    """Version of the configuration's meaning."""
    evaluation_version: int
    """Version of what a report is scored on; see `minbert.training.milestones.EVALUATION_VERSION`."""
    argv: Sequence[str]
    """Command line of the first launch."""
    created: float
    """When the sweep began, in seconds since 1970."""
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Fields that a later version of this file wrote, unchanged."""

    @property
    def budget(self) -> int:
        """Largest number of examples of a trial."""
        return self.milestones[-1]

    def to_json(self) -> dict[str, Any]:
        """The content of `sweep.json`."""
        values = asdict(self)
        unknown, resources = values.pop("unknown"), values.pop("resources")
        return {**unknown, **values, **resources, "budget": self.budget}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SweepRecord:
        """The record from the content of a `sweep.json`. Raises FieldError, which names a missing or wrong field."""
        if values.get("milestones") == []:
            raise FieldError("`milestones` must name at least the budget, not []")
        grouped = _with_resources(_completed(values))
        names = {each.name for each in fields(cls)}
        unknown = {name: value for name, value in grouped.items() if name not in names and name != "budget"}
        record = replace(from_json(cls, grouped), unknown=unknown)
        _check_values(record)
        return record


def record_of(folder: SweepFolder) -> SweepRecord:
    """The record of a stored sweep. Raises RecordError."""
    try:
        return SweepRecord.from_json(folder.meta)
    except FieldError as error:
        raise RecordError(f"`{folder.folder.path}/sweep.json` is damaged or foreign: {error}.") from error


def check_trainer(record: SweepRecord, trainer: str | None) -> None:
    """Raise RecordError for a recorded trainer that is neither the product's own nor the `trainer` of the caller.

    The trainer is a module that will be imported: a stored file alone must not choose which code runs.
    """
    if record.trainer not in (TRAINER, trainer):
        raise RecordError(
            f"`sweep.json` of {record.name!r} names the trainer {record.trainer!r}, which is not {TRAINER}. If you "
            "trust it, name it yourself in Python: Relaunch(trainer=...)."
        )


def job_of(
    record: SweepRecord,
    sweep: Folder,
    resources: Resources,
    *,
    trainer: str | None = None,
    memory_limit: int | None = None,
    pause_key: str = "",
) -> Job:
    """The job that the workers of the sweep in folder `sweep` get; for `trainer` see `check_trainer`."""
    check_trainer(record, trainer)
    return Job(
        folder=sweep.path,
        milestones=record.milestones,
        data=record.data.folder,
        tasks=tuple(record.tasks),
        base=record.base.asked,
        base_sha256=record.base.sha256,
        fingerprint=record.data.fingerprint,
        report_rows=record.report_rows,
        resources=resources,
        memory_limit=memory_limit,
        pause_key=pause_key,
        trainer=record.trainer,
    )


# --- reading ---------------------------------------------------------------------------------------------------------


def _completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The content, with the fields that earlier versions did not write set to the values that sweeps had then."""
    earlier: dict[str, Any] = {
        "trainer": TRAINER,
        "searcher": {"name": "tpe", "startup": 8},
        "argv": [],
        "warm_start": [],
        "exempt": [],
        "evaluation_version": 1,
        "repeats": 0,
        "objectives": ["overall"],
    }
    content = earlier | dict(values)
    milestones, eta = content.get("milestones"), content.pop("eta", None)
    if "scheduler" not in content and isinstance(milestones, list) and milestones:
        content["scheduler"] = {"name": "asha", "eta": eta, "grace": milestones[0]}
    if "search_sizes" in content and isinstance(milestones, list):  # then every report was scored on as many rows
        content.setdefault("report_rows", [content.pop("search_sizes")] * len(milestones))
    if isinstance(content.get("created"), str):
        content["created"] = _seconds(content["created"])
    return content


def _check_values(record: SweepRecord) -> None:
    """Raise FieldError for values of the right type that no sweep was ever written with."""
    for name, least in (("trials", 1), ("keep", 1), ("seed", 0), ("repeats", 0)):
        if (value := getattr(record, name)) < least:
            raise FieldError(f"`{name}` must be at least {least}, not {value}")
    for trial in record.exempt:
        if not 0 <= trial <= len(record.start):
            raise FieldError(f"`exempt` must name trials that are not drawn, 0 to {len(record.start)}, not {trial}")
    steps = record.milestones
    if steps[0] < 1 or list(steps) != sorted(set(steps)):
        raise FieldError(f"`milestones` must be ascending numbers of examples, not {list(steps)}")
    if len(record.report_rows) != len(steps):
        raise FieldError(f"`report_rows` must be a list of {len(steps)}, one for each milestone")
    if not record.tasks:
        raise FieldError("`tasks` must name at least one task")
    from results.objectives import objectives_from

    try:
        check_first(objectives_from(record.objectives, record.tasks))
    except ValueError as error:
        raise FieldError(f"`objectives`: {error}") from error


def check_first(objectives: Sequence[Objective]) -> None:
    """Raise ValueError unless the first objective is `overall`: rungs, ranks, kept weights and the answer go by it."""
    from results.objectives import OVERALL

    if objectives[0] != OVERALL:
        raise ValueError(
            f"The first objective decides rungs, ranks and the answer, and has to be `{OVERALL}`, not "
            f"`{objectives[0]}`. To search for one task alone, train it alone: --tasks sst."
        )


def _seconds(moment: str) -> float:
    """An ISO 8601 time in seconds since 1970."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError as error:
        raise FieldError(f"`created` must be seconds since 1970 or ISO 8601, not {moment!r}") from error


def _with_resources(values: Mapping[str, Any]) -> dict[str, Any]:
    """The content with the fields of `ResourceRequest` in one group; the file holds them beside all other fields."""
    content = dict(values)
    names = [each.name for each in fields(ResourceRequest)]
    return content | {"resources": {name: content.pop(name) for name in names if name in content}}


# --- comparing -------------------------------------------------------------------------------------------------------


def check_same(recorded: SweepRecord, now: SweepRecord) -> None:
    """Raise MismatchError if results of this launch could not be compared with earlier ones.

    `now` is the record with the present space, data, base weights, tasks, and versions of configuration and evaluation.
    """
    for noun, before, after in _compared(recorded, now):
        if before != after:
            old, new = _shortened(str(before), str(after))
            raise MismatchError(
                f"sweep {recorded.name!r} began with another {noun}: {old}, now {new}. Its trials and new ones could "
                "not be compared: start a new sweep under another name, or bring the old one back"
            )


def _compared(recorded: SweepRecord, now: SweepRecord) -> Iterator[tuple[str, Any, Any]]:
    """What must be equal: a noun for messages, the recorded value, the present value."""
    yield "configuration version", recorded.config_version, now.config_version
    yield "evaluation version", recorded.evaluation_version, now.evaluation_version
    yield "search space (hash)", recorded.space_hash, now.space_hash
    for before, after in zip(recorded.warm_start, now.warm_start, strict=True):
        yield f"warm start from {before.sweep} (SHA-256)", before.sha256, after.sha256
    yield "declaration of the tasks (metrics, weights)", recorded.tasks, now.tasks
    yield f"data in {now.data.place} (fingerprint)", recorded.data.fingerprint, now.data.fingerprint
    yield f"base weights {recorded.base.name} (SHA-256)", recorded.base.sha256, now.base.sha256
    for name, sha256 in recorded.data.inputs.items():  # a record of an older sweep names none
        yield f"{name} (SHA-256)", sha256, now.data.inputs.get(name, "it is not read")


def changed_versions(recorded: SweepRecord) -> list[str]:
    """One line for each package whose version has changed since the sweep began."""
    now = versions()
    return [
        f"{name} was {version} when the sweep began and is {now.get(name, 'absent')} now"
        for name, version in recorded.versions.items()
        if now.get(name) != version
    ]


SHOWN = 80
"""Characters of a value that a message shows."""


def _shortened(before: str, after: str) -> tuple[str, str]:
    """Two different texts, each cut to SHOWN characters that hold the first difference."""
    start = 0
    if max(len(before), len(after)) > SHOWN:
        letters = enumerate(zip(before, after, strict=False))
        first = next((place for place, (old, new) in letters if old != new), min(len(before), len(after)))
        start = max(0, first - SHOWN // 2)
    texts = [f"...{text[start:]}" if start else text for text in (before, after)]
    old, new = (text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..." for text in texts)
    return old, new
