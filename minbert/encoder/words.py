"""Word embeddings whose gradient holds only the rows that a step uses.

A step of a few hundred tokens uses a few hundred of 30,522 rows, yet autograd gives the table a gradient of its full
size: 47 MB to clear, add up, measure, clip and give back at every step. Here a leaf tensor holds the rows in use:

    leaf = table[unique(ids)],   lookups read leaf[place[ids]],   table.grad[unique(ids)] = leaf.grad

The leaf replaces the table wherever gradients are combined, measured or clipped. The optimiser then sees the table's
full gradient, zero elsewhere, in memory that stays allocated: every row's moments decay and its weights move, as with
a plain embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class WordEmbedding(nn.Embedding):
    """Embedding table [V, D] of word pieces; between `take` and `release` lookups read only the rows taken out."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__(size, width)
        # Tensors, not parameters or buffers: they belong to a step, not to the model.
        self._leaf: Tensor | None = None  # [U, D]
        self._rows: Tensor | None = None  # [U], the table's row for each row of the leaf
        self._place: Tensor | None = None  # [V], each table row's index in the leaf; -1: not taken
        self._gradient: Tensor | None = None  # [V, D], zero between steps

    def take(self, ids: Sequence[NDArray[np.int32]]) -> None:
        """Take out the rows of these word pieces; until `release` only they can be looked up.

        A frozen table has no gradient, so nothing is taken out.
        """
        if not self.weight.requires_grad:
            return
        device = self.weight.device
        self._rows = torch.from_numpy(np.unique(np.concatenate(ids)).astype(np.int64)).to(device, non_blocking=True)
        self._leaf = self.weight.detach().index_select(0, self._rows).requires_grad_()
        if self._place is None:
            self._place = torch.empty(len(self.weight), dtype=torch.int64, device=device)
        self._place.fill_(-1).index_copy_(0, self._rows, torch.arange(len(self._rows), device=device))

    def stand_in(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """The parameters, with the leaf in place of the table while rows are taken out."""
        leaf = self._leaf
        return [leaf if leaf is not None and value is self.weight else value for value in parameters]

    def settle(self) -> None:
        """Copy the leaf's gradient, if it has one, into the table's gradient."""
        if self._leaf is None or self._leaf.grad is None:
            return
        assert self._rows is not None
        if self._gradient is None:
            self._gradient = torch.zeros_like(self.weight)
        self.weight.grad = self._gradient.index_copy_(0, self._rows, self._leaf.grad)

    def release(self) -> None:
        """Drop the leaf and the gradient: lookups read the table again."""
        if self._rows is None:
            return
        if self._gradient is not None:
            self._gradient.index_fill_(0, self._rows, 0.0)
        self._rows = self._leaf = self.weight.grad = None

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings [N, D] of word pieces [N]."""
        if self._leaf is None:
            return super().forward(ids)
        assert self._place is not None
        return F.embedding(self._place[ids], self._leaf)  # an id that was not taken gives index -1, an error
