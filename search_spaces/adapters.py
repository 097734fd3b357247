"""adapters: how few of the model's weights must be trained for a good score?

What it varies: full fine-tuning with its learning rate and layer-wise decay; the heads alone; LoRA and DoRA with rank
1..256 and all sets of target layers, in all layers or in the top one to three; low-rank branches for each task with
rank 1..100. All other settings keep their defaults, so that differences in score and cost (trainable parameters,
memory, seconds per 1,000 examples) come from this choice alone.

Where the ranges come from: `multi_extended` (ranks, alpha 16, dropout), `beyond_bert` (targets, DoRA) and `pal_lora`
(branches and their dropout); details in `search_spaces/_parts.py`.

What it costs: LoRA and DoRA in all layers compute the same layers as full fine-tuning and save the optimiser's memory.
In the top layers, without dropout below them, the lower layers are computed once for all trials. Branches need one
pass for each task. A frozen encoder is cheapest: without dropout it costs almost nothing after the first trial. 30
trials show which kind is best, 100 also which rank.
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
