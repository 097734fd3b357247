"""full: which way of training one BERT on sentiment, paraphrase and similarity at once is best?

Asks everything that the five papers varied and that they name as future work; `_parts` says where each range comes
from. A branch owns its parameters: gradient surgery and the balancing of losses exist where tasks are summed, features
of two sentences where they are encoded apart, a layer shared by the pair tasks where both are encoded apart and read by
linear heads.

- What is trained: the whole encoder with layer-wise decay, the heads alone, LoRA and DoRA in all layers or in the top
  ones, low-rank branches per task.
- Stages before it: masked language modelling on the tasks' own text, natural-language inference, contrastive training
  on paraphrases. Each is one setting or none: a stage's result is computed once and shared by all trials that ask for
  it, so a few settings cost little where a range would cost one stage a trial. The space `stages` asks for more.
- Augmentation of SST by edits, drawn from each row; none, half a new row or a whole one for each row.
- Pairs cross-encoded (mE, the largest single gain) or apart; pooling; heads and losses of similarity.
- Mixing, tapering, batch sizes, SMART per task, the Bregman proximal point, dropout, schedules, accumulation, and
  whether a trial answers with its last weights or its best.

Left out: `mixing` of kind `single`, one model per task, which cannot win a score over all tasks; `--tasks sst` asks
that question better.

What it costs, per example of budget: cross-encoding and encoding apart are about equal (the tokens are the same);
SMART adds two more forward passes and one and a half backward ones to every batch of its task; Bregman one forward
pass; PCGrad a backward pass for each task, GSE that and one more step; LoRA saves memory and the optimiser's time but
runs forward and backward through the layers that it reaches; what a frozen part of the encoder gives is computed once
for all trials, unless it has dropout. Some seventy parameters: give it 100 trials where you can.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Float, Kind, Node, OneOf

PAIR: dict[str, Node] = {"pooling": parts.POOLING}

SIMILARITY_ALONE = Kind(
    cross=PAIR,
    bi={**PAIR, "head": Kind(linear=parts.LINEAR_PAIR, **parts.COSINE_HEADS)},
)

SIMILARITY_BESIDE_PARAPHRASE = Kind(
    cross=PAIR,
    bi={
        **PAIR,
        # bB: a layer that paraphrase and similarity share, added to each one's own.
        "head": Kind(
            linear={**parts.LINEAR_PAIR, "/shared_head": Kind(none={}, linear={})},
            **parts.COSINE_HEADS,
        ),
    },
)

SPACE = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": parts.FULL_RATE, "/optimizer/layer_decay": Float(0.8, 1.0)},
        frozen=parts.FROZEN,
        lora=parts.LOW_RANK,
        dora=parts.LOW_RANK,
        pal=parts.PAL,
    ),
    "stages": {
        # pl trains on until the loss settles; one pass is what a short trial can wait for.
        "mlm": Kind(none={}, mlm={"epochs": OneOf(1.0), "mask_rate": OneOf(0.15)}),
        # mE: 5e-6 and 5 epochs of 433,000 pairs.
        "nli": Kind(none={}, nli={"lr": OneOf(2e-5), "epochs": OneOf(0.25)}),
        # bB: scale 10, 20, 40 and 1, 3, 5, 10 epochs.
        "mnrl": Kind(none={}, mnrl={"scale": OneOf(20.0), "epochs": OneOf(1.0)}),
    },
    "augmentation": Kind(none={}, edit={"amount": OneOf(0.5, 1.0)}),
    "encoding": {
        "sst": parts.SINGLE,
        "qqp": Kind(
            cross={**PAIR, "/encoding/sts": SIMILARITY_ALONE},
            bi={
                **PAIR,
                "head": Kind(linear=parts.LINEAR_PAIR),
                "/encoding/sts": SIMILARITY_BESIDE_PARAPHRASE,
            },
        ),
    },
    "mixing": parts.MIXING,
    "batch_size": parts.BATCH_SIZES,
    "taper": parts.TAPER,
    "regularizer": {
        "sst": Kind(none={}, smart=parts.SMART),
        "qqp": Kind(none={}, smart={"weight": Float(0.5, 5.0, log=True)}),
        "sts": Kind(none={}, smart={"weight": Float(0.5, 5.0, log=True)}),
    },
    "proximal": Kind(none={}, bregman=parts.BREGMAN),
    "optimizer": {
        "head_lr": Float(1e-4, 1e-2, log=True),
        "weight_decay": Float(1e-4, 1e-1, log=True),
        "clip_norm": OneOf(1.0, 10.0),
        "accumulation": OneOf(1, 2),
        "schedule": parts.SCHEDULE,
    },
    "dropout": parts.DROPOUT,
    "selection": OneOf("last", "best"),
}
