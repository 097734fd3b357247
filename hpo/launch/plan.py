"""A sweep that is ready to start: everything that must be known before compute, and its record in `sweep.json`.

`hpo.launch.prepare` makes a plan from a launch, `Plan.from_meta` from the record of an earlier one; both then run the
same way.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.cluster.resources import Resources
from hpo.search.schedulers import Asha, Scheduler
from hpo.search.searchers import Searcher, Tpe
from hpo.search.sweep import Sweep
from hpo.space.source import from_json, space_hash, to_json
from search_spaces.domains import Node

PACKAGES = ("minbert-hpo", "torch", "ray", "optuna", "pyarrow", "numpy", "scipy", "tokenizers", "safetensors")
"""Whose versions are recorded; a resume under others is warned about."""


class MismatchError(ValueError):
    """A resume with another space, data, weights or meaning of the configuration than the sweep began with."""


Range = tuple[int, int]
"""Lowest and highest value."""


@dataclass(frozen=True)
class StageWork:
    """Work of one kind of stage before training, as ranges over its settings."""

    kind: str
    """mlm, nli or mnrl."""
    rows: Range
    steps: Range
    batch_size: Range


@dataclass(frozen=True)
class Plan:
    """All that a sweep depends on, checked."""

    name: str
    store: str
    space: Mapping[str, Node]
    """Expanded over the tasks."""
    trials: int
    milestones: tuple[int, ...]
    eta: int
    seed: int
    resources: Resources | None
    """None: chosen when the cluster is reached by its address."""
    data: str | None
    """Folder of the corpus, absolute; None: the sample corpus."""
    fingerprint: str
    base: str | None
    """As asked for; None: the packaged encoder."""
    base_name: str
    base_sha256: str
    search_sizes: Mapping[str, int]
    """Examples per task that every report is scored on."""
    tasks: Mapping[str, Mapping[str, Any]]
    """Task -> kind, classes, metric, weight, low, high, leaderboard."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the other files that some trial reads, by name; see `hpo.launch.inputs`."""
    pinned: Mapping[str, Any] = field(default_factory=dict)
    start: Sequence[Mapping[str, Any]] = ()
    address: str | None = None
    keep: int = 20
    time: float | None = None
    """Seconds after which this launch stops, resumable; None: no limit."""
    workers_asked: int | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float | None = None
    trainer: str = "hpo.worker.trainer"
    """Module that trains; see `hpo.worker.job.Job.trainer`."""
    # What is only shown.
    evaluation_share: float = 0.0
    """Share of a full trial's time that its reports take for evaluation."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Configuration paths that the space leaves out, and the values they take."""
    left_out: tuple[str, ...] = ()
    """Parts of the space that only concern tasks which the sweep does not have; see `hpo.space.tasks`."""
    notes: tuple[str, ...] = ()
    """What a launch says besides: pins that only some branches have."""
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Task -> split -> rows."""
    problems: tuple[str, ...] = ()
    """Rows of the corpus that are skipped, as `file:line: reason`."""
    seconds: float | None = None
    """Rough time of the whole search, without stages before training; None: unknown."""
    stages: tuple[StageWork, ...] = ()
    """Work of each stage before training that some trial may have."""

    @property
    def budget(self) -> int:
        """Largest number of examples of a trial."""
        return self.milestones[-1]

    @property
    def most_examples(self) -> int:
        """Examples if no trial were stopped early."""
        return self.trials * self.budget

    @property
    def searcher(self) -> Searcher:
        return Tpe()

    @property
    def scheduler(self) -> Scheduler:
        return Asha(self.eta, self.milestones[0])

    @property
    def expected_examples(self) -> int:
        """Examples that the trials are expected to use together under the scheduler."""
        return self.scheduler.expected_examples(self.trials, self.milestones)

    def sweep(self, workers: int, trials: int) -> Sweep:
        """The pure search, before anything has happened."""
        return Sweep(
            self.space,
            seed=self.seed,
            trials=trials,
            milestones=self.milestones,
            searcher=self.searcher,
            scheduler=self.scheduler,
            workers=workers,
            complete=complete,
            start=[dict(config) for config in self.start],
            pinned=dict(self.pinned),
        )

    def meta(self, resources: Resources) -> dict[str, Any]:
        """The sweep's record, written once."""
        from minbert.config import CONFIG_VERSION

        return {
            "name": self.name,
            "space": to_json(self.space),
            "space_hash": space_hash(self.space),
            "pinned": dict(self.pinned),
            "start": [dict(config) for config in self.start],
            "seed": self.seed,
            "trials": self.trials,
            "budget": self.budget,
            "eta": self.eta,
            "milestones": list(self.milestones),
            "workers": resources.workers,
            "cpus_per_trial": resources.cpus_per_trial,
            "gpus_per_trial": resources.gpus_per_trial,
            "keep": self.keep,
            "data": {"folder": self.data, "fingerprint": self.fingerprint, "inputs": dict(self.inputs)},
            "base": {"asked": self.base, "name": self.base_name, "sha256": self.base_sha256},
            "search_sizes": dict(self.search_sizes),
            "tasks": {name: dict(task) for name, task in self.tasks.items()},
            "versions": versions(),
            "config_version": CONFIG_VERSION,
            "argv": sys.argv[1:],
            "created": time.time(),
        }

    @classmethod
    def from_meta(cls, store: str, meta: Mapping[str, Any], **changes: Any) -> Plan:
        """The plan behind a record; `changes` are what may differ between launches (time, workers, address ...)."""
        values: dict[str, Any] = {
            "name": meta["name"],
            "store": store,
            "space": from_json(meta["space"]),
            "trials": meta["trials"],
            "milestones": tuple(meta["milestones"]),
            "eta": meta["eta"],
            "seed": meta["seed"],
            "resources": None,
            "data": meta["data"]["folder"],
            "fingerprint": meta["data"]["fingerprint"],
            "inputs": meta["data"].get("inputs", {}),
            "base": meta["base"]["asked"],
            "base_name": meta["base"]["name"],
            "base_sha256": meta["base"]["sha256"],
            "search_sizes": meta["search_sizes"],
            "tasks": meta["tasks"],
            "pinned": meta["pinned"],
            "start": meta["start"],
            "keep": meta["keep"],
            "workers_asked": meta["workers"],
            "cpus_per_trial": meta["cpus_per_trial"],
            "gpus_per_trial": meta["gpus_per_trial"],
        }
        return cls(**values | {name: value for name, value in changes.items() if value is not None})


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration with all defaults filled in, or a ConfigError."""
    from minbert.config import Config

    return Config.from_dict(dict(config)).to_dict()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def check_same(meta: Mapping[str, Any], **found: Any) -> None:
    """Refuse to go on where results would no longer be comparable. `found` is what there is now, by name."""
    recorded = {
        "space": meta["space_hash"],
        "data": meta["data"]["fingerprint"],
        "base": meta["base"]["sha256"],
        "config_version": meta["config_version"],
        "tasks": meta["tasks"],
    }
    words = {
        "space": "search space (hash)",
        "data": f"data in {meta['data']['folder'] or 'the sample corpus'} (fingerprint)",
        "base": f"base weights {meta['base']['name']} (SHA-256)",
        "config_version": "configuration version",
        "tasks": "declaration of the tasks (metrics, weights)",
    }
    for name, value in found.items():
        if value is not None and value != recorded[name]:
            raise MismatchError(
                f"sweep {meta['name']!r} began with another {words[name]}: {_short(recorded[name])}, now "
                f"{_short(value)}. Its trials and new ones could not be compared: start a new sweep under another "
                "name, or bring the old one back"
            )


def changed_versions(meta: Mapping[str, Any]) -> list[str]:
    """One line for each package whose version is another one now."""
    now = versions()
    return [
        f"{name} was {version} when the sweep began and is {now.get(name, 'absent')} now"
        for name, version in meta["versions"].items()
        if now.get(name) != version
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
