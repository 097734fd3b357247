"""Synonyms by lemma and part of speech, from a file: `{"film": {"n": ["movie", "picture"], "v": ["shoot"]}, ...}`.

The parts are those of WordNet (Fellbaum 1998): n noun, v verb, a adjective, r adverb. A word is looked up as it stands,
then as the lemma of a form in -s (films, carries), whose synonyms then take -s too. No tagger is used: only words that
the thesaurus knows as nouns or verbs and as nothing else are replaced, and the word before decides between the two.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minbert.data.files import SAMPLE, DataError, stamp

FILE = "synonyms.json"
PARTS = ("n", "v", "a", "r")

MOST_WORDS = 2
"""A synonym of more words ("motion-picture show", "head for the hills") reads as a gloss, not as a word."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


STOP_WORDS = _set(
    """a about above after again against all also am an and any are as at be because been before being below between
    both but by can cannot could did do does doing don down during each either else ever few for from further had has
    have having he her here hers herself him himself his how i if in into is it its itself just ll may me might mine
    more most much must my myself neither no nor not now of off on once one only or other our ours ourselves out
    over own per re s same shall she should since so some still such t than that the their theirs them themselves then
    there these they this those though through thus to too two under until up upon us ve very was we were what when
    where which while who whom whose why will with within without would yet you your yours yourself yourselves"""
)
"""Function words: WordNet knows `a` as vitamin A, `in` as indium and `or` as Oregon."""

BEFORE_NOUN = _set("a an the this that these those my your his her its our their some any no each every of")
BEFORE_VERB = _set("to will would can could may might must shall should i you we they who n't not never let lets")
UNEVEN = _set("man woman child person foot tooth goose mouse ox be have wife life knife leaf half self")
"""Words whose form in -s is irregular: as synonyms of a form in -s they are passed over."""


def lemmas(word: str) -> Iterator[str]:
    """What a word in -s may be a form of: films -> film, watches -> watch, carries -> carry."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return
    yield word[:-1]
    if word.endswith("ies"):
        yield word[:-3] + "y"
    elif word.endswith("es"):
        yield word[:-2]


def with_s(word: str) -> str:
    """The plural of a regular noun, which is also the third person of a regular verb."""
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


@dataclass(frozen=True)
class Thesaurus:
    """Synonyms of lemmas."""

    entries: Mapping[str, Mapping[str, list[str]]]
    """Lemma to part of speech to synonyms, most frequent sense first."""
    name: str = "given"
    """Where it came from, for messages."""
    sha256: str = ""
    """Of the file's bytes."""
    _memory: dict[tuple[str, ...], list[str]] = field(default_factory=dict, compare=False, repr=False)

    def replacements(self, word: str, previous: str = "") -> list[str]:
        """What may stand in the place of a noun or verb, in the word's own form; empty for any other word.

        Words with a capital are taken for names and left alone.
        """
        previous = previous.lower() if previous.lower() in BEFORE_NOUN | BEFORE_VERB else ""
        key = ("replace", word, previous)
        if key not in self._memory:
            self._memory[key] = self._replacements(word, previous)
        return self._memory[key]

    def _replacements(self, word: str, previous: str) -> list[str]:
        lemma = self._lemma(word)
        if lemma is None:
            return []
        parts = self.entries[lemma]
        if "a" in parts or "r" in parts:
            return []
        # A form in -s has no infinitive, so that "to films" is no verb; a bare form after "the" is no verb either.
        order = "vn" if previous in BEFORE_VERB and word == lemma else "nv"
        chosen = next((part for part in order if parts.get(part)), None)
        if chosen is None or (previous in BEFORE_NOUN and chosen == "v"):
            return []
        found = [one for one in parts[chosen] if _plain(one)]
        if word != lemma:
            found = [_inflected(one, chosen) for one in found if not UNEVEN & set(one.split())]
        return list(dict.fromkeys(one for one in found if one != word))

    def related(self, word: str) -> list[str]:
        """Synonyms of a word in any of its parts of speech; empty for function words and names."""
        key = ("relate", word)
        if key not in self._memory:
            lemma = self._lemma(word)
            parts = self.entries[lemma] if lemma else {}
            self._memory[key] = list(dict.fromkeys(one for part in PARTS for one in parts.get(part, ()) if _plain(one)))
        return self._memory[key]

    def _lemma(self, word: str) -> str | None:
        """The entry of a word in small letters that is no function word."""
        if word != word.lower() or word in STOP_WORDS:
            return None
        return next((form for form in (word, *lemmas(word)) if form in self.entries and form not in STOP_WORDS), None)


def read_thesaurus(path: Path) -> Thesaurus:
    """Read and check a thesaurus file. Raises DataError."""
    try:
        mark = stamp(path)
    except DataError as error:
        raise DataError(f"`--synonyms` {error}") from error
    return _read(path, mark)


@functools.lru_cache(maxsize=2)  # every trial of a worker uses the same one
def _read(path: Path, mark: tuple[int, int]) -> Thesaurus:
    try:
        content = path.read_bytes()
        entries = json.loads(content)
    except OSError as error:
        raise DataError(f"`--synonyms` {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"`--synonyms` {path} is no JSON file: {error}.") from error
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"`--synonyms` {path} must hold a dictionary by lemma, found {type(entries).__name__}.")
    for lemma, parts in entries.items():
        good = isinstance(parts, dict) and all(
            part in PARTS and isinstance(words, list) and all(isinstance(word, str) for word in words)
            for part, words in parts.items()
        )
        if not good:
            raise DataError(
                f"`--synonyms` {path}: the entry `{lemma}` must map some of {', '.join(PARTS)} to lists of words, "
                f"found {str(parts)[:80]}."
            )
    return Thesaurus(entries, str(path), hashlib.sha256(content).hexdigest())


def find_thesaurus(file: str | Path | None, data: str | Path | None) -> Thesaurus:
    """The named file, else the one in the data folder, else that of ../wordnet beside it, else the sample's own.

    Raises DataError where the file that is found first cannot be used.
    """
    if file is not None:
        return read_thesaurus(Path(file))
    folder = SAMPLE if data is None else Path(data)
    places = (folder / FILE, folder.resolve().parent / "wordnet" / FILE)
    return read_thesaurus(next((path for path in places if path.is_file()), SAMPLE / FILE))


def _plain(phrase: str) -> bool:
    """Whether a synonym is one or two words in small letters: no name, no chemical formula."""
    return (
        phrase.islower()
        and len(phrase.replace("-", " ").split()) <= MOST_WORDS
        and phrase.replace(" ", "").replace("-", "").isalpha()
    )


def _inflected(phrase: str, part: str) -> str:
    """A phrase with -s at its noun, which stands last, or at its verb, which stands first."""
    first, *rest = phrase.split()
    if part == "v":
        return " ".join((with_s(first), *rest))
    return " ".join((*([first] if rest else []), with_s(rest[-1] if rest else first)))
