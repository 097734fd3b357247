"""New training sentences from old ones: how one is made, and which of them a trial trains on. The label stays.

    technique of a batch ~ p_t / sum p,   p = 0.3 synonym, 0.2 insert, 0.2 delete, 0.2 swap, 0.1 back-translation

`multi_extended` (section 4, Data Augmentation, after Wei and Zou 2019). AUGMENTERS are the techniques: edits of words,
made here, and instructions for a language model behind an endpoint, which `minbert.augmentation.job` sends.
AUGMENTATIONS are what a trial may add to its training rows. Randomness is a function of (seed, row).
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
    """A technique that changes a sentence by itself."""

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        """The changed sentence; None where the technique cannot be applied to it."""


class Instructed(Protocol):
    """A technique that a language model carries out."""

    def instructions(self, language: str) -> tuple[str, ...]:
        """What the model is asked to do with the sentences, one request after the other."""


@dataclass(frozen=True)
class Synonym:
    """A random noun or verb gives way to one of its synonyms."""

    kind: ClassVar[str] = "synonym"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.3

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.synonym(text, generator, thesaurus)


@dataclass(frozen=True)
class Insert:
    """A random word comes in anywhere: a synonym of a word of the sentence, as in Wei and Zou (2019)."""

    kind: ClassVar[str] = "insert"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.2

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.insert(text, generator, thesaurus)


@dataclass(frozen=True)
class Delete:
    """A random word goes."""

    kind: ClassVar[str] = "delete"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.2

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.delete(text, generator)


@dataclass(frozen=True)
class Swap:
    """Two random words change places."""

    kind: ClassVar[str] = "swap"
    remote: ClassVar[bool] = False
    paper: ClassVar[float] = 0.2

    def edit(self, text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
        return edits.swap(text, generator)


@dataclass(frozen=True)
class BackTranslation:
    """Into another language and back (the paper: Spanish)."""

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
    """Said in other words by a language model; not among the paper's five, which its model carries out as asked."""

    kind: ClassVar[str] = "rewrite"
    remote: ClassVar[bool] = True
    paper: ClassVar[float] = 0.0

    def instructions(self, language: str) -> tuple[str, ...]:
        return (
            "Say each of these sentences in other words. Keep its meaning, its tone and how strong its opinion is.",
        )


AUGMENTERS: dict[str, type[Any]] = {
    kind.kind: kind for kind in (Synonym, Insert, Delete, Swap, BackTranslation, Rewrite)
}

EDITS = tuple(name for name, kind in AUGMENTERS.items() if not kind.remote)
"""The techniques that need no endpoint."""

REMOTE = tuple(name for name in AUGMENTERS if name not in EDITS)
"""The techniques that do."""

PAPER: dict[str, float] = {name: kind.paper for name, kind in AUGMENTERS.items()}
"""The paper's probabilities; they sum to 1."""


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Probabilities in proportion to weights, those of weight 0 left out. Raises ConfigError."""
    for name, weight in weights.items():
        if name not in AUGMENTERS:
            raise unknown("technique", name, AUGMENTERS)
        if not 0 <= weight <= 1:  # also where it is no number
            raise ConfigError(f"The probability of `{name}` must be a number from 0 to 1, found {weight}.")
    total = math.fsum(weights.values())
    if not total > 0:
        raise ConfigError(
            f"At least one technique must have a probability above 0, found {', '.join(weights) or 'none'} at 0."
        )
    return {name: weight / total for name, weight in weights.items() if weight}


def draw(probabilities: Mapping[str, float], generator: np.random.Generator) -> str:
    """One technique by its probability."""
    names = list(probabilities)
    return names[int(generator.choice(len(names), p=list(probabilities.values())))]


def spread(count: int, amount: float, seed: int) -> list[tuple[int, int]]:
    """Which rows give new ones, as (row, copy): round(amount * count) of them, no row two times more than another.

    The rows of an unfinished last copy are those that rank first in an order given by the seed, so that a smaller
    amount takes a subset of what a larger one takes.
    """
    whole, rest = divmod(round(amount * count), count) if count else (0, 0)
    jobs = [(row, copy) for copy in range(whole) for row in range(count)]
    ranked = sorted(range(count), key=lambda row: derive(seed, "augmentation-order", row)) if rest else []
    return [*jobs, *((row, whole) for row in sorted(ranked[:rest]))]


@dataclass(frozen=True)
class Material:
    """Training rows of one sentence task, and what is loaded only by an augmentation that uses it."""

    texts: Sequence[str]
    labels: Sequence[float]
    seed: int
    thesaurus: Callable[[], Thesaurus]
    file: Callable[[], Rows]
    """The rows of the augmented file."""


Extra = list[tuple[str, float]]
"""Additional training rows: text and label."""


class Augmentation(Protocol):
    """The hyperparameters of an augmentation."""

    kind: ClassVar[str]
    active: ClassVar[bool]
    """Whether it adds rows at all."""
    reads_file: ClassVar[bool]
    """Whether it takes rows from the augmented file."""

    def extra(self, material: Material) -> Extra:
        """The new rows of one task."""
        ...


@dataclass(frozen=True)
class NoAugmentation:
    """The training rows as they are."""

    kind: ClassVar[str] = "none"
    active: ClassVar[bool] = False
    reads_file: ClassVar[bool] = False

    def extra(self, material: Material) -> Extra:
        return []


@dataclass(frozen=True)
class EditAugmentation:
    """New rows by random edits of words, made when the trial starts; no endpoint, no file."""

    kind: ClassVar[str] = "edit"
    active: ClassVar[bool] = True
    reads_file: ClassVar[bool] = False
    amount: float = number(1.0, 0.0, 4.0, open_low=True)
    """New rows for each training row, before duplicates are dropped."""
    synonym: float = number(0.3, 0.0, 1.0)
    """Probability of a synonym for a noun or verb; the four are taken in proportion."""
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
                "Expected one above 0, or the kind `none`."
            )

    @property
    def weights(self) -> dict[str, float]:
        return {name: float(getattr(self, name)) for name in EDITS}

    def extra(self, material: Material) -> Extra:
        """New rows in the order of the old ones, without duplicates among themselves or of the old ones."""
        made = [
            (text, material.labels[row])
            for row, copy in spread(len(material.texts), self.amount, material.seed)
            if (text := self._edited(material, row, copy)) is not None
        ]
        new = edits.distinct((text for text, _ in made), material.texts)
        return [one for one, keep in zip(made, new, strict=True) if keep]

    def _edited(self, material: Material, row: int, copy: int) -> str | None:
        """One new sentence; where the technique that is drawn cannot be applied, another one is drawn."""
        generator = numpy_generator(material.seed, "augmentation", row, copy)
        left = dict(self.weights)
        while any(left.values()):
            name = draw(shares(left), generator)
            technique: Edit = AUGMENTERS[name]()
            text = technique.edit(material.texts[row], generator, material.thesaurus())
            if text is not None:
                return text
            del left[name]
        return None


@dataclass(frozen=True)
class FileAugmentation:
    """Rows of a file that `python -m minbert data augment` has written."""

    kind: ClassVar[str] = "file"
    active: ClassVar[bool] = True
    reads_file: ClassVar[bool] = True
    amount: float = number(1.0, 0.0, 1.0, open_low=True)
    """Share of the file's labelled rows that is used."""

    def extra(self, material: Material) -> Extra:
        """The chosen rows in the file's order; a smaller share is a part of a larger one."""
        rows = material.file()
        usable = np.flatnonzero(~np.isnan(rows.labels)).tolist()
        chosen = [usable[place] for place, _ in spread(len(usable), self.amount, material.seed)]
        return [(rows.texts[row][0], float(rows.labels[row])) for row in chosen]


AUGMENTATIONS: dict[str, type] = {kind.kind: kind for kind in (NoAugmentation, EditAugmentation, FileAugmentation)}
