"""Costs of a sweep's configurations (`minbert.training.cost`), from facts that its record holds.

Draws depend on costs, and a resume has to draw what the unbroken sweep would have drawn: so costs follow from the
record, and not from the data on a disk.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hpo.launch.record import SweepRecord

if TYPE_CHECKING:
    from minbert.tasks import Task
    from minbert.training.cost import Workload


@dataclass(frozen=True)
class Costs:
    """Costs of the configurations of a sweep. The functions import torch: only a draw needs them."""

    record: SweepRecord
    tasks: Mapping[str, Task]

    @property
    def known(self) -> bool:
        """Whether the record holds the facts; those of older sweeps do not."""
        return self.record.data.workload is not None and self.record.base.traits is not None

    @cached_property
    def _workload(self) -> Workload:
        from minbert.training.cost import Workload

        facts, base = self.record.data.workload, self.record.base.traits
        assert facts is not None and base is not None, "the costs are known"
        return Workload(self.tasks, facts.rows, facts.tokens, base, facts.stages)

    def example(self, config: dict[str, Any]) -> float:
        """Cost of an example under a complete configuration, relative to the default one."""
        from minbert.config import Config
        from minbert.training.cost import cost

        return cost(Config.from_dict(config, self.tasks), self._workload)

    def stages(self, config: Mapping[str, Any]) -> dict[Hashable, float]:
        """Cost of each stage of a configuration, relative to a full trial of the default one, by what its result
        depends on."""
        from minbert.fields import load
        from minbert.stages.stages import NoStage, Stages
        from minbert.training.cost import stage_costs

        settings = config.get("stages", {})  # an illegal draw may lack them: its trial fails
        if all(stage["kind"] == NoStage.kind for stage in settings.values()):
            return {}
        costs = stage_costs(load(Stages, settings), self._workload)
        return {(config.get("precision"), chain): cost / self.record.budget for chain, cost in costs.items()}
