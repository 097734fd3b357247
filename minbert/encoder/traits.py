"""Traits of a base encoder that default values of a configuration depend on: its size, and its own pooling."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """Traits of a base encoder."""

    width: int
    """Hidden size D."""
    layers: int
    """Number of layers."""
    pooling: str
    """Pooling that the encoder was trained with: mean or max for a sentence encoder that names it, else cls."""


MINILM = Traits(384, 6, "mean")
"""Traits of the packaged MiniLM, the default base."""
