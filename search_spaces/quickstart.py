"""quickstart: what do a dozen short trials already show?

What it varies: the settings with the largest effects in `full`. The whole encoder or LoRA (rank 4..64), each with its
own learning rates; pairs cross-encoded or encoded separately; batch sizes; task mixing; whether the loss of SST is
tapered; SMART on SST. Other settings keep their defaults, which `--dry-run` lists.

Where the ranges come from: `full`, with higher learning rates, because a small encoder must move in few steps. Left out
are expensive settings (ranks above 64, batches of three rows), frozen encoders, which learn too little in a short run,
and settings whose effect a short run cannot show (dropout, weight decay, schedules).

What it costs: minutes, with the sample corpus and the packaged MiniLM on two cores; per example as in `full`. A dozen
trials.
"""

from search_spaces.domains import Float, Int, Kind, OneOf

SPACE = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": Float(5e-5, 5e-4, log=True)},
        lora={"rank": Int(4, 64, log=True), "/optimizer/adapter_lr": Float(5e-4, 5e-3, log=True)},
    ),
    "encoding": {
        "qqp": Kind(cross={}, bi={"head": Kind(linear={"features": OneOf("difference")})}),
        "sts": Kind(cross={}, bi={"head": Kind(cosine={"transform": OneOf("relu", "shift")})}),
    },
    "mixing": Kind(summed={}, alpha={"alpha": Float(0.0, 1.0)}),
    "batch_size": OneOf({"sst": 8, "qqp": 16, "sts": 8}, {"sst": 16, "qqp": 32, "sts": 16}),
    "taper": {"sst": Kind(constant={}, inverse={"weight": Float(0.5, 1.0)})},
    "regularizer": {"sst": Kind(none={}, smart={"weight": Float(0.5, 5.0, log=True)})},
    "optimizer": {"head_lr": Float(3e-4, 1e-2, log=True)},
}
