"""Cases of training on a CPU: MiniLM on one task and on the papers' mix, a tuned rival, and BERT-base's size."""

from __future__ import annotations

from benchmarks.speed import ours, theirs
from benchmarks.speed.case import Case

PLAIN = "transformers' plain loop, float32"
TUNED = "transformers' loop with bf16 autocast and fused AdamW"
MIX = {"sst": 3, "qqp": 32, "sts": 2}


def no_bf16() -> str | None:
    """The reason why bf16 makes no sense on this CPU; None if it does."""
    import torch

    from minbert.training.model import native_bf16

    if native_bf16(torch.device("cpu")):
        return None
    return "this CPU has no native bf16 matrix products, so bf16 would slow both sides (--all measures it)"


def only_float32() -> str | None:
    """The reason why float32 needs no case of its own here; None if it does."""
    return None if no_bf16() is None else "it equals case `sst`, because our arithmetic is float32 here anyway"


CASES = (
    Case("sst", "training, MiniLM, SST, batch 16", "examples/s", "4.5 x", ours.training(*ours.SST),
         theirs.training({"sst": 16}), PLAIN, foreign=True),
    Case("qqp", "training, MiniLM, QQP pairs, batch 32", "examples/s", "5 x", ours.training(*ours.QQP),
         theirs.training({"qqp": 32}), PLAIN, foreign=True),
    Case("tuned", "training, MiniLM, SST, batch 16, tuned rival", "examples/s", "2.2 x", ours.training(*ours.SST),
         theirs.training({"sst": 16}, tuned=True), TUNED, no_bf16, foreign=True),
    Case("mix", "training, MiniLM, 3 / 32 / 2 in one step", "examples/s", "4.5 x", ours.training(*ours.MIX),
         theirs.training(MIX), "one encoder, three heads, three forward passes summed", foreign=True),
    Case("base", "training, BERT-base size, SST, batch 16", "examples/s", "4 x",
         ours.training(*ours.SST, base_size=True), theirs.training({"sst": 16}, base_size=True), PLAIN,
         foreign=True, base_size=True, minilm=False),
    Case("float32", "training, MiniLM, SST, batch 16, ours in float32", "examples/s", "2.3 x",
         ours.training(*ours.SST, "precision=float32"), theirs.training({"sst": 16}), PLAIN, only_float32,
         foreign=True),
)  # fmt: skip
