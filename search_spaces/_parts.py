"""Domains that several spaces share, each with the source of its range and of its prior.

A prior without a source follows the default configuration (`search_spaces.domains`). "Measured" is the table of that
name in `docs/techniques.md`, "defaults" that of the default configuration in `benchmarks/README.md`. Where the default
lies at the end of a range and means "off" (dropout, decay), the domain is a choice: a draw from a normal would never
leave it off, and dropout of attention costs a GPU its fused kernel. Functions take the share of the default, because a
space that asks about a part of the configuration leaves the default more often than `full` does.

The five papers by short name: `multi_extended` (multitask fine-tuning with cross-encoding, SMART and LoRA),
`beyond_bert` (annealed mixing, LoRA, DoRA and ensembles), `exploration` (gradient surgery, cosine heads and SMART),
`enhancing` (gradient surgery and SMART), `pal_lora` (low-rank branches for each task).
"""

from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask

FULL_RATE = Float(1e-5, 5e-4, log=True)
"""Learning rate of the base's weights: 1e-5 in all papers; 1e-3 destroys the encoder (`pal_lora`). The default follows
the base and lies in this range for each: 2e-4 for MiniLM, 5e-5 for BERT-base."""

ADAPTER_RATE = Float(5e-5, 5e-3, log=True)
"""Learning rate of what an adapter adds: 1e-3 (`multi_extended`, `pal_lora`), 2e-4 (`beyond_bert`). The default is ten
times that of the base's weights."""

HEAD_RATE = Float(1e-4, 1e-2, log=True)
"""Learning rate of the heads; defaults: 2e-3 scores as 5e-4."""

LOW_RANK: dict[str, Node] = {
    # `multi_extended`: rank 1..256 with alpha 16; `beyond_bert`: rank 8, 16 with alpha 8..32. Alpha stays twice the
    # rank: rank, alpha and rate are one scale of what is added, and the rate varies it.
    "rank": Int(1, 256, log=True),
    # `multi_extended`: 0.1 improves scores, 0.3 worsens them.
    "dropout": OneOf(0.0, 0.05, 0.1, 0.2, weights=0.7),
    # query+value as in the LoRA paper, the other sets as in `beyond_bert`. Measured: all linear layers lose 0.01 to
    # full fine-tuning, the smaller sets 0.06 to 0.15.
    "targets": OneOf(
        labels={
            "query+value": ["query", "value"],
            "query+key": ["query", "key"],
            "query+key+value": ["query", "key", "value"],
            "all linear": ["query", "key", "value", "output", "up", "down"],
        },
        weights=(5, 3, 3, 9),
    ),
    "layers": Kind(
        all={
            "/adapter/bias": OneOf("none", "adapted", "all", weights=0.6),
            # The share of trained parameters that `multi_extended` gives for rank 1 is only reached if embeddings and
            # normalisations are trained too.
            "/adapter/rest": OneOf("frozen", "trained", weights=0.8),
        },
        # Without dropout the layers below are computed once for all trials; the top is at most half of MiniLM's six.
        top={
            "count": Int(1, 3),
            "dropout": OneOf("off", "on"),
            "/adapter/bias": OneOf("none", "adapted", weights=0.6),
            "/adapter/rest": OneOf("frozen"),
        },
        weights=0.8,
    ),
    # `multi_extended` has runs with low-rank heads and runs with fully trained heads. Measured: -0.014 for low rank.
    "heads": OneOf("full", "lora", weights=0.8),
    "/optimizer/adapter_lr": ADAPTER_RATE,
}

FROZEN: dict[str, Node] = {"dropout": OneOf("off", "on")}
"""Heads alone. Without dropout in the encoder (the papers do not say) its output is computed once for all trials."""

PAL: dict[str, Node] = {
    # `pal_lora`: rank 2 and up to 100; dropout 0.05 (paraphrase), 0.1 (sentiment), 0.2 (similarity).
    "rank": Int(1, 100, log=True),
    "dropout": PerTask(OneOf(0.05, 0.1, 0.2)),
    # A trained encoder keeps its own rate. Measured: as good as full fine-tuning, -0.07 beside a frozen one.
    "encoder": OneOf("frozen", "trained"),
    "/optimizer/adapter_lr": ADAPTER_RATE,
}

LINEAR_PAIR: dict[str, Node] = {
    # [u;v], u+v, [u;v;u*v] (all papers), [u;v;|u-v|] (Sentence-BERT), [u;v;cos] (`exploration`).
    # Measured: +0.10 for |u-v|, nothing beyond its interval for the others.
    "features": OneOf("concat", "sum", "product", "difference", "cosine", weights=(2, 2, 2, 4, 2)),
    # `pal_lora` adds cos(u, v) to the paraphrase score. Measured: +0.01.
    "cosine": OneOf("none", "added", weights=(3, 1)),
}

COSINE_HEADS: dict[str, dict[str, Node]] = {
    # 5 relu(cos) (`beyond_bert`, `pal_lora`), 2.5 (cos + 1) (`beyond_bert`), 5 sigmoid(20 cos) after a linear layer
    # (`exploration`), and a sigmoid with learned scale and centre.
    "cosine": {
        "transform": OneOf("relu", "shift", "sigmoid", "learned_sigmoid", weights=0.28),
        "layer": OneOf("linear", "none"),
    },
    # `exploration`: labels of at least 2.5 are similar.
    "cosine_embedding": {"threshold": Float(2.0, 3.5), "margin": Float(0.0, 0.5)},
}



def encoding(pooling: float = 0.5, cross: float = 0.5) -> dict[str, Node]:
    """Encodings of the three tasks; the arguments are the prior shares of the default pooling and of cross-encoding.

    Pairs read apart are weak with a linear head on [u;v] (measured: -0.13) and level with cosine heads, which find what
    MiniLM was trained for; the best trials of two sweeps over `quickstart` (`docs/log.md`) score STS by 5 relu(cos).
    """
    # The papers use [CLS] or its pooler, `exploration` also the mean over tokens.
    pair: dict[str, Node] = {"pooling": OneOf("cls", "pooler", "mean", "max", weights=pooling)}
    alone = Kind(linear=LINEAR_PAIR, **COSINE_HEADS, weights={"linear": 2, "cosine": 7, "cosine_embedding": 2})
    # `beyond_bert`: a layer shared by paraphrase and similarity, added to the layer of each task.
    shared = {**LINEAR_PAIR, "/shared_head": Kind(none={}, linear={}, weights={"none": 1, "linear": 2})}
    beside = Kind(linear=shared, **COSINE_HEADS, weights={"linear": 6, "cosine": 3, "cosine_embedding": 1})
    apart = 1.5 * (1 - cross)
    return {
        "sst": Kind(single=pair),
        "qqp": Kind(
            cross={**pair, "/encoding/sts": Kind(cross=pair, bi={**pair, "head": alone}, weights=1 - apart)},
            bi={
                **pair,
                "head": Kind(linear=LINEAR_PAIR),
                "/encoding/sts": Kind(cross=pair, bi={**pair, "head": beside}, weights={"cross": 2, "bi": 3}),
            },
            weights=cross,
        ),
    }


BATCH_SIZES = OneOf(
    # `multi_extended`, table 7. With small batches of SST and STS an epoch passes all of QQP's data, and a step has
    # half as many examples.
    {"sst": 3, "qqp": 32, "sts": 2},
    {"sst": 4, "qqp": 32, "sts": 3},
    {"sst": 8, "qqp": 32, "sts": 8},
    {"sst": 16, "qqp": 32, "sts": 16},
    {"sst": 16, "qqp": 16, "sts": 16},
    # Defaults: level with 16/32/16 in scores, from 0.85 of its speed on.
    {"sst": 8, "qqp": 16, "sts": 8},
    {"sst": 16, "qqp": 16, "sts": 8},
    weights=(2, 2, 4, 20, 4, 5, 4),
)

UPWEIGHT = PerTask(
    OneOf(1.0), sst=OneOf(1.0, 2.0, 4.0, 8.0, weights=0.75), sts=OneOf(1.0, 2.0, 4.0, 8.0, weights=0.75)
)
"""Factors on the sizes of the tasks: `beyond_bert` multiplies the small tasks by 2, 4 and 8. Measured: +0.03 for 4."""


def mixings(combine: float = 0.5) -> dict[str, dict[str, Node]]:
    """Branches of a mixing; `combine` is the prior share of plain sums, of unbalanced losses and of no epochs."""
    # PCGrad (`enhancing`, `exploration`), GSE (`exploration`).
    surgery = Kind(sum={}, pcgrad={}, gse={}, weights=combine)
    # `pal_lora` names both as future work. GradNorm's alpha is as in the figures of its paper. Its step is lr times a
    # gradient norm: with norms of 10 and more, a rate above 0.01 would move the weights from one bound to the other.
    balance = Kind(
        none={},
        uncertainty={"lr": Float(1e-3, 5e-2, log=True)},
        gradnorm={"alpha": Float(0.0, 3.0), "lr": Float(1e-4, 1e-2, log=True)},
        weights=combine,
    )
    orders = OneOf(["sst", "qqp", "sts"], ["qqp", "sts", "sst"], ["qqp", "sst", "sts"])
    return {
        # `exploration`: three times the iterations of an epoch. With 0 each task runs through its own data.
        "summed": {"multiplier": OneOf(0, 1, 3, weights=combine), "combine": surgery, "balance": balance},
        "round_robin": {},
        # Exponent of the task's size: 0 uniform, 0.5 square root, 1 proportional (`beyond_bert`).
        "alpha": {"alpha": Float(0.0, 1.0), "upweight": UPWEIGHT},
        # `beyond_bert`: from 1 to 0.2, epochs of 1800 or 3600 steps; 0 divides the budget.
        "annealed": {
            "end": Float(0.0, 0.5),
            "steps_per_epoch": OneOf(0, 1800, 3600, weights=(4, 1, 1)),
            "upweight": UPWEIGHT,
        },
        # `pal_lora` trains the tasks one after the other; the model remembers the last task best.
        "sequential": {"order": orders, "alpha": Float(0.0, 1.0)},
    }


def taper(constant: float = 0.5) -> dict[str, Node]:
    """Tapered losses; `constant` is the prior share of none.

    `multi_extended`, equation 1: SST 0.5 / (e + 1), STS 1 / (log(e + 1) + 1). The paper's form has twice the share of
    the other one.
    """
    paper, other = (1 - constant) * 2 / 3, (1 - constant) / 3
    return {
        "sst": Kind(
            constant={},
            inverse={"weight": Float(0.25, 1.0)},
            logarithmic={"weight": Float(0.25, 1.0)},
            weights={"constant": constant, "inverse": paper, "logarithmic": other},
        ),
        "sts": Kind(
            constant={},
            inverse={"weight": Float(0.5, 2.0)},
            logarithmic={"weight": Float(0.5, 2.0)},
            weights={"constant": constant, "inverse": other, "logarithmic": paper},
        ),
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


def dropout(off: float = 0.5) -> dict[str, Node]:
    """Dropout rates; `off` is the prior share of no dropout in the encoder.

    0.1 (BERT), 0.3 (`multi_extended`), heads up to 0.5 (`multi_extended`, `exploration`). Measured: none is +0.015
    against 0.1, and 0.3 is -0.105; with a small training set and many passes that may turn.
    """
    rest = 1 - off
    return {
        "hidden": OneOf(0.0, 0.1, 0.2, 0.3, weights=(off, rest / 2, rest / 4, rest / 4)),
        "attention": OneOf(0.0, 0.1, 0.3, weights=(off, rest * 3 / 4, rest / 4)),
        "head": Float(0.0, 0.5, sigma=0.1),
    }


SCHEDULE: dict[str, Node] = {
    "kind": OneOf("constant", "linear", "cosine", weights=0.9),
    "warmup_steps": OneOf(0, 50, 100, 200, weights=0.85),
}
"""Learning-rate schedule: constant (most papers), linear with warm-up (`beyond_bert`), cosine. Measured: constant is
level with linear, cosine -0.007."""
