"""Natural language inference pairs: does the premise entail the hypothesis, contradict it, or neither?

The file `nli-train.tsv` is tab-separated, quoted like CSV, with the header premise, hypothesis, label, source. `source`
names the corpus of a row; those of MNLI (Williams et al. 2018) begin with `mnli`. The file is in the data folder or in
a folder `nli` beside it.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minbert.data.files import DataError, fields_of, lines_of, stamp

FILE = "nli-train.tsv"
"""Name of the NLI file."""

COLUMNS = ("premise", "hypothesis", "label", "source")
"""Columns of its header, in any order."""

LABELS = ("entailment", "neutral", "contradiction")
"""Classes in the order of their numbers."""

SOURCES = {"all": "", "mnli": "mnli"}
"""Beginning of a row's `source`, by the value of `stages/nli/source`."""


@dataclass(frozen=True)
class Pairs:
    """The usable rows of an NLI file."""

    premises: list[str]
    hypotheses: list[str]
    labels: NDArray[np.int64]
    """Class numbers [R], in the order of LABELS."""


def find_nli(folder: Path) -> Path:
    """Find the NLI file of a data folder. Raises DataError with the paths tried."""
    paths = (folder / FILE, folder.resolve().parent / "nli" / FILE)
    for path in paths:
        if path.is_file():
            return path
    raise DataError(
        f"`stages/nli` needs {FILE} (tab-separated: {', '.join(COLUMNS)}), and neither {paths[0]} nor {paths[1]} "
        "exists. Put it there, or turn the stage off: `--set stages/nli/kind=none`."
    )


def digest(path: Path) -> str:
    """SHA-256 of the NLI file. Raises DataError."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def read_nli(path: Path, source: str = "all") -> Pairs:
    """Read the rows of the chosen sources; rows without a text or a label are left out. Raises DataError."""
    return _read(path, source, stamp(path))


@functools.lru_cache(maxsize=2)  # a space is checked with hundreds of configurations, a worker trains many trials
def _read(path: Path, source: str, version: tuple[int, int]) -> Pairs:
    lines = lines_of(path)
    header = fields_of(lines[0])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(f"{path}:1: the header lacks {', '.join(missing)}; found {header}, tab-separated.")
    columns = [header.index(name) for name in COLUMNS]
    premises, hypotheses, labels = [], [], []
    for number, line in enumerate(lines[1:], start=2):
        fields = fields_of(line)
        if len(fields) != len(header):
            continue
        premise, hypothesis, label, origin = (fields[column].strip() for column in columns)
        if not (premise and hypothesis and label) or not origin.startswith(SOURCES[source]):
            continue
        if label not in LABELS:
            raise DataError(f"{path}:{number}: `label` must be one of {', '.join(LABELS)}, found {label!r}.")
        premises.append(premise)
        hypotheses.append(hypothesis)
        labels.append(LABELS.index(label))
    if not premises:
        raise DataError(f"{path} has no usable rows for `stages/nli/source` {source}.")
    return Pairs(premises, hypotheses, np.array(labels))
