"""Cases for a GPU: training at BERT-base's size against the rival in float32 and bf16; several trials on one card."""

from __future__ import annotations

from benchmarks.speed import ours, theirs
from benchmarks.speed.case import Case
from benchmarks.speed.peak import matrix_peak, used
from benchmarks.speed.training import MIX, PLAIN, TUNED

BATCHES = {
    "sst": ("SST, batch 16", ours.SST, {"sst": 16}),
    "qqp": ("QQP pairs, batch 32", ours.QQP, {"qqp": 32}),
    "mix": ("3 / 32 / 2 in one step", ours.MIX, MIX),
}
ONE = (1, 1)


def _training() -> tuple[Case, ...]:
    return tuple(
        Case(f"gpu-{name}{suffix}", f"training, BERT-base size, {what}{words}", "examples/s", "",
             ours.training(*settings, base_size=True), theirs.training(sizes, tuned=tuned, base_size=True),
             TUNED if tuned else PLAIN, foreign=True, base_size=True, minilm=False, processes=ONE)
        for name, (what, settings, sizes) in BATCHES.items()
        for suffix, words, tuned in (("", "", False), ("-tuned", ", tuned rival", True))
    )  # fmt: skip


def _shared() -> tuple[Case, ...]:
    alone = ours.training(*ours.SST, base_size=True)
    return tuple(
        Case(f"gpu-{count}-trials", f"{count} trials on one card, BERT-base size, SST, batch 16", "examples/s", "",
             alone, alone, "one trial alone", base_size=True, minilm=False, processes=(count, 1))
        for count in (1, 4, 8)
    )  # fmt: skip


CASES = (
    *_training(),
    Case("gpu-peak", "share of the matrix peak, BERT-base size, SST, batch 16", "GFLOP/s a process", "",
         used(*ours.SST, base_size=True), matrix_peak(), "the card's peak in our arithmetic", base_size=True,
         minilm=False, processes=ONE),
    *_shared(),
)  # fmt: skip
