"""heads: how should sentence pairs be encoded, and how should a score be computed from them?

What it varies: cross- or bi-encoding of each pair task, the pooling of every task, the features of two sentences, a
cosine added to the paraphrase score, all heads and losses of similarity, and a layer shared by both pair tasks.

Where the ranges come from: `multi_extended` (cross-encoding), `exploration` (cosine heads, cosine-embedding loss, mean
pooling), `beyond_bert` (5 relu(cos), 2.5 (cos + 1), the shared layer) and `pal_lora` (the added cosine); details in
`search_spaces/_parts.py`.

Where the priors come from: the defaults, cross-encoding with the base's own pooling, have 0.6 and 0.7. "Measured" in
`docs/techniques.md` decides between heads: cosine heads for similarity, |u - v| among the features. Rates follow the
defaults.

What it costs: all heads are small beside the encoder. Any pooling but [CLS] computes the whole last layer (with six
layers about a sixth more time). 40 trials.
"""

from search_spaces import _parts as parts

SPACE = {
    "encoding": parts.encoding(pooling=0.7, cross=0.6),
    "optimizer": {"encoder_lr": parts.FULL_RATE, "head_lr": parts.HEAD_RATE},
}
