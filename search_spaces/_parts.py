"""Domains that several spaces ask about, each written once with where its range comes from.

Short names: mE multitask fine-tuning with cross-encoding, SMART and LoRA; bB annealed sampling, LoRA, DoRA and
ensembles; ex gradient surgery, cosine heads and SMART; en gradient surgery and SMART; pl low-rank branches per task.
"""

from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask

FULL_RATE = Float(1e-5, 3e-4, log=True)
"""1e-5 in all papers, 1e-3 destroys the encoder (pl); small encoders such as MiniLM like the upper half."""

LOW_RANK: dict[str, Node] = {
    # mE: rank 1..256 with alpha 16; bB: rank 8, 16 with alpha 8..32.
    "rank": Int(1, 256, log=True),
    "alpha": Float(4.0, 64.0, log=True),
    # mE: 0.1 helps, 0.3 harms.
    "dropout": Float(0.0, 0.2),
    # query+value as in the LoRA paper, the others as in bB.
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
            # mE's share of trained parameters at rank 1 can only be had with embeddings and normalisations trained.
            "/adapter/rest": OneOf("frozen", "trained"),
        },
        # The layers below are computed once for all trials, unless they have dropout: half of MiniLM's six at most.
        top={
            "count": Int(1, 3),
            "dropout": OneOf("off", "on"),
            "/adapter/bias": OneOf("none", "adapted"),
            "/adapter/rest": OneOf("frozen"),
        },
    ),
    # mE has runs with low-rank heads and with heads trained in full.
    "heads": OneOf("full", "lora"),
    # 1e-3 (mE), 2e-4 (bB).
    "/optimizer/encoder_lr": Float(2e-4, 3e-3, log=True),
}

FROZEN: dict[str, Node] = {"dropout": OneOf("off", "on")}
"""With the encoder's dropouts off (the papers do not say) what it gives for a text is computed once for all trials."""

PAL: dict[str, Node] = {
    # pl: rank 2 and up to 100; dropout 0.05 (paraphrase), 0.1 (sentiment), 0.2 (similarity).
    "rank": Int(1, 100, log=True),
    "dropout": PerTask(OneOf(0.05, 0.1, 0.2)),
    "encoder": OneOf("frozen", "trained"),
    # 1e-3 beside a frozen encoder (pl); a trained one wants far less.
    "/optimizer/encoder_lr": Float(3e-5, 2e-3, log=True),
}

POOLING = OneOf("cls", "pooler", "mean", "max")
"""minBERT's papers read [CLS] or its pooler; ex also the mean over tokens."""

LINEAR_PAIR: dict[str, Node] = {
    # [u;v], u+v, [u;v;u*v] (all papers), [u;v;|u-v|] (Sentence-BERT), [u;v;cos] (ex).
    "features": OneOf("concat", "sum", "product", "difference", "cosine"),
    # pl adds cos(u, v) to the paraphrase score.
    "cosine": OneOf("none", "added"),
}

COSINE_HEADS: dict[str, dict[str, Node]] = {
    # 5 relu(cos) (bB, pl), 2.5 (cos + 1) (bB), 5 sigmoid(20 cos) after a linear layer (ex).
    "cosine": {"transform": OneOf("relu", "shift", "sigmoid"), "layer": OneOf("linear", "none")},
    # ex: labels of at least 2.5 are similar.
    "cosine_embedding": {"threshold": Float(2.0, 3.5), "margin": Float(0.0, 0.5)},
}

SINGLE = Kind(single={"pooling": POOLING})

BATCH_SIZES = OneOf(
    # mE, table 7. Small SST and STS batches see all of QQP's data per epoch and half as many examples per step.
    {"sst": 3, "qqp": 32, "sts": 2},
    {"sst": 4, "qqp": 32, "sts": 3},
    {"sst": 8, "qqp": 32, "sts": 8},
    {"sst": 16, "qqp": 32, "sts": 16},
    {"sst": 16, "qqp": 16, "sts": 16},
)

COMBINE = Kind(sum={}, pcgrad={}, gse={})
"""Gradient surgery: PCGrad (en, ex) and ex's GSE."""

BALANCE = Kind(
    none={},
    uncertainty={"lr": Float(1e-3, 5e-2, log=True)},
    gradnorm={"alpha": Float(0.0, 3.0), "lr": Float(1e-4, 1e-2, log=True)},
)
"""Named by pl as what to try next; alpha as in GradNorm's own figures. Its step is lr times a gradient norm: with
norms of 10 and more a rate above 0.01 would throw weights from one bound to the other."""

UPWEIGHT = PerTask(OneOf(1.0), sst=OneOf(1.0, 2.0, 4.0, 8.0), sts=OneOf(1.0, 2.0, 4.0, 8.0))
"""bB weighs the small tasks 2, 4 and 8 fold."""

MIXING = Kind(
    # ex: three times the iterations of an epoch; 0 lets every task run through its own data.
    summed={"multiplier": OneOf(0, 1, 3), "combine": COMBINE, "balance": BALANCE},
    round_robin={},
    # 0 uniform, 0.5 square root, 1 proportional to size (bB).
    alpha={"alpha": Float(0.0, 1.0), "upweight": UPWEIGHT},
    # bB: from 1 to 0.2, epochs of 1800 or 3600 steps; 0 divides the budget.
    annealed={"end": Float(0.0, 0.5), "steps_per_epoch": OneOf(0, 1800, 3600), "upweight": UPWEIGHT},
    # pl trains the tasks one after the other; the last one is the one remembered best.
    sequential={"order": OneOf(["sst", "qqp", "sts"], ["qqp", "sts", "sst"], ["qqp", "sst", "sts"]),
                "alpha": Float(0.0, 1.0)},
)  # fmt: skip

TAPER: dict[str, Node] = {
    # mE, equation 1: SST 0.5 / (e + 1), STS 1 / (log(e + 1) + 1).
    "sst": Kind(constant={}, inverse={"weight": Float(0.25, 1.0)}, logarithmic={"weight": Float(0.25, 1.0)}),
    "sts": Kind(constant={}, inverse={"weight": Float(0.5, 2.0)}, logarithmic={"weight": Float(0.5, 2.0)}),
}

SMART: dict[str, Node] = {
    # lambda 0.5, 1, 3 (mE), 5 (ex).
    "weight": Float(0.5, 5.0, log=True),
    # The papers' eta is 1e-3, which leaves the noise's direction random (`minbert.techniques.regularizers`); the
    # gradient should weigh as much as the noise from about 10 on, if its share of 6e-5 at 1e-3 grows in proportion.
    "step_size": Float(1e-3, 1e3, log=True),
}

R_DROP: dict[str, Node] = {
    # Wu et al. vary alpha from task to task, to about 5; it is halved here by taking the mean of both passes' losses.
    "weight": Float(0.1, 5.0, log=True),
}

FGM: dict[str, Node] = {
    # The words of 20 pieces of MiniLM have a norm of about 5: from a fiftieth of it to two fifths.
    "norm": Float(0.1, 2.0, log=True),
}

BREGMAN: dict[str, Node] = {
    # Jiang et al.: mu 1, beta 0.99 at first and 0.999 later.
    "weight": Float(0.1, 10.0, log=True),
    "momentum": OneOf(0.9, 0.99, 0.999),
}

DROPOUT: dict[str, Node] = {
    # 0.1 (BERT), 0.3 (mE), heads up to 0.5 (mE, ex).
    "hidden": Float(0.0, 0.3),
    "attention": Float(0.0, 0.3),
    "head": Float(0.0, 0.5),
}

SCHEDULE: dict[str, Node] = {"kind": OneOf("constant", "linear", "cosine"), "warmup": Float(0.0, 0.2)}
"""Constant (most papers), linear with warm-up (bB), cosine."""
