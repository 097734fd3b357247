"""adapters: how little of the encoder has to be trained?

Everything but the trained part stands at its default, so that scores and costs (trainable parameters, memory, seconds
per 1,000 examples) differ for that reason alone: the whole encoder with its rate and layer-wise decay, the heads alone,
LoRA and DoRA over rank 1..256 with every set of targets, in all layers or in the top one to three, and low-rank
branches per task over rank 1..100. Ranges from mE (ranks, alpha 16, dropout), bB (targets, DoRA) and pl (branches,
their dropout); see `_parts`.

What it costs: a trial of LoRA or DoRA in all layers runs through the same layers as full fine-tuning and saves the
optimiser's memory; in the top layers, without dropout below them, the rest is computed once for all trials; branches
per task need a pass for each task; frozen encoders are cheapest, and without dropout cost next to nothing after the
first trial. 30 trials tell the kinds apart, 100 the ranks within a kind.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Float, Kind

SPACE = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": parts.FULL_RATE, "/optimizer/layer_decay": Float(0.7, 1.0)},
        frozen=parts.FROZEN,
        lora=parts.LOW_RANK,
        dora=parts.LOW_RANK,
        pal=parts.PAL,
    ),
    "optimizer": {"head_lr": Float(1e-4, 1e-2, log=True)},
}
