"""mixing: in what proportion, order and weight should the tasks be trained?

Summed losses with their combinations (plain sum, PCGrad, GSE) and weights (fixed, by uncertainty, GradNorm), round
robin, draws by N^alpha with the small tasks weighed up, annealed exponents, one task after the other, and one task
alone (its other scores are those of untrained heads: a lower bound, not a candidate). Batch sizes and tapering belong
to the question, for they weigh tasks as well. Ranges from mE (batch sizes, tapering), bB (exponents, annealing,
weights), ex (iterations, GSE), en (PCGrad) and pl (sequential order; uncertainty and GradNorm as future work); see
`_parts`.

What it costs: draws of one task a step make steps cheaper and more of them; PCGrad needs a backward pass for each task
of a step, GSE one more step on the same rows. 40 trials show the kinds.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Float, Kind, OneOf

SPACE = {
    "mixing": Kind(**parts.MIXING.branches, single={"task": OneOf("sst", "qqp", "sts")}),
    "batch_size": parts.BATCH_SIZES,
    "taper": parts.TAPER,
    "optimizer": {"encoder_lr": Float(3e-5, 3e-4, log=True), "head_lr": Float(1e-4, 1e-2, log=True)},
}
