"""full: which combination of all techniques gives one BERT its best score on sentiment, paraphrase and similarity?

What it varies:

- Trained part: the whole encoder with layer-wise decay, the heads alone, LoRA and DoRA in all layers or in the top
  ones, low-rank branches for each task.
- Stages before training: masked language modelling on the tasks' text, natural language inference, contrastive training
  on paraphrases. Each is off or has one setting: all trials that ask for the same stage share its result, so few
  settings cost little, but a range would cost one stage for each trial. The space `stages` varies more.
- Augmentation of SST by edits, drawn for each row: none, half a new row or one new row for each row.
- Pairs: cross-encoded (the largest single gain of `multi_extended`) or encoded separately; pooling; heads and losses of
  similarity.
- Task mixing, tapered losses, batch sizes, SMART for each task, the Bregman proximal point, dropout, learning-rate
  schedules, gradient accumulation, and whether a trial returns its last weights, their average or its best.

A branch owns its parameters. PCGrad, GSE and balanced losses exist only where the tasks' losses are summed; features of
two sentences only where these are encoded separately; a layer shared by the pair tasks only where both are encoded
separately and have linear heads. Left out is `mixing` of kind `single`, one model per task, which cannot win on a score
over all tasks; `--tasks sst` answers that question better.

Where the ranges come from: the five papers, their proposals for future work included; `search_spaces/_parts.py` gives
the source of each range.

Where the priors come from: the default configuration, the best that was measured (`benchmarks/README.md`), is the
centre of every range, and a draw changes few of its choices. Each technique of the papers is in 2 to 10 % of the draws,
with larger shares for what helped in "Measured" (`docs/techniques.md`): round robin, cosine heads, |u - v|, all linear
layers under LoRA, up-weighted small tasks. What the papers vary most is in a tenth or more: batch sizes, the rank of
LoRA and DoRA, SMART, tapers, sampling by size. Stages before training, for which no table shows a gain, are in a tenth
of the draws together. SMART on the pair tasks, dropout, accumulation and frozen encoders, which cost scores, are rare.

What it costs, per training example: cross-encoding and separate encoding cost about the same (the tokens are the same).
SMART adds two forward and one and a half backward passes to each batch of its task, Bregman one forward pass. PCGrad
needs one backward pass for each task, GSE the same and one more step. LoRA saves memory and the optimiser's time, but
computes forward and backward passes of the layers that it adapts. The output of a frozen part of the encoder is
computed once for all trials, unless that part has dropout. The space has 76 parameters (`hpo spaces full`): 100
trials or more.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Float, Kind, OneOf

SPACE = {
    "adapter": Kind(
        none={
            "/optimizer/encoder_lr": parts.FULL_RATE,
            "/optimizer/layer_decay": OneOf(0.8, 0.9, 0.95, 1.0, weights=0.88),
        },
        frozen=parts.FROZEN,
        lora=parts.LOW_RANK,
        dora=parts.LOW_RANK,
        pal=parts.PAL,
        weights={"none": 73, "frozen": 4, "lora": 13, "dora": 5, "pal": 5},
    ),
    "stages": {
        # `pal_lora` trains until the loss converges; a short trial can wait for one pass.
        "mlm": Kind(none={}, mlm={"epochs": OneOf(1.0), "mask_rate": OneOf(0.15)}, weights=0.973),
        # `multi_extended`: 5e-6 and 5 epochs of 433,000 pairs.
        "nli": Kind(none={}, nli={"lr": OneOf(2e-5), "epochs": OneOf(0.25)}, weights=0.973),
        # `beyond_bert`: scale 10, 20, 40 and 1, 3, 5, 10 epochs.
        "mnrl": Kind(none={}, mnrl={"scale": OneOf(20.0), "epochs": OneOf(1.0)}, weights=0.973),
    },
    "augmentation": Kind(none={}, edit={"amount": OneOf(0.5, 1.0)}, weights=0.95),
    "encoding": parts.encoding(pooling=0.91, cross=0.9),
    "mixing": Kind(
        **parts.mixings(combine=0.9),
        weights={"summed": 71, "round_robin": 8, "alpha": 13, "annealed": 5, "sequential": 3},
    ),
    "batch_size": parts.BATCH_SIZES,
    "taper": parts.taper(constant=0.87),
    "regularizer": {
        "sst": Kind(none={}, smart=parts.SMART, weights=0.91),
        "qqp": Kind(none={}, smart={"weight": Float(0.5, 5.0, log=True)}, weights=0.97),
        "sts": Kind(none={}, smart={"weight": Float(0.5, 5.0, log=True)}, weights=0.97),
    },
    "average": Kind(none={}, exponential=parts.AVERAGE, weights=0.94),
    "proximal": Kind(none={}, bregman=parts.BREGMAN, weights=0.96),
    "optimizer": {
        "head_lr": parts.HEAD_RATE,
        "weight_decay": Float(1e-4, 1e-1, log=True),
        "clip_norm": OneOf(1.0, 10.0, weights=0.95),
        "accumulation": OneOf(1, 2, weights=0.97),
        "schedule": parts.SCHEDULE,
    },
    "dropout": parts.dropout(off=0.92),
    "selection": OneOf("last", "best", weights=0.94),
}
