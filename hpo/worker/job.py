"""Messages from the driver to its workers: the job, equal for all trials of a sweep, and assignments.

An assignment is one attempt at one trial. Both travel as JSON text in a Tune configuration: Tune would flatten, copy
and log every field of a nested dictionary.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from hpo.cluster.places import host_of
from hpo.cluster.processes import host
from hpo.cluster.resources import Resources
from hpo.worker import paths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from results.files import Folder

TRAINER = "hpo.worker.trainer"
"""The product's own module that trains."""


class Reported(Protocol):
    """A report, as far as a worker uses it; see `minbert.training.report.Report`."""

    @property
    def evidence(self) -> Mapping[str, NDArray[Any]]:
        """The predictions that the report was scored from, by task; empty if it has none."""
        ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Job:
    """Everything that the trials of a sweep have in common."""

    folder: str
    """Absolute path or URI of `<store>/<sweep>`."""
    milestones: tuple[int, ...]
    """Examples at which a trial reports, ascending; the last is the largest budget."""
    data: str | None = None
    """Folder of the corpus; None: the sample corpus inside the package."""
    tasks: tuple[str, ...] | None = None
    """Tasks of the sweep; None: the default ones."""
    base: str | None = None
    """Name of the base encoder; None: the packaged one."""
    base_sha256: str = ""
    """SHA-256 of the base weights when the sweep began; empty: not compared."""
    fingerprint: str = ""
    """Fingerprint of the data when the sweep began; empty: not compared."""
    report_rows: tuple[Mapping[str, int], ...] = ()
    """For each milestone: task -> `search` rows that the report is scored on; empty: all rows at every milestone."""
    resources: Resources = Resources()
    """Workers, and CPU cores and GPUs of a trial. A trial with a fraction of a GPU gets that share of its memory."""
    memory_limit: int | None = None
    """Bytes of data that one worker may hold; None: no limit."""
    pause_key: str = ""
    """Key of the pause flag in Ray's internal key-value store; see `hpo.cluster.pause`."""
    generation: int = 0
    """Number of the driver's generation, whose claim a worker must find in the sweep's folder; 0: it does not look."""
    trainer: str = TRAINER
    """Module with the functions `ready`, `train` and `predict` of `hpo.worker.trainer`; tests use another module."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        values = json.loads(text)
        tasks = values.get("tasks")
        return cls(
            **values
            | {
                "milestones": tuple(values["milestones"]),
                "report_rows": tuple(values["report_rows"]),
                "tasks": None if tasks is None else tuple(tasks),
                "resources": Resources(**values["resources"] | {"closed": tuple(values["resources"]["closed"])}),
            }
        )

    def for_trial(self, alone: bool) -> Job:
        """The job of one trial. `alone`: it shares no GPU with others."""
        gpus = self.resources.gpus_per_trial
        return replace(self, resources=replace(self.resources, gpus_per_trial=1.0)) if alone and 0 < gpus < 1 else self

    def module(self) -> ModuleType:
        """The imported trainer module."""
        return importlib.import_module(self.trainer)

    @cached_property
    def sweep(self) -> Folder:
        """The sweep's folder."""
        from results.places import locate

        return locate(self.folder)

    def check_store(self) -> None:
        """Raise FileNotFoundError if the sweep's folder on this machine is not the one in which the driver writes: what
        a trial wrote here would be lost."""
        from results.fences import CLAIMS, claim_name, claimed

        if self.generation and not claimed(self.sweep, self.generation):
            raise FileNotFoundError(
                f"{host()} does not reach the sweep's store: {self.folder}/{CLAIMS}/{claim_name(self.generation)}, "
                "which the driver has written, is not there. Mount the store at the same path as on the driver's "
                "machine"
            )

    def checkpoints(self, trial: int) -> Folder:
        """See `hpo.worker.paths.checkpoint_folder`."""
        return paths.checkpoint_folder(self.sweep, trial)


@dataclass(frozen=True)
class Assignment:
    """One attempt at one trial."""

    trial: int
    attempt: int
    config: Mapping[str, Any]
    """The complete nested configuration."""
    seed: int
    alone: bool = False
    """Whether it must not share a GPU: an earlier attempt ran out of memory."""
    avoid: tuple[str, ...] = ()
    """Hosts and places where the trial was lost, and where it must not begin."""

    def avoids(self, place: str) -> bool:
        """Whether it must not begin at this place."""
        return place in self.avoid or host_of(place) in self.avoid

    @property
    def id(self) -> str:
        return attempt_id(self.trial, self.attempt)


def attempt_id(trial: int, attempt: int) -> str:
    """Name of an attempt, such as `7-0`; a trial that is started again gets the name of its new attempt."""
    return f"{trial}-{attempt}"


def assignments_to_json(assignments: Sequence[Assignment]) -> str:
    return json.dumps([vars(assignment) for assignment in assignments])


def assignments_from_json(text: str) -> list[Assignment]:
    return [Assignment(**values | {"avoid": tuple(values["avoid"])}) for values in json.loads(text)]
