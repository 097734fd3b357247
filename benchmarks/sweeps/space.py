"""Search space of both sweeps, with one set of domains. It varies only what both sides can express.

Varied are full fine-tuning or LoRA on query and value, each with its own learning rates; the batch size of each task;
dropout; weight decay; and the learning rate of the heads. `SPACE` is the space for `hpo run`; `suggest` draws from the
same space with Optuna, as a user of OptunaSearch writes it. Both begin with our default configuration. The learning
rates and the rank have the ranges of space `quickstart`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.domains import Float, Int, Kind, OneOf

FULL_RATE = Float(5e-5, 5e-4, log=True)
LORA_RATE = Float(5e-4, 5e-3, log=True)
RANK = Int(4, 64, log=True)
ALPHA = Float(4.0, 64.0, log=True, prior=16.0)
LORA_DROPOUT = Float(0.0, 0.2)
HEAD_RATE = Float(3e-4, 1e-2, log=True)
DROPOUT = Float(0.0, 0.3)
WEIGHT_DECAY = Float(0.0, 0.1)
BATCHES: dict[str, dict[str, int]] = {
    "3/32/2": {"sst": 3, "qqp": 32, "sts": 2},
    "8/16/8": {"sst": 8, "qqp": 16, "sts": 8},
    "16/32/16": {"sst": 16, "qqp": 32, "sts": 16},
}

SPACE = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": FULL_RATE},
        lora={"rank": RANK, "alpha": ALPHA, "dropout": LORA_DROPOUT, "/optimizer/adapter_lr": LORA_RATE},
    ),
    "batch_size": OneOf(labels=BATCHES),
    "dropout": {"hidden": DROPOUT, "attention": DROPOUT, "head": DROPOUT},
    "optimizer": {"head_lr": HEAD_RATE, "weight_decay": WEIGHT_DECAY},
}

FIRST = {
    "adapter": "none", "full_lr": 2e-4, "batch_size": "16/32/16", "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "head_dropout": 0.1, "head_lr": 5e-4, "weight_decay": 0.01,
}  # fmt: skip
"""Our default configuration, which `hpo run` tries first, with the parameter names of `suggest`."""


def suggest(trial: Any) -> None:
    """Draw one configuration with an Optuna trial; Tune takes the parameters from the trial."""

    def number(name: str, domain: Float | Int) -> None:
        draw = trial.suggest_int if isinstance(domain, Int) else trial.suggest_float
        draw(name, domain.low, domain.high, log=domain.log)

    if trial.suggest_categorical("adapter", ["none", "lora"]) == "lora":
        number("lora_lr", LORA_RATE)
        number("rank", RANK)
        number("alpha", ALPHA)
        number("lora_dropout", LORA_DROPOUT)
    else:
        number("full_lr", FULL_RATE)
    trial.suggest_categorical("batch_size", list(BATCHES))
    for name in ("hidden_dropout", "attention_dropout", "head_dropout"):
        number(name, DROPOUT)
    number("head_lr", HEAD_RATE)
    number("weight_decay", WEIGHT_DECAY)


def as_settings(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """A draw of `suggest` as our nested configuration; tests use it to show that both spaces are the same."""
    lora = drawn["adapter"] == "lora"
    adapter: dict[str, Any] = {"kind": drawn["adapter"]}
    if lora:
        adapter |= {"rank": drawn["rank"], "alpha": drawn["alpha"], "dropout": drawn["lora_dropout"]}
    return {
        "adapter": adapter,
        "batch_size": BATCHES[drawn["batch_size"]],
        "dropout": {name: drawn[f"{name}_dropout"] for name in ("hidden", "attention", "head")},
        "optimizer": {
            **({"adapter_lr": drawn["lora_lr"]} if lora else {"encoder_lr": drawn["full_lr"]}),
            "head_lr": drawn["head_lr"],
            "weight_decay": drawn["weight_decay"],
        },
    }
