"""Random edits of one sentence: easy data augmentation (Wei and Zou 2019).

    synonym: a noun or verb is replaced by its synonym     insert: a synonym of one of its words is added anywhere
    delete:  one word is removed                           swap:   two words change places

`multi_extended` (section 4, Data Augmentation) applies one such edit to a sentence. Every function is pure: randomness
comes from its generator. None means that the edit cannot be applied. Everything between the words (punctuation, the
quotes and clitics of tokenised text) stays in place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from minbert.augmentation.thesaurus import Thesaurus

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
WORD = re.compile(rf"(?<![\w{APOSTROPHES}])(?![LR][RSC]B-)[^\W_]+(?:[{APOSTROPHES}-][^\W_]+)*")
"""A word: letters or digits with inner apostrophes and hyphens; not the `'s` and `-LRB-` of tokenised text."""

TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")
"""A token of BERT's tokeniser before word pieces: a run of letters and digits, or one other character."""


def normalised(text: str) -> str:
    """Normal form of a text: without case, one space between tokens. Texts of equal form are duplicates."""
    return " ".join(TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()))


def distinct(texts: Iterable[str], known: Iterable[str]) -> list[bool]:
    """Whether each text is new: neither in `known` nor earlier in `texts`, compared in normal form."""
    seen = {normalised(text) for text in known}
    new = []
    for text in texts:
        form = normalised(text)
        new.append(bool(form) and form not in seen)
        seen.add(form)
    return new


def synonym(text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
    """Replace a random noun or verb by one of its synonyms."""
    words = list(WORD.finditer(text))
    for index in generator.permutation(len(words)).tolist():
        previous = words[index - 1].group() if index else ""
        synonyms = thesaurus.replacements(words[index].group(), previous)
        if synonyms:
            start, end = words[index].span()
            before = text[:start]
            chosen = synonyms[int(generator.integers(len(synonyms)))]
            if index and words[index - 1].end() == start - 1:  # an article may stand right before it
                before = before[: words[index - 1].start()] + _article(previous, chosen) + " "
            return _changed(text, before + chosen + text[end:])
    return None


def insert(text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
    """Insert a synonym of a random word, which is no function word, before or after a random word."""
    words = list(WORD.finditer(text))
    for index in generator.permutation(len(words)).tolist():
        synonyms = thesaurus.related(words[index].group())
        if synonyms:
            chosen = synonyms[int(generator.integers(len(synonyms)))]
            place = int(generator.integers(len(words) + 1))
            if place < len(words):
                start = words[place].start()
                return _changed(text, f"{text[:start]}{chosen} {text[start:]}")
            end = words[-1].end()
            return _changed(text, f"{text[:end]} {chosen}{text[end:]}")
    return None


def delete(text: str, generator: np.random.Generator) -> str | None:
    """Remove a random word; None for a text of fewer than two words."""
    words = list(WORD.finditer(text))
    if len(words) < 2:
        return None
    start, end = words[int(generator.integers(len(words)))].span()
    before, after = text[:start], text[end:]
    if not before or before[-1].isspace():  # remove one of the two spaces around it too
        after = after.lstrip()
    return _changed(text, (before + after).strip())


def swap(text: str, generator: np.random.Generator) -> str | None:
    """Swap two random words that differ."""
    words = list(WORD.finditer(text))
    if len({normalised(word.group()) for word in words}) < 2:
        return None
    first = int(generator.integers(len(words)))
    form = normalised(words[first].group())
    partners = [index for index, word in enumerate(words) if normalised(word.group()) != form]
    low, high = sorted((first, partners[int(generator.integers(len(partners)))]))
    a, b = words[low], words[high]
    return _changed(text, text[: a.start()] + b.group() + text[a.end() : b.start()] + a.group() + text[b.end() :])


def _changed(old: str, new: str) -> str | None:
    """The new text; None where its normal form is empty or that of the old text."""
    return new if normalised(new) not in ("", normalised(old)) else None


def _article(previous: str, following: str) -> str:
    """`a` or `an`, whichever fits the following word; any other word unchanged."""
    if previous.lower() not in ("a", "an"):
        return previous
    article = "an" if following[0].lower() in "aeiou" else "a"
    return article.capitalize() if previous[0].isupper() else article
