"""Work: what a technique adds to a training step, counted, so that `minbert.training.cost` can say what it costs.

A technique states its own numbers beside its own code, in multiples of what a plain step does: passes of a batch
through the encoder, multiplications of a token, weights that are visited.
"""

from __future__ import annotations

from dataclasses import dataclass

THIN = 90
"""Rank that a low-rank product is counted with in addition to its own. A thin product is bound by the states that it
reads and writes, not by its multiplications."""


@dataclass(frozen=True)
class Passes:
    """Passes of a batch through the encoder, beside the step's own forward and backward pass."""

    forward: int = 0
    """Forward passes."""
    to_words: int = 0
    """Backward passes to the word embeddings, without gradients of weights."""
    whole: int = 0
    """Backward passes like the step's own, to everything that is trained."""


@dataclass(frozen=True)
class Trained:
    """The trained part of an encoder."""

    still: int = 0
    """Number of lowest layers that no backward pass goes through."""
    layers: bool = False
    """Whether the linear layers of the base are trained."""
    words: bool = False
    """Whether the embeddings are trained."""
    added: int = 0
    """Number of weights added to the encoder."""
    multiplications: int = 0
    """Multiplications of a token with what is added, in a forward pass through all layers."""


def low_rank(rank: int, ends: int) -> int:
    """Multiplications of a token with a low-rank product B A of rank r, counted with THIN; `ends` is d_in + d_out."""
    return (rank + THIN) * ends
