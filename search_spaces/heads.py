"""heads: how should sentence pairs be encoded, and how should a score be computed from them?

What it varies: cross- or bi-encoding of each pair task, the pooling of every task, the features of two sentences, a
cosine added to the paraphrase score, all heads and losses of similarity, and a layer shared by both pair tasks.

Where the ranges come from: `multi_extended` (cross-encoding), `exploration` (cosine heads, cosine-embedding loss, mean
pooling), `beyond_bert` (5 relu(cos), 2.5 (cos + 1), the shared layer) and `pal_lora` (the added cosine); details in
`search_spaces/_parts.py`.

What it costs: all heads are small beside the encoder. Any pooling but [CLS] computes the whole last layer (with six
layers about a sixth more time). 40 trials.
"""

from search_spaces.domains import Float
from search_spaces.full import SPACE as FULL

SPACE = {
    "encoding": FULL["encoding"],
    "optimizer": {"encoder_lr": Float(3e-5, 3e-4, log=True), "head_lr": Float(1e-4, 1e-2, log=True)},
}
