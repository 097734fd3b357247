"""stages: what should the encoder learn before it meets the tasks?

Masked language modelling on the text of all tasks (pl), natural-language inference (mE), contrastive training on
paraphrases and similar pairs (bB), each alone and after one another, with their papers' settings: inference at 5e-6 and
up to 5 epochs, contrastive scale 10, 20, 40 and 1, 3, 5, 10 epochs. Settings are choices, not ranges: a stage's result
is kept under the hash of all that it depends on, so trials that ask for the same chain share it (3 settings of
language modelling, 12 of inference after them; the 180 contrastive ones seldom meet). The paper's inference
stage reads MNLI alone: `--set stages/nli/source=mnli` where the file has such rows.

What it costs: the stages are the cost. An epoch of inference passes 83,000 pairs, one of contrastive training some
30,000 pairs, one of language modelling 175,000 texts; each distinct chain is computed once by one trial while others
that want it wait. On two cores that is hours; on a GPU minutes.
"""

from search_spaces.domains import Float, Kind, OneOf

SPACE = {
    "stages": {
        "mlm": Kind(none={}, mlm={"mask_rate": OneOf(0.15), "epochs": OneOf(1.0, 3.0), "lr": OneOf(5e-5)}),
        "nli": Kind(none={}, nli={"lr": OneOf(5e-6, 2e-5), "epochs": OneOf(1.0, 5.0)}),
        "mnrl": Kind(none={}, mnrl={"scale": OneOf(10.0, 20.0, 40.0), "epochs": OneOf(1.0, 3.0, 5.0, 10.0)}),
    },
    "optimizer": {"encoder_lr": Float(1e-5, 3e-4, log=True), "head_lr": Float(1e-4, 1e-2, log=True)},
}
