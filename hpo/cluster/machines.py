"""The machines of the connected cluster: which live, what is free on them, which are asleep or gone."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hpo.cluster.resources import NodeResources, Resources, amounts


class Room(NamedTuple):
    """One look at a cluster."""

    nodes: tuple[NodeResources, ...]
    """The living nodes, without those that are about to leave."""
    free: tuple[NodeResources, ...]
    """What no job takes on each of them."""

    def missing(self, resources: Resources) -> str:
        """Why no trial can start, as a part of a sentence."""
        free = [sum(numbers) for numbers in zip((0.0, 0.0), *self.free, strict=True)]
        has = amounts(free[0], free[1] if resources.gpus_per_trial else None)
        rest = " on those that can run trials" if resources.closed else ""
        return f"it needs {resources.needs} on one machine, and {has} are free in all{rest}"


def living_nodes(closed: Collection[str] = ()) -> tuple[NodeResources, ...]:
    """The living nodes without those that are closed, given by Ray's ids."""
    return _numbers(node["Resources"] for node in _ray().nodes() if node["Alive"] and node["NodeID"] not in closed)


def look(closed: Collection[str] = ()) -> Room:
    """The room on the cluster now, without closed nodes."""
    without = {*leaving_nodes(), *closed}
    staying = [node for node in _ray().nodes() if node["Alive"] and node["NodeID"] not in without]
    free = _ray("._private.state").available_resources_per_node()
    return Room(
        _numbers(node["Resources"] for node in staying), _numbers(free.get(node["NodeID"], {}) for node in staying)
    )


def leaving_nodes() -> Collection[str]:
    """Ray's ids of the living nodes that were told to go: Ray starts nothing more there."""
    leaving: Collection[str] = _ray("._private.state").state.get_draining_nodes().keys()
    return leaving


def hosts_of(nodes: Collection[str]) -> dict[str, str]:
    """Each of these nodes (Ray's ids) -> its host."""
    return {node["NodeID"]: node["NodeManagerHostname"] for node in _ray().nodes() if node["NodeID"] in nodes}


def has_resources(actor: Any) -> bool:
    """Whether an actor has got its resources: it has a process, which may still be starting."""
    known = _ray("._private.state").state.actor_table(actor._actor_id.hex())
    return bool(known and known["Pid"])


def absent_nodes() -> tuple[NodeResources, ...]:
    """Nodes that the cluster does not have now: those that have left it since its head started, and one of each kind
    that its autoscaler reports."""
    dead = _ray(".core.generated.gcs_pb2").GcsNodeInfo.DEAD
    nodes = _ray("._private.worker").global_worker.gcs_client.get_all_node_info().values()
    gone = [node.resources_total for node in nodes if node.state == dead]
    config = _ray("._private.state").state.get_cluster_config()
    kinds = [] if config is None else [kind.resources for kind in config.node_group_configs]
    return _numbers([*gone, *kinds])


@contextlib.contextmanager
def demand(resources: Resources) -> Iterator[None]:
    """Request the resources of one trial within this context, so that an autoscaler starts a machine that has them."""
    from ray.util.placement_group import placement_group, remove_placement_group

    bundle = {"CPU": float(resources.cpus_per_trial), "GPU": float(resources.gpus_per_trial)}
    group = placement_group(
        [{kind: number for kind, number in bundle.items() if number}], bundle_label_selector=[resources.open_nodes]
    )
    try:
        yield
    finally:
        remove_placement_group(group)


def _numbers(nodes: Iterable[Mapping[str, float]]) -> tuple[NodeResources, ...]:
    """CPUs and GPUs of each node."""
    return tuple((float(node.get("CPU", 0.0)), float(node.get("GPU", 0.0))) for node in nodes)


def _ray(part: str = "") -> Any:
    """Ray or a part of it: neither has types."""
    return importlib.import_module(f"ray{part}")
