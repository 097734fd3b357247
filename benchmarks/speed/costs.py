"""Costs of techniques: their step compared with our plain step, and cached features compared with computed ones."""

from __future__ import annotations

from benchmarks.speed import ours
from benchmarks.speed.case import Case, Measure, Options, Side, run, warm

LORA = (*ours.SST, "adapter/kind=lora")
TOP = (*LORA, "adapter/layers/kind=top", "adapter/layers/count=2")
FROZEN = (*ours.SST, "adapter/kind=frozen")
SMART = (*ours.SST, "regularizer/sst/kind=smart")
PCGRAD = (*ours.THREE, "mixing/combine/kind=pcgrad")

LONGER = 27
"""Factor on the number of steps with cached features: 20 steps become an epoch of SST (8,544 rows), long enough to be
timed."""


def heads_alone(*, cached: bool) -> Side:
    """Training examples a second with a frozen encoder; `cached`: of the second of two trials on the same rows."""

    def side(options: Options) -> Measure:
        steps = options.steps * (LONGER if cached else 1)
        if cached:
            run(ours.opened(options, *FROZEN).step, steps)
        trial = ours.opened(options, *FROZEN)
        if not cached:
            warm(trial.step)
        return lambda: ours.rate(trial, steps, 0.0)

    return side


CASES = (
    Case("kept", "last linear layers, features kept, SST, batch 16", "examples/s", "210 x", heads_alone(cached=True),
         heads_alone(cached=False), "the same without (MINBERT_FEATURES=off)",
         rival_environment={"MINBERT_FEATURES": "off"}),
    Case("lora", "LoRA step, SST, batch 16", "ms a step", "0.5 of it", ours.stepping(*LORA),
         ours.stepping(*ours.SST), "our full step"),
    Case("top", "LoRA in the top two layers, the rest kept, SST, batch 16", "ms a step", "0.25 of it",
         ours.stepping(*TOP, again=True), ours.stepping(*ours.SST), "our full step", lambda: ours.refused(*TOP)),
    Case("pcgrad", "PCGrad over three tasks, 16 / 32 / 16", "ms a step", "1.25 of it", ours.stepping(*PCGRAD),
         ours.stepping(*ours.THREE), "our step on the summed loss"),
    Case("smart", "SMART step, SST, batch 16", "ms a step", "2.3 of it", ours.stepping(*SMART),
         ours.stepping(*ours.SST), "our plain step"),
)  # fmt: skip
