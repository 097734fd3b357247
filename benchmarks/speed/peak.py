"""Share of the matrix peak: the operations that training needs, compared with the peak of the machine's matrix units.

The peak is the fastest of several large square products. The operations of training are counted from the packed tokens:
2 for each multiplication and addition, and the backward pass twice the forward pass. All layers compute N tokens; the
last layer, of which only [CLS] is used, computes N tokens for keys and values and B rows for the rest:

    forward = (L - 1) (N (8 D^2 + 4 D F) + 4 D sum_i T_i^2)  +  4 N D^2 + B (4 D^2 + 4 D F) + 4 D sum_i T_i

Padding inside attention, normalisation, dropout and the optimiser do not count: they are what lowers the share.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.speed import ours
from benchmarks.speed.case import Case, Measure, Options, Side, run, synchronise, warm
from benchmarks.speed.training import no_bf16
from minbert.data.batches import training_rows
from minbert.encoder.bert import BertConfig
from minbert.training.train import default_device
from minbert.training.trial import Trial

SIZE = {"cpu": 2048, "cuda": 16384}
"""Rows of the square matrices, large enough that memory transfers do not matter."""

PRODUCTS = 8
"""Smallest number of products; the fastest gives the peak."""


def forward_operations(config: BertConfig, lengths: Sequence[int]) -> int:
    """Floating-point operations of the encoder's matrix products for sequences of these lengths, [CLS] pooled."""
    width, inner = config.hidden_size, config.intermediate_size
    tokens, count, squares = sum(lengths), len(lengths), sum(length**2 for length in lengths)
    layer = tokens * (8 * width**2 + 4 * width * inner) + 4 * width * squares
    last = 4 * tokens * width**2 + count * (4 * width**2 + 4 * width * inner) + 4 * width * tokens
    return (config.num_hidden_layers - 1) * layer + last


def trained_lengths(trial: Trial, task: str, begin: int, end: int) -> list[int]:
    """Lengths of the sequences of a one-task trial from training row `begin` to `end`."""
    rows = training_rows(trial.data.parts[task, "train"], trial.state.seed, task, begin, end - begin)
    return [len(ids) for ids, _ in trial.model.batch(task, trial.data.file(task, "train"), rows).sequences]


def used(*pairs: str, base_size: bool = False) -> Side:
    """GFLOP/s of training on SST, from the counted operations."""

    def side(options: Options) -> Measure:
        trial = ours.opened(options, *pairs, base_size=base_size)
        warm(trial.step)

        def measure() -> dict[str, Any]:
            begin = trial.position.consumed["sst"]
            _, taken = run(trial.step, options.steps, options.seconds)
            lengths = trained_lengths(trial, "sst", begin, trial.position.consumed["sst"])
            return {"value": 3 * forward_operations(trial.data.base.config, lengths) / taken / 1e9}

        return measure

    return side


def matrix_peak(precision: str = "auto") -> Side:
    """GFLOP/s of the fastest of several large products, in the arithmetic that `precision` selects on this machine."""

    def side(options: Options) -> Measure:
        from minbert.training.model import arithmetic

        device = default_device()
        dtype, size = arithmetic(precision, device), SIZE[device.type]
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        a @ b

        def product() -> float:
            synchronise()
            begun = time.perf_counter()
            a @ b
            synchronise()
            return time.perf_counter() - begun

        def measure() -> dict[str, Any]:
            seconds: list[float] = []
            run(lambda: seconds.append(product()), PRODUCTS, options.seconds)
            return {"value": 2 * size**3 / min(seconds) / 1e9, "arithmetic": str(dtype).removeprefix("torch.")}

        return measure

    return side


CASES = (
    Case("peak", "share of the matrix peak, MiniLM, SST, batch 16", "GFLOP/s a process", "0.65", used(*ours.SST),
         matrix_peak(), "the machine's peak in our arithmetic"),
    Case("peak-bf16", "matrix peak in bf16", "GFLOP/s a process", "", matrix_peak("bf16"), matrix_peak("float32"),
         "matrix peak in float32", no_bf16, minilm=False),
)  # fmt: skip
