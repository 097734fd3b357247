"""stages: what should the encoder learn before it is trained on the tasks?

What it varies: masked language modelling on the text of all tasks, natural language inference, and contrastive training
on paraphrases and similar pairs; each alone and one after the other. Settings are choices instead of ranges: a stage's
result is cached under the hash of everything that it depends on, so trials that ask for the same chain of stages share
it. There are 3 settings of language modelling (one is none) and 12 of inference after them; the 180 chains with
contrastive training rarely repeat.

Where the ranges come from: `pal_lora` (language modelling), `multi_extended` (inference: rate 5e-6, up to 5 epochs) and
`beyond_bert` (contrastive training: scale 10, 20, 40; 1, 3, 5, 10 epochs). `multi_extended` trains inference on MNLI
alone: `--set stages/nli/source=mnli`, if the file has such rows.

Where the priors come from: the defaults. Each stage is off in half of the draws, all three are in an eighth; no table
shows which settings of a stage are best.

What it costs: mainly the stages. One epoch passes 83,000 pairs of inference, about 30,000 contrastive pairs, or 175,000
texts of language modelling. One trial computes each distinct chain, while other trials that need it wait. On two cores
this takes hours, on a GPU minutes.
"""

from search_spaces import _parts as parts
from search_spaces.domains import Kind, OneOf

SPACE = {
    "stages": {
        "mlm": Kind(none={}, mlm={"mask_rate": OneOf(0.15), "epochs": OneOf(1.0, 3.0), "lr": OneOf(5e-5)}),
        "nli": Kind(none={}, nli={"lr": OneOf(5e-6, 2e-5), "epochs": OneOf(1.0, 5.0)}),
        "mnrl": Kind(none={}, mnrl={"scale": OneOf(10.0, 20.0, 40.0), "epochs": OneOf(1.0, 3.0, 5.0, 10.0)}),
    },
    "optimizer": {"encoder_lr": parts.FULL_RATE, "head_lr": parts.HEAD_RATE},
}
