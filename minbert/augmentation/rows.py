"""Augmented rows of a trial: tokenised and appended to a task's training rows.

The rows of the file keep their row numbers, so splits and scores do not change.
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
    """Add an augmentation's new training rows to the tasks declared `augmented`. Raises DataError.

    Equal augmentation, seed and data give equal rows.
    """
    if not augmentation.active:
        return data
    files, parts, sha256 = dict(data.files), dict(data.parts), hashlib.sha256()
    for name, task in data.tasks.items():
        if task.augmented:
            rows, _ = read_file(data.folder / task.files["train"], task, labelled=True)
            new = augmentation.extra(_material(data, task, rows, seed))
            sha256.update(json.dumps([name, new]).encode())
            if new:
                old = files[name, "train"]
                files[name, "train"] = _appended(data, old, new)
                numbers = np.arange(len(old.labels), len(old.labels) + len(new), dtype=np.int32)
                parts[name, "train"] = np.concatenate([parts[name, "train"], numbers])
    return replace(data, files=files, parts=parts, added=sha256.hexdigest())


def check(augmentation: Augmentation, corpus: Corpus) -> None:
    """Check, before any compute, that an augmentation has a task to augment and its files. Raises DataError."""
    if not augmentation.active:
        return
    tasks = [task for task in corpus.tasks.values() if task.augmented]
    if not tasks:
        raise DataError(
            f"`augmentation/kind` {augmentation.kind} adds rows to tasks declared `augmented`; the tasks of this run "
            f"are not: {', '.join(corpus.tasks)}. Use the kind none: `--set augmentation/kind=none`."
        )
    if augmentation.reads_file:
        for task in tasks:
            read_file(_augmented_file(corpus.folder, task), task, labelled=True)
    else:
        find_thesaurus(None, corpus.folder)


def reads(augmentation: Augmentation, corpus: Corpus) -> list[Path]:
    """Files, other than those of the tasks, that an augmentation reads. Raises DataError."""
    if not augmentation.active:
        return []
    if augmentation.reads_file:
        return [_augmented_file(corpus.folder, task) for task in corpus.tasks.values() if task.augmented]
    return [Path(find_thesaurus(None, corpus.folder).name)]


def _material(data: Data, task: Task, rows: Rows, seed: int) -> Material:
    labelled = np.flatnonzero(~np.isnan(rows.labels)).tolist()
    return Material(
        texts=[rows.texts[row][0] for row in labelled],
        labels=[float(rows.labels[row]) for row in labelled],
        seed=seed,
        thesaurus=lambda: find_thesaurus(None, data.folder),
        file=lambda: read_file(_augmented_file(data.folder, task), task, labelled=True)[0],
    )


def _augmented_file(folder: Path, task: Task) -> Path:
    """Path of a task's augmented file in the data folder. Raises DataError where it is missing."""
    path = folder / augmented_name(task)
    if not path.is_file():
        raise DataError(
            f"`augmentation/kind` file needs {path.name} in the data folder {folder}. Write it with "
            f"`python -m minbert data augment --data {folder} --out {path}`, or use the kind edit or none."
        )
    return path


def _appended(data: Data, old: TaskFile, new: list[tuple[str, float]]) -> TaskFile:
    """A file with new rows (text, label) after the old ones."""
    tokenizer = word_piece(data.base.vocabulary, data.base.lowercase)
    encoded = tokenizer.encode_batch([text for text, _ in new], add_special_tokens=False)
    ids = [np.asarray(item.ids, dtype=np.int32) for item in encoded]
    (texts,) = old.texts
    ends = np.cumsum([len(pieces) for pieces in ids])
    column = Texts(np.concatenate([texts.ids, *ids]), np.concatenate([texts.offsets, texts.offsets[-1] + ends]))
    labels = np.concatenate([old.labels, np.array([label for _, label in new], dtype=np.float32)])
    return TaskFile((column,), labels, added=len(new))
