"""Trial of the stock sweep, as users of Ray Tune, `transformers` and `peft` write it.

The model is one encoder with a linear layer for each task. Each step takes one batch of each task and sums the losses.
AdamW has two parameter groups, a linear schedule with warm-up, and clipping. At each rung of ASHA the trial reports
with a checkpoint. The driver tokenises the texts once; trials read them from Ray's object store without copies.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray import tune
from torch import nn
from transformers import BertModel, get_linear_schedule_with_warmup

from benchmarks import rival
from benchmarks.rival import Multitask, Tokens
from benchmarks.sweeps.space import BATCHES
from minbert.tasks import choose_tasks
from minbert.training.evaluation import Values, judge

TASKS_HERE = choose_tasks()
WARM_UP = 0.1
SCORED_AT_ONCE = 32
FILE = "model.pt"


@dataclass(frozen=True)
class Prepared:
    """Data that all trials share."""

    encoder: str
    """Folder of the pretrained encoder."""
    train: Mapping[str, Tokens]
    search: Mapping[str, Tokens]
    labels: Mapping[str, NDArray[np.float32]]
    """Labels of the `search` rows."""
    reports: Sequence[int]
    """Milestones in examples, ascending: ASHA's rungs and the budget."""
    seed: int


def build(config: Mapping[str, Any], encoder: str) -> Multitask:
    """The model for a drawn configuration."""
    model = BertModel.from_pretrained(
        encoder,
        hidden_dropout_prob=config["hidden_dropout"],
        attention_probs_dropout_prob=config["attention_dropout"],
    )
    width = model.config.hidden_size
    if config["adapter"] == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=config["rank"],
                lora_alpha=config["alpha"],
                lora_dropout=config["lora_dropout"],
                target_modules=["query", "value"],
            ),
        )
    return Multitask(model, width, config["head_dropout"], TASKS_HERE)


def optimizer_of(model: Multitask, config: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW with one learning rate for the encoder and one for the heads."""
    rate = config["lora_lr" if config["adapter"] == "lora" else "full_lr"]
    encoder = [value for value in model.encoder.parameters() if value.requires_grad]
    groups = [{"params": encoder, "lr": rate}, {"params": model.heads.parameters(), "lr": config["head_lr"]}]
    return torch.optim.AdamW(groups, weight_decay=config["weight_decay"])


def train(config: dict[str, Any], prepared: Prepared) -> None:
    """Train one trial; Tune calls this function in a worker."""
    torch.manual_seed(prepared.seed)
    tokenizer = rival.tokenizer_of(Path(prepared.encoder))
    sizes = BATCHES[config["batch_size"]]
    loaders = {
        name: rival.endless(rival.batches(prepared.train[name], sizes[name], tokenizer, shuffle=True)) for name in sizes
    }
    model = build(config, prepared.encoder).to(rival.device()).train()
    optimizer = optimizer_of(model, config)
    steps = -(-prepared.reports[-1] // sum(sizes.values()))
    schedule = get_linear_schedule_with_warmup(optimizer, int(WARM_UP * steps), steps)
    trained = [value for value in model.parameters() if value.requires_grad]
    examples = 0
    for milestone in prepared.reports:
        while examples < milestone:
            loss = rival.summed_loss(model, TASKS_HERE, {name: next(loader) for name, loader in loaders.items()})
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, rival.CLIP_NORM)
            optimizer.step()
            schedule.step()
            examples += sum(sizes.values())
        scores = judge(TASKS_HERE, predictions(model, prepared.search, prepared.labels, tokenizer))
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / FILE)
            checkpoint = tune.Checkpoint.from_directory(folder)
            tune.report({"overall": scores.overall, "examples": examples, **scores.tasks}, checkpoint=checkpoint)


def predictions(
    model: Multitask, rows: Mapping[str, Tokens], labels: Mapping[str, NDArray[np.float32]], tokenizer: Any
) -> Values:
    """Predictions and labels of every task."""
    values: Values = {}
    for name, tokens in rows.items():
        loader = rival.batches(tokens, SCORED_AT_ONCE, tokenizer, shuffle=False)
        values[name] = rival.predict(model, TASKS_HERE[name], loader), labels[name]
    return values
