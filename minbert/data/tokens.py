"""Cache of tokenised data in memory maps: built once per data, vocabulary and machine, shared by all processes.

Every text is cut into word pieces once, without special tokens. A batch later adds [CLS] and [SEP], so one cache entry
serves every encoding and length limit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from minbert.caches import cache_folder, hold, trim
from minbert.data.files import SAMPLE, Corpus, DataError, data_folder, file_of, fingerprint, read_corpus
from minbert.encoder.base import Base
from minbert.tasks import Task, run_tasks

CACHE_VERSION = 1
"""Part of the cache's key; raise it when the layout or the tokenisation changes."""

UNLOADABLE = (OSError, ValueError, EOFError)
"""Errors of loading a cache entry that is absent, or incomplete after a loss of power; it is then built anew."""


def word_piece(vocabulary: tuple[str, ...], lowercase: bool) -> Tokenizer:
    """BERT's tokeniser without special tokens (basic cleaning and splitting, then WordPiece)."""
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@dataclass(frozen=True)
class Texts:
    """Texts of one column of one file, as word pieces."""

    ids: NDArray[np.int32]
    """Word-piece ids of all texts, end to end."""
    offsets: NDArray[np.int64]
    """Index in `ids` of the beginning of each text, then the total length [R + 1]."""

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer) -> Texts:
        """Texts cut into word pieces by the tokeniser of `word_piece`."""
        encoded = [item.ids for item in tokenizer.encode_batch(texts, add_special_tokens=False)]
        flat = np.fromiter(itertools.chain.from_iterable(encoded), dtype=np.int32)
        return cls(flat, np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]).astype(np.int64))


@dataclass(frozen=True)
class TaskFile:
    """One file of one task: texts of each column and labels [R], NaN for a row without one."""

    texts: tuple[Texts, ...]
    labels: NDArray[np.float32]
    added: int = 0
    """Number of rows at its end that an augmentation added."""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the file's texts as word pieces, without those that an augmentation added."""
        sha256, rows = hashlib.sha256(), len(self.labels) - self.added
        for column in self.texts:
            offsets = np.asarray(column.offsets[: rows + 1], dtype=np.int64)
            sha256.update(offsets.tobytes() + np.asarray(column.ids[: offsets[-1]], dtype=np.int32).tobytes())
        return sha256.hexdigest()


@dataclass(frozen=True)
class Data:
    """Data of a trial: tokenised files and splits of its tasks, and the base encoder."""

    base: Base
    fingerprint: str
    """Fingerprint of the corpus."""
    tasks: dict[str, Task]
    files: dict[tuple[str, str], TaskFile]
    """Files by (task, file); a file is train, dev or test."""
    parts: dict[tuple[str, str], NDArray[np.int32]]
    """Row numbers by (task, split)."""
    added: str = ""
    """SHA-256 of the training rows that an augmentation added; empty without augmentation."""
    folder: Path = SAMPLE
    """The data folder; stages and augmentations read further files there."""

    def sizes(self, split: str) -> dict[str, int]:
        """Number of rows of a split, by task."""
        return {task: len(self.parts[task, split]) for task in self.tasks}

    def file(self, task: str, split: str) -> TaskFile:
        """The file that holds a split of a task."""
        return self.files[task, file_of(split)]


def open_data(
    folder: str | Path | None,
    base: Base,
    *,
    tasks: Mapping[str, Task] | None = None,
    cache: Path | None = None,
    corpus: Corpus | None = None,
) -> Data:
    """Open a data folder (None: the sample corpus) for a base; tokenises it where the cache does not hold it.

    `tasks` None means the default ones. A `corpus` read from the same folder saves a second reading; its tasks are used
    instead. Raises DataError.
    """
    chosen = run_tasks(corpus.tasks if corpus else tasks)
    path = data_folder(folder, chosen)
    data_fingerprint = corpus.fingerprint if corpus else fingerprint(path, chosen)
    vocabulary = hashlib.sha256("\n".join((*base.vocabulary, str(base.lowercase))).encode()).hexdigest()
    key = hashlib.sha256(f"{CACHE_VERSION}/{data_fingerprint}/{vocabulary}".encode()).hexdigest()[:32]
    entry = (cache or cache_folder()) / key
    try:
        data = _load(entry, base, data_fingerprint, chosen)
    except UNLOADABLE:
        try:
            _build(entry, corpus or read_corpus(path, chosen), base)
        except OSError as error:
            raise DataError(f"`MINBERT_CACHE` {entry.parent} cannot be written: {error.strerror}.") from error
        data = _load(entry, base, data_fingerprint, chosen)
    trim(entry.parent)
    return replace(data, folder=path.resolve())


def _build(entry: Path, corpus: Corpus, base: Base) -> None:
    """Write a cache entry under a temporary name, then rename it, so that readers see it complete or not at all."""
    tokenizer = word_piece(base.vocabulary, base.lowercase)
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".building-"))
    try:
        for (task, file), rows in corpus.rows.items():
            np.save(temporary / f"{task}.{file}.labels.npy", rows.labels.astype(np.float32))
            for column in range(len(corpus.tasks[task].columns)):
                texts = Texts.of([row[column] for row in rows.texts], tokenizer)
                np.save(temporary / f"{task}.{file}.{column}.ids.npy", texts.ids)
                np.save(temporary / f"{task}.{file}.{column}.offsets.npy", texts.offsets)
        for (task, split), numbers in corpus.parts.items():
            np.save(temporary / f"{task}.{split}.rows.npy", numbers)
        index = {"files": list(corpus.rows), "parts": list(corpus.parts)}
        (temporary / "index.json").write_text(json.dumps(index))
        _replace(temporary, entry, lambda: _load(entry, base, corpus.fingerprint, corpus.tasks))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, entry: Path, load: Callable[[], object]) -> None:
    """Rename a complete entry unless another process was first; deletes an entry that does not load. Raises OSError."""
    for _ in range(3):
        try:
            temporary.rename(entry)
            return
        except OSError:
            with contextlib.suppress(*UNLOADABLE):
                load()
                return
            damaged = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".damaged-"))
            with contextlib.suppress(OSError):
                entry.rename(damaged / "entry")
            shutil.rmtree(damaged, ignore_errors=True)
    raise OSError(f"{entry} cannot be replaced")


def _load(entry: Path, base: Base, data_fingerprint: str, tasks: dict[str, Task]) -> Data:
    """Map a cache entry into memory. Raises one of UNLOADABLE."""
    hold(entry / "index.json")
    index = json.loads((entry / "index.json").read_text())

    def array(name: str) -> NDArray[np.int32]:
        return np.load(entry / f"{name}.npy", mmap_mode="r")  # type: ignore[no-any-return]

    files = {
        (task, file): TaskFile(
            tuple(
                Texts(array(f"{task}.{file}.{column}.ids"), array(f"{task}.{file}.{column}.offsets"))  # type: ignore[arg-type]
                for column in range(len(tasks[task].columns))
            ),
            array(f"{task}.{file}.labels"),  # type: ignore[arg-type]
        )
        for task, file in index["files"]
    }
    parts = {(task, split): array(f"{task}.{split}.rows") for task, split in index["parts"]}
    return Data(base, data_fingerprint, tasks, files, parts)
