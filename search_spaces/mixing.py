"""mixing: in what proportion, order and weight should the tasks be trained?

What it varies: summed losses with their combinations (plain sum, PCGrad, GSE) and weights (fixed, by uncertainty,
GradNorm); round robin; tasks drawn in proportion to N^alpha with larger weights for small tasks; annealed exponents;
one task after the other; and one task alone (its scores on other tasks are those of untrained heads: a lower bound, not
a candidate). Batch sizes and tapered losses are varied too, because they also weight the tasks.

Where the ranges come from: `multi_extended` (batch sizes, tapering), `beyond_bert` (exponents, annealing, weights),
`exploration` (iterations, GSE), `enhancing` (PCGrad) and `pal_lora` (sequential order; uncertainty and GradNorm as
future work); details in `search_spaces/_parts.py`.

What it costs: with one task a step, steps are cheaper but more numerous. PCGrad needs one backward pass for each task
of a step, GSE one more step on the same rows. 40 trials show which kind is best.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Float, Kind, OneOf

SPACE = {
    "mixing": Kind(**parts.MIXING.branches, single={"task": OneOf("sst", "qqp", "sts")}),
    "batch_size": parts.BATCH_SIZES,
    "taper": parts.TAPER,
    "optimizer": {"encoder_lr": Float(3e-5, 3e-4, log=True), "head_lr": Float(1e-4, 1e-2, log=True)},
}
