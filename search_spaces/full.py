"""full: which way of training one BERT on sentiment, paraphrase and similarity at once is best?

Asks everything that the five papers varied and that one trial can change by itself. Ranges, and where they come from
(mE: multitask fine-tuning with cross-encoding, SMART and LoRA; bB: annealed sampling, LoRA and ensembles; ex: SMART
with lambda 5 and cosine heads; en: gradient surgery and SMART; pl: low-rank branches per task):

- What is trained: the whole encoder at 1e-5 (all papers; 1e-3 destroys it, pl, so the range ends at 3e-4; small
  encoders such as MiniLM like its upper half), the heads alone, or LoRA at 1e-3 (mE) or 2e-4 (bB), with rank 1..256 and
  alpha 16 (mE), or rank 8, 16 with alpha 8..32 and query+key, query+key+value or all linear layers (bB); query+value
  as in the LoRA paper. Dropout within LoRA: 0.1 helps, 0.3 harms (mE).
- Pairs: cross-encoded with one linear head (mE, the largest single gain), or two sentences encoded apart with the
  features [u;v], u+v, [u;v;u*v], [u;v;|u-v|]; for similarity also a cosine (ex, bB).
- Batch sizes: the five combinations SST/QQP/STS of mE's table 7. Small SST and STS batches see all of QQP's data per
  epoch and half as many examples per step, so a step is shorter but there are more of them.
- Mixing: summed losses (mE), round robin, p ~ N^alpha with alpha 0 (uniform) .. 1 (proportional), alpha annealed from 1
  to 0.2 (bB).
- Tapering by epoch: SST 0.5/(e+1), STS 1/(log(e+1)+1) (mE).
- SMART on SST: weight 0.5, 1, 3 (mE), 5 (ex).
- Dropout 0.1..0.3 of hidden states and attention, up to 0.5 in heads (mE 0.3); AdamW's weight decay around its usual
  0.01; constant, linear (bB) or cosine schedule with warm-up.

What it costs, per example of budget: cross-encoding and encoding apart are about equal (the tokens are the same);
SMART adds two more forward passes and one and a half backward ones to every SST batch (2.5x to 3x on SST); LoRA saves
memory and the optimiser's time but runs forward and backward through the same layers; a frozen encoder skips the
backward pass (about two thirds of the work). Twenty-odd parameters: give it 24 trials at the least, better 100.
"""

from search_spaces.domains import Float, Int, Kind, OneOf

FEATURES = OneOf("concat", "sum", "product", "difference")

SPACE = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": Float(1e-5, 3e-4, log=True)},
        frozen={},
        lora={
            "rank": Int(1, 256, log=True),
            "alpha": Float(4.0, 64.0, log=True),
            "dropout": Float(0.0, 0.2),
            "targets": OneOf(
                labels={
                    "query+value": ["query", "value"],
                    "query+key": ["query", "key"],
                    "query+key+value": ["query", "key", "value"],
                    "all linear": ["query", "key", "value", "output", "up", "down"],
                }
            ),
            "/optimizer/encoder_lr": Float(2e-4, 3e-3, log=True),
        },
    ),
    "encoding": {
        "qqp": Kind(
            cross={},
            bi={"head": Kind(linear={"features": FEATURES})},
        ),
        "sts": Kind(
            cross={},
            bi={"head": Kind(linear={"features": FEATURES}, cosine={"transform": OneOf("relu", "shift")})},
        ),
    },
    "mixing": Kind(
        summed={},
        round_robin={},
        alpha={"alpha": Float(0.0, 1.0)},
        annealed={"end": Float(0.0, 0.5)},
    ),
    "batch_size": OneOf(
        {"sst": 3, "qqp": 32, "sts": 2},
        {"sst": 4, "qqp": 32, "sts": 3},
        {"sst": 8, "qqp": 32, "sts": 8},
        {"sst": 16, "qqp": 32, "sts": 16},
        {"sst": 16, "qqp": 16, "sts": 16},
    ),
    "taper": {
        "sst": Kind(
            constant={},
            inverse={"weight": Float(0.25, 1.0)},
            logarithmic={"weight": Float(0.25, 1.0)},
        ),
        "sts": Kind(
            constant={},
            inverse={"weight": Float(0.5, 2.0)},
            logarithmic={"weight": Float(0.5, 2.0)},
        ),
    },
    "regularizer": {
        "sst": Kind(none={}, smart={"weight": Float(0.5, 5.0, log=True)}),
    },
    "optimizer": {
        "head_lr": Float(1e-4, 1e-2, log=True),
        "weight_decay": Float(1e-4, 1e-1, log=True),
        "schedule": {"kind": OneOf("constant", "linear", "cosine"), "warmup": Float(0.0, 0.2)},
    },
    "dropout": {
        "hidden": Float(0.0, 0.3),
        "attention": Float(0.0, 0.3),
        "head": Float(0.0, 0.5),
    },
}
