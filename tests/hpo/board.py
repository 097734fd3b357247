"""What driver and workers tell each other, without Ray."""

from __future__ import annotations

from collections.abc import Collection


class MemoryBoard:
    """What driver and workers tell each other, kept in memory."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        """Tune's id -> the place of its worker."""
        self.nodes: dict[str, str] = {}
        """Tune's id -> the node of its worker."""
        self.closed: frozenset[str] = frozenset()
        self.asked: frozenset[str] | None = frozenset()
        """Nodes whose trials are to pause; None: all."""

    def place_of(self, tune_id: str) -> str:
        return self.places.get(tune_id, "")

    def node_of(self, tune_id: str) -> str:
        return self.nodes.get(tune_id, "")

    def raise_flag(self, nodes: Collection[str] | None = None) -> None:
        self.asked = None if nodes is None else frozenset(nodes)

    def close_places(self, places: Collection[str]) -> None:
        self.closed = frozenset(places)
