"""quickstart: what do a dozen short trials already show?

A small cut of `full` for a first look: on the sample corpus and the packaged MiniLM it ends within minutes on two
cores. It asks the questions with the largest answers: the whole encoder or LoRA (rank 4..64), each at its own learning
rate (higher than in `full`: what a small encoder needs to move in few steps), pairs cross-encoded or apart, batch
sizes, how tasks are mixed, whether SST's loss is tapered, and SMART on SST.

What it costs: as in `full`. Left out are the dear corners (ranks above 64, batches of three, frozen encoders, the last
of which learn too little in a short run to say anything) and what a short run cannot tell apart (dropouts, weight
decay, schedules): those take the defaults, which `--dry-run` lists.
"""

from search_spaces.domains import Float, Int, Kind, OneOf

SPACE = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": Float(5e-5, 5e-4, log=True)},
        lora={"rank": Int(4, 64, log=True), "/optimizer/encoder_lr": Float(5e-4, 5e-3, log=True)},
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
