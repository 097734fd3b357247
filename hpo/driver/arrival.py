"""Arrival: a launch on a running cluster waits for a machine that can hold a trial, and says for what it waits.

Machines may be asleep (an autoscaler starts them on demand), gone, or not there yet. If GPUs are expected, the launch
waits for them: it never trains on CPUs for want of a machine. GPUs are expected if `--gpus-per-trial` or the record of
the sweep says so; else if a machine with GPUs lives, has left the cluster, or is of a kind that the autoscaler reports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from hpo.cluster.machines import absent_nodes, demand, living_nodes
from hpo.cluster.resources import NodeResources, ResourceError, ResourceRequest, Resources, amounts

TURN = 1.0
"""Seconds between two looks at the machines."""


def resources_of_machines(
    request: ResourceRequest,
    most: int,
    say: Callable[[str], None],
    deadline: float = math.inf,
    closed: Collection[str] = (),
    recorded_cpus: bool = False,
) -> Resources:
    """What trials get on the running cluster, with at most `most` workers unless the request says how many.

    Returns once a machine can hold a trial, busy or not. `say` receives what it waits for; `deadline`: when it gives
    up, by `time.monotonic`. `closed`: Ray's ids of nodes that are left out. `recorded_cpus`: see
    `hpo.launch.plan.Plan`. Raises ResourceError when it gives up, and for a trial that needs more than any known
    machine has.
    """
    while True:
        nodes, absent = living_nodes(closed), absent_nodes()
        asked = request.reduced((*nodes, *absent)) if recorded_cpus else request
        resources = replace(asked.expect(nodes, absent, most), closed=tuple(closed))
        if resources.fits(nodes):
            return resources
        check_hope(resources, (*nodes, *absent))
        waits = waiting_text(resources, nodes)
        say(waits)
        with demand(resources):
            while living_nodes(closed) == nodes:
                if time.monotonic() >= deadline:
                    raise ResourceError(f"the time is up, and {waits}")
                time.sleep(TURN)


def check_hope(resources: Resources, known: Sequence[NodeResources]) -> None:
    """Raise ResourceError if machines of the right kind are known, living or not, and none could hold a trial."""
    kind = [node for node in known if (node[1] if resources.gpus_per_trial else node[0])]
    if kind and not resources.fits(kind):
        replace(resources, workers=1).check_nodes(kind, "the cluster")


def waiting_text(resources: Resources, nodes: Sequence[NodeResources]) -> str:
    """What a launch waits for, in words."""
    cpus, gpus = (sum(numbers) for numbers in zip((0.0, 0.0), *nodes, strict=True))
    has = amounts(cpus, gpus if resources.gpus_per_trial else None)
    text = f"waiting for a machine with {resources.needs} for a trial; the cluster has {has} now"
    return f"{text}; --gpus-per-trial 0 trains on CPUs" if resources.gpus_per_trial else text
