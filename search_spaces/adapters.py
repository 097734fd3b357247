"""adapters: how few of the model's weights must be trained for a good score?

What it varies: full fine-tuning with its learning rate and layer-wise decay; the heads alone; LoRA and DoRA with rank
1..256 and all sets of target layers, in all layers or in the top one to three; low-rank branches for each task with
rank 1..100. All other settings keep their defaults, so that differences in score and cost (trainable parameters,
memory, seconds per 1,000 examples) come from this choice alone.

Where the ranges come from: `multi_extended` (ranks, alpha 16, dropout), `beyond_bert` (targets, DoRA) and `pal_lora`
(branches and their dropout); details in `search_spaces/_parts.py`.

Where the priors come from: "Measured" in `docs/techniques.md`, where heads alone fall far behind and LoRA on all
linear layers stays within 0.013 of full fine-tuning. LoRA has the largest share, because it answers the question best;
ranks and rates follow the defaults.

What it costs: LoRA and DoRA in all layers compute the same layers as full fine-tuning and save the optimiser's memory.
In the top layers, without dropout below them, the lower layers are computed once for all trials. Branches need one
pass for each task. A frozen encoder is cheapest: without dropout it costs almost nothing after the first trial. 30
trials show which kind is best, 100 also which rank.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Kind, OneOf

SPACE = {
    "adapter": Kind(
        none={
            "/optimizer/encoder_lr": parts.FULL_RATE,
            "/optimizer/layer_decay": OneOf(0.7, 0.8, 0.9, 1.0, weights=0.7),
        },
        frozen=parts.FROZEN,
        lora=parts.LOW_RANK,
        dora=parts.LOW_RANK,
        pal=parts.PAL,
        weights={"none": 4, "frozen": 1, "lora": 6, "dora": 3, "pal": 3},
    ),
    "optimizer": {"head_lr": parts.HEAD_RATE},
}
