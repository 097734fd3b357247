"""Domains that several spaces share, each with the source of its range.

The five papers by short name: `multi_extended` (multitask fine-tuning with cross-encoding, SMART and LoRA),
`beyond_bert` (annealed mixing, LoRA, DoRA and ensembles), `exploration` (gradient surgery, cosine heads and SMART),
`enhancing` (gradient surgery and SMART), `pal_lora` (low-rank branches for each task).
"""

from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask

FULL_RATE = Float(1e-5, 3e-4, log=True)
"""Learning rate of full fine-tuning: 1e-5 in all papers; 1e-3 destroys the encoder (`pal_lora`). Small encoders such as
MiniLM need the upper half."""

LOW_RANK: dict[str, Node] = {
    # `multi_extended`: rank 1..256 with alpha 16; `beyond_bert`: rank 8, 16 with alpha 8..32.
    "rank": Int(1, 256, log=True),
    "alpha": Float(4.0, 64.0, log=True),
    # `multi_extended`: 0.1 improves scores, 0.3 worsens them.
    "dropout": Float(0.0, 0.2),
    # query+value as in the LoRA paper, the other sets as in `beyond_bert`.
    "targets": OneOf(
        labels={
            "query+value": ["query", "value"],
            "query+key": ["query", "key"],
            "query+key+value": ["query", "key", "value"],
            "all linear": ["query", "key", "value", "output", "up", "down"],
        }
    ),
    "layers": Kind(
        all={
            "/adapter/bias": OneOf("none", "adapted", "all"),
            # The share of trained parameters that `multi_extended` gives for rank 1 is only reached if embeddings and
            # normalisations are trained too.
            "/adapter/rest": OneOf("frozen", "trained"),
        },
        # Without dropout the layers below are computed once for all trials; the top is at most half of MiniLM's six.
        top={
            "count": Int(1, 3),
            "dropout": OneOf("off", "on"),
            "/adapter/bias": OneOf("none", "adapted"),
            "/adapter/rest": OneOf("frozen"),
        },
    ),
    # `multi_extended` has runs with low-rank heads and runs with fully trained heads.
    "heads": OneOf("full", "lora"),
    # 1e-3 (`multi_extended`), 2e-4 (`beyond_bert`).
    "/optimizer/adapter_lr": Float(2e-4, 3e-3, log=True),
}

FROZEN: dict[str, Node] = {"dropout": OneOf("off", "on")}
"""Heads alone. Without dropout in the encoder (the papers do not say) its output is computed once for all trials."""

PAL: dict[str, Node] = {
    # `pal_lora`: rank 2 and up to 100; dropout 0.05 (paraphrase), 0.1 (sentiment), 0.2 (similarity).
    "rank": Int(1, 100, log=True),
    "dropout": PerTask(OneOf(0.05, 0.1, 0.2)),
    # A trained encoder keeps its own rate.
    "encoder": OneOf("frozen", "trained"),
    # 1e-3 (`pal_lora`).
    "/optimizer/adapter_lr": Float(2e-4, 3e-3, log=True),
}

POOLING = OneOf("cls", "pooler", "mean", "max")
"""Pooling: the papers use [CLS] or its pooler, `exploration` also the mean over tokens."""

LINEAR_PAIR: dict[str, Node] = {
    # [u;v], u+v, [u;v;u*v] (all papers), [u;v;|u-v|] (Sentence-BERT), [u;v;cos] (`exploration`).
    "features": OneOf("concat", "sum", "product", "difference", "cosine"),
    # `pal_lora` adds cos(u, v) to the paraphrase score.
    "cosine": OneOf("none", "added"),
}

COSINE_HEADS: dict[str, dict[str, Node]] = {
    # 5 relu(cos) (`beyond_bert`, `pal_lora`), 2.5 (cos + 1) (`beyond_bert`), 5 sigmoid(20 cos) after a linear layer
    # (`exploration`), and a sigmoid with learned scale and centre.
    "cosine": {"transform": OneOf("relu", "shift", "sigmoid", "learned_sigmoid"), "layer": OneOf("linear", "none")},
    # `exploration`: labels of at least 2.5 are similar.
    "cosine_embedding": {"threshold": Float(2.0, 3.5), "margin": Float(0.0, 0.5)},
}

SINGLE = Kind(single={"pooling": POOLING})

BATCH_SIZES = OneOf(
    # `multi_extended`, table 7. With small batches of SST and STS an epoch passes all of QQP's data, and a step has
    # half as many examples.
    {"sst": 3, "qqp": 32, "sts": 2},
    {"sst": 4, "qqp": 32, "sts": 3},
    {"sst": 8, "qqp": 32, "sts": 8},
    {"sst": 16, "qqp": 32, "sts": 16},
    {"sst": 16, "qqp": 16, "sts": 16},
)

COMBINE = Kind(sum={}, pcgrad={}, gse={})
"""Combination of the tasks' gradients: their sum, PCGrad (`enhancing`, `exploration`) or GSE (`exploration`)."""

BALANCE = Kind(
    none={},
    uncertainty={"lr": Float(1e-3, 5e-2, log=True)},
    gradnorm={"alpha": Float(0.0, 3.0), "lr": Float(1e-4, 1e-2, log=True)},
)
"""Balance of the tasks' losses; `pal_lora` names both techniques as future work. GradNorm's alpha is as in the figures
of its paper. Its step is lr times a gradient norm: with norms of 10 and more, a rate above 0.01 would move the weights
from one bound to the other."""

UPWEIGHT = PerTask(OneOf(1.0), sst=OneOf(1.0, 2.0, 4.0, 8.0), sts=OneOf(1.0, 2.0, 4.0, 8.0))
"""Factors on the sizes of the tasks: `beyond_bert` multiplies the small tasks by 2, 4 and 8."""

MIXING = Kind(
    # `exploration`: three times the iterations of an epoch. With 0 each task runs through its own data.
    summed={"multiplier": OneOf(0, 1, 3), "combine": COMBINE, "balance": BALANCE},
    round_robin={},
    # Exponent of the task's size: 0 uniform, 0.5 square root, 1 proportional (`beyond_bert`).
    alpha={"alpha": Float(0.0, 1.0), "upweight": UPWEIGHT},
    # `beyond_bert`: from 1 to 0.2, epochs of 1800 or 3600 steps; 0 divides the budget.
    annealed={"end": Float(0.0, 0.5), "steps_per_epoch": OneOf(0, 1800, 3600), "upweight": UPWEIGHT},
    # `pal_lora` trains the tasks one after the other; the model remembers the last task best.
    sequential={"order": OneOf(["sst", "qqp", "sts"], ["qqp", "sts", "sst"], ["qqp", "sst", "sts"]),
                "alpha": Float(0.0, 1.0)},
)  # fmt: skip

TAPER: dict[str, Node] = {
    # `multi_extended`, equation 1: SST 0.5 / (e + 1), STS 1 / (log(e + 1) + 1).
    "sst": Kind(constant={}, inverse={"weight": Float(0.25, 1.0)}, logarithmic={"weight": Float(0.25, 1.0)}),
    "sts": Kind(constant={}, inverse={"weight": Float(0.5, 2.0)}, logarithmic={"weight": Float(0.5, 2.0)}),
}

SMART: dict[str, Node] = {
    # lambda 0.5, 1, 3 (`multi_extended`), 5 (`exploration`).
    "weight": Float(0.5, 5.0, log=True),
    # Against the root mean square of the word embeddings; the papers' perturbation of size 1 is 18 times MiniLM's.
    "radius": Float(0.01, 1.0, log=True),
}

R_DROP: dict[str, Node] = {
    # Wu et al. choose alpha for each task, up to about 5. Here it is halved, because the loss is the mean over both
    # passes.
    "weight": Float(0.1, 5.0, log=True),
}

FGM: dict[str, Node] = {
    # The word embeddings of 20 word pieces of MiniLM have a norm of about 5: the range is 1/50 to 2/5 of it.
    "norm": Float(0.1, 2.0, log=True),
}

BREGMAN: dict[str, Node] = {
    # Jiang et al.: mu 1; beta 0.99 at first, 0.999 later.
    "weight": Float(0.1, 10.0, log=True),
    "momentum": OneOf(0.9, 0.99, 0.999),
}

AVERAGE: dict[str, Node] = {
    # The mean of about the last 10 to 1,000 steps.
    "decay": Float(0.9, 0.999),
}

DROPOUT: dict[str, Node] = {
    # 0.1 (BERT), 0.3 (`multi_extended`), heads up to 0.5 (`multi_extended`, `exploration`).
    "hidden": Float(0.0, 0.3),
    "attention": Float(0.0, 0.3),
    "head": Float(0.0, 0.5),
}

SCHEDULE: dict[str, Node] = {"kind": OneOf("constant", "linear", "cosine"), "warmup_steps": OneOf(0, 50, 100, 200)}
"""Learning-rate schedule: constant (most papers), linear with warm-up (`beyond_bert`), cosine."""
