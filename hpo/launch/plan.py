"""Plan of a launch: a checked sweep that is ready to start.

`hpo.launch.prepare` makes the plan of a new sweep from a request. `hpo.launch.relaunch` makes the plan of another
launch from the sweep's record. Both plans run the same way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hpo.cluster.resources import Resources
from hpo.launch.costs import Costs
from hpo.launch.record import SweepRecord
from hpo.search.expectation import expected_examples
from hpo.search.repeats import allowed, most
from hpo.search.schedulers import Scheduler, scheduler_from
from hpo.search.searchers import Searcher, searcher_from
from hpo.search.sweep import Sweep
from hpo.space.pins import Complete
from hpo.space.space import Space

if TYPE_CHECKING:
    from minbert.encoder.traits import Traits
    from minbert.tasks import Task
    from results.files import Folder
    from results.objectives import Objective

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
    examples: Range
    """Cost, in training examples of the default configuration."""
    share: float
    """Share of the draws that have the stage, in [0, 1]."""


@dataclass(frozen=True)
class CostSpread:
    """Costs of a training example over draws of the space, relative to the default configuration; without stages."""

    draws: int
    low: float
    """10 % of the draws cost less."""
    median: float
    high: float
    """10 % of the draws cost more."""
    dearest: float
    mean: float


@dataclass(frozen=True)
class Preview:
    """Facts about a plan that are only shown, before the sweep begins."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Configuration paths that the space leaves out -> the default values that they take."""
    left_out: tuple[str, ...] = ()
    """Parts of the space that only concern tasks which the sweep does not have; see `hpo.space.tasks`."""
    notes: tuple[str, ...] = ()
    """Remarks, such as pins that only some branches have."""
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Task -> split -> rows."""
    problems: tuple[str, ...] = ()
    """Problems in the data, as `file: reason` or `file:line: reason`."""
    example_seconds: float | None = None
    """Rough time of a training example of the default configuration in seconds; None: unknown."""
    seconds: float | None = None
    """Rough time of the whole search in seconds, without stages before training; None: unknown."""
    costs: CostSpread | None = None
    """Costs of the draws; None: unknown."""
    stages: tuple[StageWork, ...] = ()
    """Work of each stage before training that some trial may have."""


@dataclass(frozen=True)
class Plan:
    """One launch of a sweep, checked."""

    store: str
    record: SweepRecord
    """The content of `sweep.json`, written or to be written."""
    space: Space
    """The record's search space, with its pinned parameters."""
    trials: int
    """Total number of trials of the sweep, earlier launches included."""
    resources: Resources | None
    """What trials get; None: `record.resources` is fitted to the cluster once the driver has reached it."""
    address: str | None = None
    """Address of a running Ray cluster; None: one of our own on this machine."""
    time: float | None = None
    """Seconds after which this launch stops, resumable; None: no limit."""
    trial_timeout: float | None = None
    """Seconds that the worker of a trial may be silent before it is killed; None: they follow from the rate seen."""
    pause_timeout: float | None = None
    """Seconds that a stop waits for trials to write checkpoints; None: two minutes."""
    retry_failed: bool = False
    """Whether failed trials are tried again."""
    trainer: str | None = None
    """Module that trains, as the caller of this launch names it; see `hpo.launch.record.check_trainer`."""
    warnings: tuple[str, ...] = ()
    """Changes since the sweep began that are shown while it runs, such as another version of a package."""
    preview: Preview = Preview()

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.record.name

    @cached_property
    def folder(self) -> Folder:
        """The sweep's folder."""
        from results.places import locate

        return locate(self.store).child(self.name)

    @property
    def most_examples(self) -> int:
        """Examples that the trials of the search use together if none is stopped early."""
        return self.trials * self.record.budget

    @property
    def searcher(self) -> Searcher:
        """The searcher that the record names."""
        return searcher_from(self.record.searcher)

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler that the record names."""
        return scheduler_from(self.record.scheduler)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives that the record names."""
        from results.objectives import objectives_from

        return objectives_from(self.record.objectives, self.record.tasks)

    @property
    def expected_examples(self) -> int:
        """Examples that the trials of the search are expected to use together; see `hpo.search.expectation`."""
        return expected_examples(self.scheduler, self.trials, self.record.milestones, self.record.exempt)

    @property
    def expected_repeats(self) -> int:
        """Number of repeats if the search uses as many examples as expected; see `hpo.search.repeats`."""
        return min(most(self.record.repeats), allowed(self.expected_examples, self.record.budget))

    @property
    def most_repeats(self) -> int:
        """Number of repeats if no trial is stopped early."""
        return min(most(self.record.repeats), allowed(self.most_examples, self.record.budget))

    @property
    def expected_cost(self) -> int:
        """Expected cost of all trials and repeats together with their evaluation, in trained examples."""
        searched = expected_examples(self.scheduler, self.trials, self._costs, self.record.exempt)
        return searched + self.expected_repeats * self.full_cost

    @property
    def full_cost(self) -> int:
        """Cost of a trial that uses its full budget, with its evaluation, in trained examples."""
        return self._costs[-1]

    @property
    def _costs(self) -> list[int]:
        """Cost of a trial up to each milestone, with its evaluation, in trained examples."""
        from minbert.training.milestones import costs

        return [round(cost) for cost in costs(self.record.milestones, self.record.report_rows)]

    def declared(self) -> dict[str, Task]:
        """The declarations of the sweep's tasks."""
        from minbert.tasks import choose_tasks

        return choose_tasks(self.record.tasks)

    def sweep(self, workers: int) -> Sweep:
        """The search as a pure object, before its first trial."""
        record, tasks = self.record, self.declared()
        costs = Costs(record, tasks)
        return Sweep(
            self.space,
            seed=record.seed,
            trials=self.trials,
            milestones=record.milestones,
            searcher=self.searcher,
            scheduler=self.scheduler,
            workers=workers,
            complete=complete_for(tasks, record.base.traits),
            start=[dict(config) for config in record.start],
            exempt=record.exempt,
            warm=[dict(config) for source in record.warm_start for config in source.configs],
            cost=costs.example if costs.known else None,
            shared=costs.stages if costs.known else None,
            repeats=record.repeats,
            further=[objective.gain for objective in self.objectives[1:]],
        )

    def begun(self, resources: Resources) -> SweepRecord:
        """The record of a sweep that begins now, whose trials get these resources; how many run at once stays as it
        was requested, for a resume on other machines."""
        asked = replace(resources.request(), workers=self.record.resources.workers)
        return replace(self.record, resources=asked, created=time.time())


def complete_for(tasks: Mapping[str, Task], base: Traits | None = None) -> Complete:
    """A function that fills in the defaults of a nested configuration over these tasks, for a base (None: MiniLM).

    The function raises ConfigError for a configuration that is illegal or makes no sense for these tasks.
    """
    from minbert.config import Config

    def complete_and_check(config: Mapping[str, Any]) -> dict[str, Any]:
        result = Config.from_dict(config, tasks, base)
        result.check(tasks)
        return result.to_dict()

    return complete_and_check
