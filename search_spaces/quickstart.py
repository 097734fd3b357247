"""quickstart: what do a dozen short trials already show?

What it varies: the settings with the largest effects in `full`. The whole encoder or LoRA (rank 4..64), each with its
own learning rates; pairs cross-encoded or encoded separately; batch sizes; task mixing; whether the loss of SST is
tapered; SMART on SST. Other settings keep their defaults, which `--dry-run` lists.

Where the ranges come from: `full`. Left out are expensive settings (ranks above 64, batches of three rows), frozen
encoders, which learn too little in a short run, and settings whose effect a short run cannot show (dropout, weight
decay, schedules).

Where the priors come from: the defaults, and two sweeps over this space (`docs/log.md`). The best trials of the first
score STS apart by its cosine, in batches of 8/16/8: both have half of the draws. LoRA, which is behind in short runs,
has a quarter.

What it costs: minutes, with the sample corpus and the packaged MiniLM on two cores; per example as in `full`. A dozen
trials.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Float, Int, Kind, OneOf

SPACE = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": parts.FULL_RATE},
        lora={"rank": Int(4, 64, log=True), "/optimizer/adapter_lr": parts.ADAPTER_RATE},
        weights=0.75,
    ),
    "encoding": {
        "qqp": Kind(cross={}, bi={"head": Kind(linear={"features": OneOf("difference")})}, weights=0.7),
        "sts": Kind(cross={}, bi={"head": Kind(cosine={"transform": OneOf("relu", "shift")})}),
    },
    "mixing": Kind(summed={}, alpha={"alpha": Float(0.0, 1.0)}, weights=0.7),
    "batch_size": OneOf({"sst": 8, "qqp": 16, "sts": 8}, {"sst": 16, "qqp": 32, "sts": 16}),
    "taper": {"sst": Kind(constant={}, inverse={"weight": Float(0.5, 1.0)}, weights=0.8)},
    "regularizer": {"sst": Kind(none={}, smart={"weight": Float(0.5, 5.0, log=True)}, weights=0.8)},
    "optimizer": {"head_lr": parts.HEAD_RATE},
}
