"""Whether the cluster still takes this node for alive."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from hpo.cluster.connection import Cluster
from hpo.cluster.membership import LOOK, Membership

pytestmark = pytest.mark.timeout(400)


def test_a_dead_node_is_noticed_within_the_time_between_two_looks(
    ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    membership = Membership(lambda: now)
    assert not membership.lost(), "this node is alive"
    own = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = [{"NodeID": own, "Alive": False}, {"NodeID": "another", "Alive": True}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert not membership.lost(), "it has just looked"
    now += LOOK
    assert membership.lost()
    now += LOOK
    nodes[0]["Alive"], nodes[1]["Alive"] = True, False
    assert not membership.lost(), "another node is dead"


def test_no_answer_is_no_death(ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def nodes() -> None:
        raise RuntimeError("no connection to the head")

    monkeypatch.setattr(ray, "nodes", nodes)
    assert not Membership().lost()
