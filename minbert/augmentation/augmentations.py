"""Augmentation: new training sentences made from old ones, with the same label.

    technique of a batch ~ p_t / sum p,   p = 0.3 synonym, 0.2 insert, 0.2 delete, 0.2 swap, 0.1 back-translation

`multi_extended` (section 4, Data Augmentation, after Wei and Zou 2019). AUGMENTERS holds the techniques that make one
sentence: edits of words, made here, and instructions that `minbert.augmentation.job` sends to a language model.
AUGMENTATIONS holds the ways in which a trial adds rows. Random draws are a function of (seed, row, copy).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from minbert.augmentation import edits
from minbert.augmentation.thesaurus import Thesaurus
from minbert.data.files import Rows
from minbert.fields import ConfigError, number, unknown
from minbert.randomness import derive, numpy_generator


class Edit(Protocol):
    """A technique that edits the words of a sentence, without a language model."""

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        """Edit a sentence; None where the technique cannot be applied to it."""


class Instructed(Protocol):
    """A technique that a language model carries out on request."""

    def instructions(self, language: str) -> tuple[str, ...]:
        """Instructions for the model, in order; each is applied to the answers to the one before."""


@dataclass(frozen=True)
class Synonym:
    """Replace a random noun or verb by one of its synonyms."""

    kind: ClassVar[str] = "synonym"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.3

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.synonym(text, generator, thesaurus)


@dataclass(frozen=True)
class Insert:
    """Insert a synonym of a random word at a random place (Wei and Zou 2019)."""

    kind: ClassVar[str] = "insert"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.2

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.insert(text, generator, thesaurus)


@dataclass(frozen=True)
class Delete:
    """Delete a random word."""

    kind: ClassVar[str] = "delete"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.2

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.delete(text, generator)


@dataclass(frozen=True)
class Swap:
    """Swap two random words."""

    kind: ClassVar[str] = "swap"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.2

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.swap(text, generator)


@dataclass(frozen=True)
class BackTranslation:
    """Translate into another language and back (in the paper Spanish)."""

    kind: ClassVar[str] = "backtranslate"
    remote: ClassVar[bool] = True
    paper: ClassVar[float] = 0.1

    def instructions(self, language: str) -> tuple[str, ...]:
        return (
            f"Translate each of these English sentences into {language}.",
            f"Translate each of these {language} sentences into English.",
        )


@dataclass(frozen=True)
class Rewrite:
    """Let a language model paraphrase the sentence; not one of the paper's five techniques, so its probability is 0."""

    kind: ClassVar[str] = "rewrite"
    remote: ClassVar[bool] = True
    paper: ClassVar[float] = 0.0

    def instructions(self, language: str) -> tuple[str, ...]:
        return (
            "Say each of these sentences in other words. Keep its meaning, its tone and how strong its opinion is.",
        )


AUGMENTERS: dict[str, type[Any]] = {
    technique.kind: technique for technique in (Synonym, Insert, Delete, Swap, BackTranslation, Rewrite)
}
"""Techniques by kind. `remote`: a language model is needed; `paper`: probability in the paper."""

EDITS = tuple(name for name, technique in AUGMENTERS.items() if not technique.remote)
"""Techniques that need no language model."""

REMOTE = tuple(name for name in AUGMENTERS if name not in EDITS)
"""Techniques that need a language model behind an endpoint."""

PAPER: dict[str, float] = {name: technique.paper for name, technique in AUGMENTERS.items()}
"""Probability of each technique in the paper; they sum to 1."""


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Probabilities in proportion to weights; techniques of weight 0 are left out. Raises ConfigError."""
    for name, weight in weights.items():
        if name not in AUGMENTERS:
            raise unknown("technique", name, AUGMENTERS)
        if not 0 <= weight <= 1:  # true for NaN too
            raise ConfigError(f"The probability of `{name}` must be a number from 0 to 1, found {weight}.")
    total = math.fsum(weights.values())
    if not total > 0:
        raise ConfigError(
            f"At least one technique must have a probability above 0, found {', '.join(weights) or 'none'} at 0."
        )
    return {name: weight / total for name, weight in weights.items() if weight}


def draw(probabilities: Mapping[str, float], generator: np.random.Generator) -> str:
    """Draw one technique by its probability."""
    names = list(probabilities)
    return names[int(generator.choice(len(names), p=list(probabilities.values())))]


def spread(count: int, amount: float, seed: int) -> list[tuple[int, int]]:
    """Choose the rows that give new ones, as (row, copy): round(amount * count) of them, spread evenly over the rows.

    Every row gives the same number of copies, or one more. The rows with one more rank first in an order that the seed
    decides, so that a smaller amount takes a subset of the rows of a larger one.
    """
    copies, extra = divmod(round(amount * count), count) if count else (0, 0)
    jobs = [(row, copy) for copy in range(copies) for row in range(count)]
    ranked = sorted(range(count), key=lambda row: derive(seed, "augmentation-order", row)) if extra else []
    return [*jobs, *((row, copies) for row in sorted(ranked[:extra]))]


@dataclass(frozen=True)
class Material:
    """Labelled training rows of one sentence task; the thesaurus and the augmented file are loaded when used."""

    texts: Sequence[str]
    labels: Sequence[float]
    seed: int
    thesaurus: Callable[[], Thesaurus]
    """Loads the thesaurus."""
    file: Callable[[], Rows]
    """Reads the rows of the augmented file."""


Extra = list[tuple[str, float]]
"""Added training rows: (text, label)."""


class Augmentation(Protocol):
    """Hyperparameters of an augmentation."""

    kind: ClassVar[str]
    active: ClassVar[bool]
    """Whether the augmentation adds rows."""
    reads_file: ClassVar[bool]
    """Whether the rows come from the augmented file."""

    @property
    def amount(self) -> float:
        """New rows for each row that it is given, of the training file or of the augmented one."""
        ...

    def extra(self, material: Material) -> Extra:
        """New rows for one task."""
        ...


@dataclass(frozen=True)
class NoAugmentation:
    """No added rows."""

    kind: ClassVar[str] = "none"
    active: ClassVar[bool] = False
    reads_file: ClassVar[bool] = False
    amount: ClassVar[float] = 0.0

    def extra(self, material: Material) -> Extra:
        return []


@dataclass(frozen=True)
class EditAugmentation:
    """New rows by random edits of words, made when the trial starts; needs no language model and no file."""

    kind: ClassVar[str] = "edit"
    active: ClassVar[bool] = True
    reads_file: ClassVar[bool] = False
    amount: float = number(1.0, 0.0, 4.0, open_low=True)
    """New rows for each training row, before duplicates are dropped."""
    synonym: float = number(0.3, 0.0, 1.0)
    """Probability of a synonym for a noun or verb; the four probabilities are scaled to sum to 1."""
    insert: float = number(0.2, 0.0, 1.0)
    """Probability of an inserted word."""
    delete: float = number(0.2, 0.0, 1.0)
    """Probability of a deleted word."""
    swap: float = number(0.2, 0.0, 1.0)
    """Probability of two words swapped."""

    def __post_init__(self) -> None:
        if not any(self.weights.values()):
            raise ConfigError(
                f"`augmentation`: the probabilities of {', '.join(EDITS)} are all 0. "
                "Expected at least one above 0, or the kind `none`."
            )

    @property
    def weights(self) -> dict[str, float]:
        return {name: float(getattr(self, name)) for name in EDITS}

    def extra(self, material: Material) -> Extra:
        """New rows in the order of the old ones; duplicates of old and of new rows are dropped."""
        candidates = [
            (text, material.labels[row])
            for row, copy in spread(len(material.texts), self.amount, material.seed)
            if (text := self._edited(material, row, copy)) is not None
        ]
        new = edits.distinct((text for text, _ in candidates), material.texts)
        return [row for row, is_new in zip(candidates, new, strict=True) if is_new]

    def _edited(self, material: Material, row: int, copy: int) -> str | None:
        """One new sentence; draws another technique where one cannot be applied, None where all fail."""
        generator = numpy_generator(material.seed, "augmentation", row, copy)
        remaining = dict(self.weights)
        while any(remaining.values()):
            name = draw(shares(remaining), generator)
            technique: Edit = AUGMENTERS[name]()
            text = technique.edit(material.texts[row], generator, material.thesaurus())
            if text is not None:
                return text
            del remaining[name]
        return None


@dataclass(frozen=True)
class FileAugmentation:
    """Rows of a file that `python -m minbert data augment` wrote."""

    kind: ClassVar[str] = "file"
    active: ClassVar[bool] = True
    reads_file: ClassVar[bool] = True
    amount: float = number(1.0, 0.0, 1.0, open_low=True)
    """Share of the file's labelled rows that are used."""

    def extra(self, material: Material) -> Extra:
        """The chosen rows in the file's order; a smaller share is a subset of a larger one."""
        rows = material.file()
        usable = np.flatnonzero(~np.isnan(rows.labels)).tolist()
        chosen = [usable[index] for index, _ in spread(len(usable), self.amount, material.seed)]
        return [(rows.texts[row][0], float(rows.labels[row])) for row in chosen]


AUGMENTATIONS: dict[str, type] = {
    augmentation.kind: augmentation for augmentation in (NoAugmentation, EditAugmentation, FileAugmentation)
}
"""Augmentations by kind."""
