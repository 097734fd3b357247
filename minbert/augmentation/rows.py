"""Training rows that an augmentation adds: tokenised and put behind a task's own.

The rows of the file stay where they are, so that positions, splits and everything that is scored are untouched.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from minbert.augmentation.augmentations import Augmentation, Material
from minbert.augmentation.job import augmented_name
from minbert.augmentation.thesaurus import find_thesaurus
from minbert.data.files import Corpus, DataError, Rows, read_file
from minbert.data.tokens import Data, TaskFile, Texts, word_piece
from minbert.tasks import Task


def augmented(data: Data, augmentation: Augmentation, seed: int) -> Data:
    """The data with an augmentation's new training rows, for tasks that are augmented. Raises DataError.

    Equal augmentation, seed and data give equal rows.
    """
    if not augmentation.active:
        return data
    files, parts, added = dict(data.files), dict(data.parts), hashlib.sha256()
    for name, task in data.tasks.items():
        if task.augmented:
            rows, _ = read_file(data.folder / task.files["train"], task, labelled=True)
            new = augmentation.extra(_material(data, task, rows, seed))
            added.update(json.dumps([name, new]).encode())
            if new:
                old = files[name, "train"]
                files[name, "train"] = _longer(data, old, new)
                numbers = np.arange(len(old.labels), len(old.labels) + len(new), dtype=np.int32)
                parts[name, "train"] = np.concatenate([parts[name, "train"], numbers])
    return replace(data, files=files, parts=parts, added=added.hexdigest())


def needs(augmentation: Augmentation, corpus: Corpus) -> None:
    """Raise DataError, before any compute, where what an augmentation reads is missing or of no use."""
    if not augmentation.active:
        return
    chosen = [task for task in corpus.tasks.values() if task.augmented]
    if not chosen:
        raise DataError(
            f"`augmentation/kind` {augmentation.kind} adds rows to tasks that are declared `augmented`, and this run "
            f"has {', '.join(corpus.tasks)}, which are not. Use the kind none: `--set augmentation/kind=none`."
        )
    if augmentation.reads_file:
        for task in chosen:
            read_file(_augmented_file(corpus.folder, task), task, labelled=True)
    else:
        find_thesaurus(None, corpus.folder)


def reads(augmentation: Augmentation, corpus: Corpus) -> list[Path]:
    """The files beside the tasks' own that decide an augmentation's rows. Raises DataError."""
    if not augmentation.active:
        return []
    if augmentation.reads_file:
        return [_augmented_file(corpus.folder, task) for task in corpus.tasks.values() if task.augmented]
    return [Path(find_thesaurus(None, corpus.folder).name)]


def _material(data: Data, task: Task, rows: Rows, seed: int) -> Material:
    kept = np.flatnonzero(~np.isnan(rows.labels)).tolist()
    return Material(
        texts=[rows.texts[row][0] for row in kept],
        labels=[float(rows.labels[row]) for row in kept],
        seed=seed,
        thesaurus=lambda: find_thesaurus(None, data.folder),
        file=lambda: read_file(_augmented_file(data.folder, task), task, labelled=True)[0],
    )


def _augmented_file(folder: Path, task: Task) -> Path:
    path = folder / augmented_name(task)
    if not path.is_file():
        raise DataError(
            f"`augmentation/kind` file needs {path.name} in the data folder {folder}. Write it with "
            f"`python -m minbert data augment --data {folder} --out {path}`, or use the kind edit or none."
        )
    return path


def _longer(data: Data, old: TaskFile, new: list[tuple[str, float]]) -> TaskFile:
    tokenizer = word_piece(data.base.vocabulary, data.base.lowercase)
    encoded = tokenizer.encode_batch([text for text, _ in new], add_special_tokens=False)
    ids = [np.asarray(item.ids, dtype=np.int32) for item in encoded]
    (texts,) = old.texts
    ends = np.cumsum([len(pieces) for pieces in ids])
    column = Texts(np.concatenate([texts.ids, *ids]), np.concatenate([texts.offsets, texts.offsets[-1] + ends]))
    labels = np.concatenate([old.labels, np.array([label for _, label in new], dtype=np.float32)])
    return TaskFile((column,), labels, added=len(new))
