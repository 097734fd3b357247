"""One sentence changed a little by a random edit of its words: easy data augmentation (Wei and Zou 2019).

    synonym: a noun or verb gives way to its synonym       insert: a synonym of one of its words goes anywhere
    delete:  one word goes                                 swap:   two words change places

`multi_extended` (section 4, Data Augmentation) applies one such edit to a sentence. Every function is pure: randomness
comes from the generator that it is given, and None says that the edit cannot be made here. Everything between the words
(punctuation, the quotes and clitics of tokenised text) stays where it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from minbert.augmentation.thesaurus import Thesaurus

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
WORD = re.compile(rf"(?<![\w{APOSTROPHES}])(?![LR][RSC]B-)[^\W_]+(?:[{APOSTROPHES}-][^\W_]+)*")
"""A word: letters or digits, inner apostrophes and hyphens included; not `'s` and `-LRB-` of tokenised text."""

TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")
"""What BERT's tokeniser cuts a text into before word pieces: runs of letters and digits, single signs."""


def normalised(text: str) -> str:
    """The form in which two texts count as the same: no case, one space between words and signs."""
    return " ".join(TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()))


def distinct(texts: Iterable[str], known: Iterable[str]) -> list[bool]:
    """For each text whether it is new: neither among the `known` nor earlier in `texts`, compared normalised."""
    seen = {normalised(text) for text in known}
    found = []
    for text in texts:
        form = normalised(text)
        found.append(bool(form) and form not in seen)
        seen.add(form)
    return found


def synonym(text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
    """Replace a random noun or verb by one of its synonyms."""
    words = list(WORD.finditer(text))
    for index in generator.permutation(len(words)).tolist():
        previous = words[index - 1].group() if index else ""
        found = thesaurus.replacements(words[index].group(), previous)
        if found:
            start, end = words[index].span()
            before = text[:start]
            chosen = found[int(generator.integers(len(found)))]
            if index and words[index - 1].end() == start - 1:  # the article stands right before it
                before = before[: words[index - 1].start()] + _article(previous, chosen) + " "
            return _changed(text, before + chosen + text[end:])
    return None


def insert(text: str, generator: np.random.Generator, thesaurus: Thesaurus) -> str | None:
    """Put a synonym of a random word (no function word) before or after a random word."""
    words = list(WORD.finditer(text))
    for index in generator.permutation(len(words)).tolist():
        found = thesaurus.related(words[index].group())
        if found:
            chosen = found[int(generator.integers(len(found)))]
            place = int(generator.integers(len(words) + 1))
            if place < len(words):
                start = words[place].start()
                return _changed(text, f"{text[:start]}{chosen} {text[start:]}")
            end = words[-1].end()
            return _changed(text, f"{text[:end]} {chosen}{text[end:]}")
    return None


def delete(text: str, generator: np.random.Generator) -> str | None:
    """Remove a random word; not the only one."""
    words = list(WORD.finditer(text))
    if len(words) < 2:
        return None
    start, end = words[int(generator.integers(len(words)))].span()
    before, after = text[:start], text[end:]
    if not before or before[-1].isspace():  # one of the two spaces around it goes too
        after = after.lstrip()
    return _changed(text, (before + after).strip())


def swap(text: str, generator: np.random.Generator) -> str | None:
    """Let two random words that differ change places."""
    words = list(WORD.finditer(text))
    if len({normalised(word.group()) for word in words}) < 2:
        return None
    first = int(generator.integers(len(words)))
    one = normalised(words[first].group())
    others = [index for index, word in enumerate(words) if normalised(word.group()) != one]
    low, high = sorted((first, others[int(generator.integers(len(others)))]))
    a, b = words[low], words[high]
    return _changed(text, text[: a.start()] + b.group() + text[a.end() : b.start()] + a.group() + text[b.end() :])


def _changed(old: str, new: str) -> str | None:
    """The new text, unless it is the old one to a model's eyes."""
    return new if normalised(new) not in ("", normalised(old)) else None


def _article(previous: str, following: str) -> str:
    """`a` or `an` as the following word asks for; any other word as it is."""
    if previous.lower() not in ("a", "an"):
        return previous
    right = "an" if following[0].lower() in "aeiou" else "a"
    return right.capitalize() if previous[0].isupper() else right
