"""Augmentation of a training file: draw a technique for each batch of rows, apply it, drop duplicates, write a file.

    rows -> batches of 100 -> one technique each, drawn with the paper's probabilities -> new texts with the old labels

`multi_extended`, section 4, Data Augmentation. Finished batches are kept in a journal beside the output, so a resumed
run does not request them again. The output file is written in full or not at all.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minbert.augmentation.augmentations import AUGMENTERS, REMOTE, Edit, Instructed, draw, spread
from minbert.augmentation.chat import Chat, ChatError, ask
from minbert.augmentation.edits import distinct, normalised
from minbert.augmentation.thesaurus import Thesaurus
from minbert.data.files import Rows
from minbert.disk import sync
from minbert.randomness import numpy_generator
from minbert.tasks import Task

FORMAT = 1
"""Format version, part of every journal; raise it when the same settings give other batches."""

PROVENANCE = ("source", "technique")
"""Columns after those of the training file: id of the old row, and technique of the new one."""


@dataclass(frozen=True)
class Batch:
    """Rows that get the same technique."""

    number: int
    technique: str
    jobs: tuple[tuple[int, int], ...]
    """(row, copy) of each new sentence."""


@dataclass(frozen=True)
class AugmentationPlan:
    """Everything that decides the new sentences of a training file."""

    task: Task
    rows: Rows
    """Rows of the training file."""
    probabilities: Mapping[str, float]
    """Probability of each technique for a batch; they sum to 1."""
    thesaurus: Thesaurus
    seed: int = 0
    amount: float = 1.0
    """New rows for each labelled row, before duplicates are dropped."""
    size: int = 100
    """Rows of a batch."""
    temperatures: tuple[float, float] = (0.55, 0.85)
    """Range of the language model's temperature, drawn for each batch."""
    languages: tuple[str, ...] = ("Spanish",)
    """Languages of back-translation, drawn for each batch."""

    def batches(self) -> list[Batch]:
        """All batches in order; a function of the plan alone."""
        usable = np.flatnonzero(~np.isnan(self.rows.labels)).tolist()
        jobs = [(usable[index], copy) for index, copy in spread(len(usable), self.amount, self.seed)]
        return [
            Batch(
                number,
                draw(self.probabilities, numpy_generator(self.seed, "augment-technique", number)),
                tuple(jobs[start : start + self.size]),
            )
            for number, start in enumerate(range(0, len(jobs), self.size))
        ]

    def settings(self, model: str) -> dict[str, Any]:
        """Settings that must be equal for a journal to be continued, by name."""
        remote = any(name in REMOTE for name in self.probabilities)
        content = repr((self.rows.ids, self.rows.texts, self.rows.labels.tolist()))
        return {
            "format": FORMAT,
            "task": self.task.name,
            "training rows": hashlib.sha256(content.encode()).hexdigest(),
            "techniques": dict(self.probabilities),
            "synonyms": self.thesaurus.sha256,
            "seed": self.seed,
            "amount": self.amount,
            "batch": self.size,
            **({"model": model, "temperatures": self.temperatures, "languages": self.languages} if remote else {}),
        }

    def texts(self, batch: Batch) -> list[str]:
        """Old texts of a batch."""
        return [self.rows.texts[row][0] for row, _ in batch.jobs]

    def edited(self, batch: Batch) -> list[str | None]:
        """New texts of a batch by word edits; None where the technique cannot be applied."""
        technique: Edit = AUGMENTERS[batch.technique]()
        return [
            technique.edit(self.rows.texts[row][0], numpy_generator(self.seed, "augment", row, copy), self.thesaurus)
            for row, copy in batch.jobs
        ]

    def instructed(self, batch: Batch, chat: Chat) -> list[str | None]:
        """New texts of a batch by a language model; None where it did not answer as asked. Raises ChatError."""
        technique: Instructed = AUGMENTERS[batch.technique]()
        generator = numpy_generator(self.seed, "augment-request", batch.number)
        temperature = float(generator.uniform(*self.temperatures))
        language = self.languages[int(generator.integers(len(self.languages)))]
        texts: list[str | None] = list(self.texts(batch))
        for instruction in technique.instructions(language):
            indices = [index for index, text in enumerate(texts) if text is not None]
            answers = ask(chat, instruction, [text for text in texts if text is not None], temperature)
            for index, answer in zip(indices, answers, strict=True):
                texts[index] = answer
        return texts


@dataclass
class Tally:
    """Sentences of one technique by outcome; tried is the sum of the others."""

    tried: int = 0
    new: int = 0
    """New rows of the file."""
    duplicates: int = 0
    """Texts of a training row or of an earlier new row, which were dropped."""
    impossible: int = 0
    """The technique could not be applied, for example because the sentence has no noun or verb."""
    failed: int = 0
    """The model did not answer as asked."""


def work(
    plan: AugmentationPlan,
    chat: Chat | None,
    records: Sequence[Mapping[str, Any]],
    save: Callable[[dict[str, Any]], None],
    progress: Callable[[Batch, list[str | None]], None] = lambda batch, texts: None,
) -> list[list[str | None]]:
    """New texts of every batch: finished ones from `records`, the others made now and passed to `save`.

    Raises ChatError; the batches saved before it stay valid.
    """
    finished = {record["batch"]: record["texts"] for record in records}
    answered = any(record["technique"] in REMOTE and any(record["texts"]) for record in records)
    results = []
    for batch in plan.batches():
        texts = finished.get(batch.number)
        if texts is None:
            if batch.technique not in REMOTE:
                texts = plan.edited(batch)
            else:
                assert chat is not None
                texts = plan.instructed(batch, chat)
                if not any(texts) and not answered:  # the next batches would waste requests too
                    raise ChatError(
                        f"{chat.model} at {chat.url} answered no sentence of batch {batch.number} with numbered lines "
                        "as asked; try a smaller --batch or another --model.",
                        passing=True,
                    )
                answered = True
            save({"batch": batch.number, "technique": batch.technique, "texts": texts})
        results.append(texts)
        progress(batch, texts)
    return results


@dataclass(frozen=True)
class NewRow:
    """One line of the augmented file."""

    id: str
    text: str
    label: float
    source: str
    technique: str


def assemble(
    plan: AugmentationPlan, results: Sequence[Sequence[str | None]]
) -> tuple[list[NewRow], dict[str, Tally]]:
    """New rows in order, without duplicates of training rows and of each other; and the tally of each technique."""
    tallies = {name: Tally() for name in plan.probabilities}
    candidates: list[tuple[str, int, str]] = []  # text, row, technique
    for batch, texts in zip(plan.batches(), results, strict=True):
        tally = tallies[batch.technique]
        tally.tried += len(texts)
        for (row, _), text in zip(batch.jobs, texts, strict=True):
            if text is not None:
                candidates.append((text, row, batch.technique))
            elif batch.technique in REMOTE:
                tally.failed += 1
            else:
                tally.impossible += 1
    old = [texts[0] for texts in plan.rows.texts]
    taken, rows = set(plan.rows.ids), []
    new = distinct((text for text, *_ in candidates), old)
    for (text, row, technique), is_new in zip(candidates, new, strict=True):
        if is_new:
            identifier = new_id(plan.task.name, text, taken)
            taken.add(identifier)
            rows.append(NewRow(identifier, text, float(plan.rows.labels[row]), plan.rows.ids[row], technique))
            tallies[technique].new += 1
        else:
            tallies[technique].duplicates += 1
    return rows, tallies


def new_id(task: str, text: str, taken: set[str]) -> str:
    """Id of a new row, not `taken`: 25 hexadecimal digits, as in the class format, of a SHA-256 of task and text."""
    for number in range(len(taken) + 1):
        identifier = hashlib.sha256(f"{task}/{number}/{normalised(text)}".encode()).hexdigest()[:25]
        if identifier not in taken:
            return identifier
    raise AssertionError("len(taken) + 1 different ids cannot all be taken")


def augmented_name(task: Task) -> str:
    """Name of a task's augmented file, for example `ids-sst-train-augmented.csv`."""
    name = Path(task.files["train"])
    return f"{name.stem}-augmented{name.suffix}"


def header_of(path: Path) -> list[str]:
    """Column names of a file that `read_file` accepts."""
    with path.open(encoding="utf-8-sig", newline="\n") as stream:
        return next(csv.reader([stream.readline().rstrip("\r\n")], delimiter="\t"))


def write(path: Path, header: Sequence[str], task: Task, rows: Sequence[NewRow]) -> None:
    """Write new rows under the columns of the training file and PROVENANCE, in full or not at all.

    A first column without a name holds the row number; columns that the task does not use stay empty.
    """
    names = [*(name for name in header if name not in PROVENANCE), *PROVENANCE]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(names)
    for number, row in enumerate(rows):
        values = {
            "id": row.id,
            task.columns[0]: row.text,
            task.label: f"{row.label:g}",
            "source": row.source,
            "technique": row.technique,
        }
        index = {"": str(number)} if names[0] == "" else {}
        writer.writerow([(index | values).get(name, "") for name in names])
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text.getvalue())
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
