"""The rival: training as users of `transformers` write it. One encoder, AdamW, dynamic padding, shuffled batches.

One task is trained with `BertForSequenceClassification`. Several tasks share one `BertModel` with a linear layer for
each task on its pooled output; each task has a forward pass, and the losses are summed. Texts are tokenised once,
before a clock starts, and batches hold the same rows as ours in the same order. `tuned` adds what a careful user adds:
bf16 autocast and fused AdamW.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import BertForSequenceClassification, BertModel, BertTokenizerFast, DataCollatorWithPadding

from minbert.data.files import Rows
from minbert.tasks import Task

MAX_LENGTH = 128
CLIP_NORM = 1.0


class Multitask(nn.Module):
    """Multitask model: one encoder, and for each task a linear layer on its pooled output."""

    def __init__(self, encoder: nn.Module, width: int, dropout: float, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(width, task.classes) for name, task in tasks.items()})

    def forward(self, task: str, **inputs: Tensor) -> Tensor:
        """Outputs [B, C] of a padded batch [B, T]."""
        pooled = self.encoder(**inputs).pooler_output
        outputs: Tensor = self.heads[task](self.dropout(pooled))
        return outputs


def multitask(path: Path, tasks: Mapping[str, Task]) -> Multitask:
    """The multitask model of a pretrained encoder's folder, with the dropout rates of that encoder."""
    encoder = BertModel.from_pretrained(path)
    return Multitask(encoder, encoder.config.hidden_size, encoder.config.hidden_dropout_prob, tasks)


def task_loss(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of outputs [B, C] against labels [B]."""
    if task.kind == "classification":
        return F.cross_entropy(outputs, labels.long())
    return F.mse_loss(outputs.squeeze(-1), labels.float())


def tokenizer_of(path: Path) -> Any:
    return BertTokenizerFast.from_pretrained(path)


@dataclass(frozen=True)
class Tokens:
    """R tokenised rows for a DataLoader, in flat arrays that processes share without copies, like Arrow tables."""

    ids: NDArray[np.int32]
    """Word pieces of all rows end to end, special tokens included."""
    segments: NDArray[np.int8]
    offsets: NDArray[np.int64]
    """Start of each row in `ids`, and the end of the last row [R + 1]."""
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        place = slice(self.offsets[row], self.offsets[row + 1])
        ids, segments = self.ids[place].tolist(), self.segments[place].tolist()
        return {"input_ids": ids, "token_type_ids": segments, "labels": float(self.labels[row])}


def tokenised(rows: Rows, numbers: Iterable[int], tokenizer: Any) -> Tokens:
    """The rows with these numbers, tokenised."""
    selected = list(numbers)
    columns = zip(*(rows.texts[row] for row in selected), strict=True)
    encoded = tokenizer(*(list(column) for column in columns), truncation=True, max_length=MAX_LENGTH)
    return Tokens(
        np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]),
        np.concatenate([np.asarray(ids, dtype=np.int8) for ids in encoded["token_type_ids"]]),
        np.concatenate([[0], np.cumsum([len(ids) for ids in encoded["input_ids"]])]),
        rows.labels[selected].astype(np.float32),
    )


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """A loader's batches, repeated epoch after epoch."""
    while True:
        yield from loader


def batches(rows: Tokens, size: int, tokenizer: Any, *, shuffle: bool) -> DataLoader[Any]:
    """Batches padded to their longest row."""
    data: Any = rows
    return DataLoader(data, batch_size=size, shuffle=shuffle, collate_fn=DataCollatorWithPadding(tokenizer))


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(tuned: bool) -> contextlib.AbstractContextManager[Any]:
    """Autocast to bf16 for the tuned rival; otherwise a context that does nothing."""
    return torch.autocast(device().type, torch.bfloat16) if tuned else contextlib.nullcontext()


def one_task_step(path: Path, task: Task, loader: DataLoader[Any], *, tuned: bool = False) -> Callable[[], None]:
    """A function that trains `BertForSequenceClassification` on the next batch."""
    model = BertForSequenceClassification.from_pretrained(path, num_labels=task.classes).to(device()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if tuned else None)
    source = endless(loader)

    def step() -> None:
        inputs = next(source).to(device())
        inputs["labels"] = inputs["labels"].long()
        with autocast(tuned):
            loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()

    return step


def multitask_step(
    model: Multitask, tasks: Mapping[str, Task], loaders: Mapping[str, DataLoader[Any]], *, tuned: bool = False
) -> Callable[[], None]:
    """A function that trains on the next batch of every task: one forward pass each, one backward pass of the sum."""
    model.to(device()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if tuned else None)
    sources = {name: endless(loader) for name, loader in loaders.items()}

    def step() -> None:
        optimizer.zero_grad()
        with autocast(tuned):
            loss = summed_loss(model, tasks, {name: next(source) for name, source in sources.items()})
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()

    return step


def summed_loss(model: Multitask, tasks: Mapping[str, Task], padded: Mapping[str, Any]) -> Tensor:
    """Sum of the tasks' mean losses; `padded` holds one padded batch for each task."""
    losses = []
    for name, inputs in padded.items():
        inputs = inputs.to(device())
        labels = inputs.pop("labels")
        losses.append(task_loss(tasks[name], model(name, **inputs), labels))
    return torch.stack(losses).sum()


@torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
def predict(model: Multitask, task: Task, loader: Iterable[Any], *, tuned: bool = False) -> NDArray[np.float64]:
    """Predicted classes or scores [R], in the loader's order."""
    model.eval()
    predictions = []
    for inputs in loader:
        inputs = inputs.to(device())
        inputs.pop("labels")
        with autocast(tuned):
            outputs = model(task.name, **inputs)
        predictions.append(outputs.argmax(-1) if task.kind == "classification" else outputs.squeeze(-1))
    model.train()
    return np.asarray(torch.cat(predictions).double().cpu().numpy())
