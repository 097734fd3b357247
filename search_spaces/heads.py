"""heads: how should two sentences be read, and a score be made of them?

Cross- or bi-encoding for each pair task, pooling for every task, features of two states, a cosine added to the
paraphrase score, every head and loss of similarity, and a layer that both pair tasks share. Ranges from mE
(cross-encoding), ex (cosine heads, the cosine-embedding loss, mean pooling), bB (5 relu, 2.5 (cos + 1), the shared
layer) and pl (the added cosine); see `_parts`.

What it costs: all heads are small beside the encoder; pooling other than [CLS] computes the whole last layer (about a
sixth more time on six layers). 40 trials.
"""

from search_spaces.domains import Float
from search_spaces.full import SPACE as FULL

SPACE = {
    "encoding": FULL["encoding"],
    "optimizer": {"encoder_lr": Float(3e-5, 3e-4, log=True), "head_lr": Float(1e-4, 1e-2, log=True)},
}
