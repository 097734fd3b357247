"""Natural language inference pairs: does the premise entail the hypothesis, contradict it, or neither?

The file `nli-train.tsv` is tab-separated, quoted like CSV, with the header premise, hypothesis, label, source; `source`
names the corpus of a row, MNLI's (Williams et al. 2018) begin with `mnli`. It lies in the data folder, or in a folder
`nli` beside it.
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
COLUMNS = ("premise", "hypothesis", "label", "source")
LABELS = ("entailment", "neutral", "contradiction")
"""Classes in the order of their numbers."""

SOURCES = {"all": "", "mnli": "mnli"}
"""What a row's source begins with, by the name of a choice."""


@dataclass(frozen=True)
class Pairs:
    """The usable rows of an NLI file."""

    premises: list[str]
    hypotheses: list[str]
    labels: NDArray[np.int64]
    """Class numbers [R], in the order of LABELS."""


def find_nli(folder: Path) -> Path:
    """The NLI file of a data folder. Raises DataError naming the places looked at."""
    places = (folder / FILE, folder.resolve().parent / "nli" / FILE)
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"`stages/nli` needs {FILE} (tab-separated: {', '.join(COLUMNS)}), and neither {places[0]} nor {places[1]} "
        "is there. Put it at one of the two, or do without: `--set stages/nli/kind=none`."
    )


def digest(path: Path) -> str:
    """SHA-256 of the file. Raises DataError."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def read_nli(path: Path, source: str = "all") -> Pairs:
    """Read the rows of a choice of sources; rows without a text or a label are left out. Raises DataError."""
    return _read(path, source, stamp(path))


@functools.lru_cache(maxsize=2)  # a space is checked with hundreds of configurations, a worker trains many trials
def _read(path: Path, source: str, mark: tuple[int, int]) -> Pairs:
    lines = lines_of(path)
    header = fields_of(lines[0])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(f"{path}:1: the header lacks {', '.join(missing)}; found {header}, tab-separated.")
    where = [header.index(name) for name in COLUMNS]
    premises, hypotheses, labels = [], [], []
    for number, line in enumerate(lines[1:], start=2):
        fields = fields_of(line)
        if len(fields) != len(header):
            continue
        premise, hypothesis, label, origin = (fields[index].strip() for index in where)
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
