"""mixing: in what proportion, order and weight should the tasks be trained?

What it varies: summed losses with their combinations (plain sum, PCGrad, GSE) and weights (fixed, by uncertainty,
GradNorm); round robin; tasks drawn in proportion to N^alpha with larger weights for small tasks; annealed exponents;
one task after the other; and one task alone (its scores on other tasks are those of untrained heads: a lower bound, not
a candidate). Batch sizes and tapered losses are varied too, because they also weight the tasks.

Where the ranges come from: `multi_extended` (batch sizes, tapering), `beyond_bert` (exponents, annealing, weights),
`exploration` (iterations, GSE), `enhancing` (PCGrad) and `pal_lora` (sequential order; uncertainty and GradNorm as
future work); details in `search_spaces/_parts.py`.

Where the priors come from: "Measured" in `docs/techniques.md`, where round robin and up-weighted small tasks help and
one task after the other and one task alone lose much; `benchmarks/README.md` for batch sizes. Rates follow the
defaults. One task after the other is only drawn with `--scheduler none`, since no early stop can judge it.

What it costs: with one task a step, steps are cheaper but more numerous. PCGrad needs one backward pass for each task
of a step, GSE one more step on the same rows. 40 trials show which kind is best.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Kind, OneOf

SPACE = {
    "mixing": Kind(
        **parts.mixings(),
        single={"task": OneOf("sst", "qqp", "sts")},
        weights={"summed": 8, "round_robin": 4, "alpha": 4, "annealed": 2, "sequential": 1, "single": 1},
    ),
    "batch_size": parts.BATCH_SIZES,
    "taper": parts.taper(),
    "optimizer": {"encoder_lr": parts.FULL_RATE, "head_lr": parts.HEAD_RATE},
}
