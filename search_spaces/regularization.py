"""regularization: what keeps the model from learning a small training set by heart?

What it varies: SMART, R-Drop or FGM on each task, the Bregman proximal point with its momentum teacher, dropout rates,
weight decay, augmentation of SST, and whether a trial returns its last weights, their average or its best.

Where the ranges come from: `multi_extended` (lambda 0.5, 1, 3; dropout 0.3; augmentation), `exploration` (lambda 5;
dropout of heads), `enhancing` (SMART), Jiang et al. (Bregman), Wu et al. (R-Drop) and Miyato et al. (FGM); details in
`search_spaces/_parts.py`.

Where the priors come from: the defaults, which regularise little, have half of each choice. The pair tasks have no
penalty in seven tenths: SMART on all tasks lost in short runs ("Measured" in `docs/techniques.md`), SMART on SST alone
did not. SMART's noise and step size are centred at the papers' values.

What it costs, in plain steps of its task: SMART and FGM two to three, R-Drop two; Bregman adds one forward pass to
every task. Regularisation helps when training goes on until it overfits: use a budget of several passes over SST
(100,000 examples or more) and 40 trials.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Float, Int, Kind, OneOf

SPACE = {
    "regularizer": {
        "sst": Kind(
            none={},
            # epsilon and sigma from the papers' tables; they take one step, here also two.
            smart={
                **parts.SMART,
                "steps": Int(1, 2),
                "epsilon": OneOf(1e-6, 1e-5),
                "noise_std": Float(1e-6, 1e-4, log=True),
                # With the papers' eta of 1e-3 the direction of the noise stays random
                # (`minbert.techniques.regularizers`). From about 10 on the gradient should weigh as much as the noise,
                # if its share of 6e-5 at 1e-3 grows in proportion.
                "step_size": Float(1e-3, 1e3, log=True),
            },
            rdrop=parts.R_DROP,
            fgm=parts.FGM,
        ),
        "qqp": Kind(none={}, smart=parts.SMART, rdrop=parts.R_DROP, fgm=parts.FGM, weights=0.7),
        "sts": Kind(none={}, smart=parts.SMART, rdrop=parts.R_DROP, fgm=parts.FGM, weights=0.7),
    },
    "average": Kind(none={}, exponential=parts.AVERAGE),
    "proximal": Kind(none={}, bregman=parts.BREGMAN),
    "dropout": parts.dropout(),
    "augmentation": Kind(none={}, edit={"amount": Float(0.25, 2.0)}),
    "selection": OneOf("last", "best"),
    "optimizer": {
        "encoder_lr": parts.FULL_RATE,
        "head_lr": parts.HEAD_RATE,
        "weight_decay": Float(1e-4, 1e-1, log=True),
    },
}
