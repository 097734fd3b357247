"""The mathematics of the stages before training, as pure functions.

    MNRL (Henderson et al. 2017; Reimers and Gurevych 2019; `beyond_bert`, section 4):
        J = -1/B sum_i [ S(a_i, p_i) - log sum_j exp S(a_i, p_j) ],   S(a, p) = scale * cos(a, p)
    MLM (Devlin et al. 2019, section 3.1): cross-entropy of the chosen pieces; 80 % of them are shown as [MASK], 10 % as
        a random piece, 10 % unchanged.

Letters: B pairs, N packed tokens, M chosen tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SHOWN_AS_MASK = 0.8
"""Share of the chosen pieces that are replaced by [MASK] (Devlin et al. 2019)."""

SHOWN_AS_RANDOM = 0.1
"""Share of the chosen pieces that are replaced by any piece of the vocabulary."""


def mnrl(anchors: Tensor, positives: Tensor, scale: float, same: Tensor | None = None) -> Tensor:
    """Cross-entropy of each anchor's own positive against all positives of the batch, a scalar.

    `anchors`, `positives` [B, D]; `same` [B, B] marks pairs (i, j) whose p_j is no negative of a_i; they are left out.
    """
    with torch.autocast(anchors.device.type, enabled=False):  # autocast would round the product to bf16
        scores = scale * F.normalize(anchors.float(), dim=-1) @ F.normalize(positives.float(), dim=-1).T  # [B, B]
    if same is not None:
        scores = scores.masked_fill(same, -torch.inf)
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def known_duplicates(anchors: list[bytes], positives: list[bytes]) -> NDArray[np.bool_]:
    """Mask [B, B] of pairs j, other than i, that share a text with pair i, so that p_j is not a negative of a_i."""
    number = {text: index for index, text in enumerate(dict.fromkeys((*anchors, *positives)))}
    a, p = np.array([number[text] for text in anchors]), np.array([number[text] for text in positives])
    same: NDArray[np.bool_] = (p[None, :] == p[:, None]) | (p[None, :] == a[:, None])
    same |= (a[None, :] == a[:, None]) | (a[None, :] == p[:, None])
    np.fill_diagonal(same, val=False)
    return same


def corrupt(
    ids: NDArray[np.int64],
    special: NDArray[np.bool_],
    rate: float,
    vocabulary: int,
    mask: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """BERT's corruption: (pieces shown to the encoder [N], indices of the chosen pieces [M]).

    Each piece of `ids` [N] that is not `special` [N] is chosen with probability `rate`; at least one piece is chosen.
    `vocabulary` V is its size, `mask` the id of [MASK]. The number of draws depends on N alone.
    """
    choice, fate = generator.random(len(ids)), generator.random(len(ids))
    chosen = (choice < rate) & ~special
    if not chosen.any():
        chosen[np.where(special, np.inf, choice).argmin()] = True
    shown = np.where(chosen & (fate < SHOWN_AS_MASK), mask, ids)
    random = chosen & (fate >= SHOWN_AS_MASK) & (fate < SHOWN_AS_MASK + SHOWN_AS_RANDOM)
    shown = np.where(random, generator.integers(0, vocabulary, len(ids)), shown)
    return shown.astype(np.int64), np.flatnonzero(chosen)


def tied_cross_entropy(states: Tensor, embeddings: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of word pieces `targets` [M] under the logits h E^T + b, a scalar.

    `states` h [M, D], `embeddings` E [V, D] the encoder's own word embeddings, `bias` b [V].
    """
    return F.cross_entropy(F.linear(states, embeddings, bias).float(), targets)
