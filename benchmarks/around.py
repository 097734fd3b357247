"""around: which rung tells early what a draw around the default is worth at the end?

What it varies: few settings, each within the range in which good values are expected, so that draws are as close to
each other as those of a searcher that changes the default. Rates by a factor of 3 either way, the batch sizes of small
and middle steps, dropouts, tapers, round robin and gradient surgery.

Where the ranges come from: the default, and what `benchmarks/README.md` measured around it.

What it costs: as the default, PCGrad more.
"""

from search_spaces.domains import Float, Kind, OneOf

SPACE = {
    "optimizer": {
        "encoder_lr": Float(6e-5, 6e-4, log=True),
        "head_lr": Float(2e-4, 5e-3, log=True),
        "layer_decay": Float(0.8, 1.0),
    },
    "batch_size": OneOf(
        {"sst": 8, "qqp": 8, "sts": 4},
        {"sst": 8, "qqp": 16, "sts": 8},
        {"sst": 16, "qqp": 32, "sts": 16},
        {"sst": 3, "qqp": 32, "sts": 2},
    ),
    "mixing": Kind(summed={"combine": Kind(sum={}, pcgrad={})}, round_robin={}),
    "taper": {"sst": Kind(constant={}, inverse={"weight": Float(0.5, 2.0)}), "sts": Kind(constant={}, logarithmic={})},
    "dropout": {"hidden": OneOf(0.0, 0.1), "head": Float(0.0, 0.3)},
}
