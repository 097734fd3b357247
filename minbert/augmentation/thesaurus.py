"""Thesaurus: synonyms by lemma and part of speech, from a file `{"film": {"n": ["movie"], "v": ["shoot"]}, ...}`.

The parts of speech are those of WordNet (Fellbaum 1998): n noun, v verb, a adjective, r adverb. A word is looked up
unchanged, then as the lemma of a form in -s (films, carries); its synonyms then get -s too. No tagger is used: a word
is replaced only if all its parts of speech in the thesaurus are noun or verb. The word before it decides between them.
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
"""Name of a thesaurus file."""

PARTS = ("n", "v", "a", "r")
"""Parts of speech."""

MOST_WORDS = 2
"""Most words of a synonym; longer ones ("motion-picture show", "head for the hills") read as a gloss."""


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
"""Function words, never replaced: WordNet lists `a` as vitamin A, `in` as indium and `or` as Oregon."""

BEFORE_NOUN = _set("a an the this that these those my your his her its our their some any no each every of")
"""Words that a noun follows."""

BEFORE_VERB = _set("to will would can could may might must shall should i you we they who n't not never let lets")
"""Words that a verb in its bare form follows."""

IRREGULAR = _set("man woman child person foot tooth goose mouse ox be have wife life knife leaf half self")
"""Words with an irregular form in -s; they do not replace a form in -s."""


def lemmas(word: str) -> Iterator[str]:
    """Possible lemmas of a word in -s: films -> film, watches -> watch, carries -> carry."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return
    yield word[:-1]
    if word.endswith("ies"):
        yield word[:-3] + "y"
    elif word.endswith("es"):
        yield word[:-2]


def with_s(word: str) -> str:
    """The form in -s: plural of a regular noun, third person of a regular verb."""
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


@dataclass(frozen=True)
class Thesaurus:
    """Synonyms of lemmas by part of speech."""

    entries: Mapping[str, Mapping[str, list[str]]]
    """Lemma to part of speech to synonyms, most frequent sense first."""
    name: str = "given"
    """Path of its file, for messages."""
    sha256: str = ""
    """SHA-256 of the file's bytes."""
    _memory: dict[tuple[str, ...], list[str]] = field(default_factory=dict, compare=False, repr=False)
    """Answers to earlier calls."""

    def replacements(self, word: str, previous: str = "") -> list[str]:
        """Synonyms of a noun or verb in the word's own form; empty for any other word.

        `previous` is the word before it. A word with a capital counts as a name and has none.
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
        # "to films" is no verb: an infinitive has no -s. "the film" is no verb either.
        order = "vn" if previous in BEFORE_VERB and word == lemma else "nv"
        chosen = next((part for part in order if parts.get(part)), None)
        if chosen is None or (previous in BEFORE_NOUN and chosen == "v"):
            return []
        synonyms = [phrase for phrase in parts[chosen] if _plain(phrase)]
        if word != lemma:
            synonyms = [_inflected(phrase, chosen) for phrase in synonyms if not IRREGULAR & set(phrase.split())]
        return list(dict.fromkeys(phrase for phrase in synonyms if phrase != word))

    def related(self, word: str) -> list[str]:
        """Synonyms of a word in all its parts of speech; empty for function words and names."""
        key = ("relate", word)
        if key not in self._memory:
            lemma = self._lemma(word)
            parts = self.entries[lemma] if lemma else {}
            phrases = (phrase for part in PARTS for phrase in parts.get(part, ()))
            self._memory[key] = list(dict.fromkeys(phrase for phrase in phrases if _plain(phrase)))
        return self._memory[key]

    def _lemma(self, word: str) -> str | None:
        """Lemma of a word in the thesaurus; None for a function word, a word with a capital and an unknown word."""
        if word != word.lower() or word in STOP_WORDS:
            return None
        return next((form for form in (word, *lemmas(word)) if form in self.entries and form not in STOP_WORDS), None)


def read_thesaurus(path: Path) -> Thesaurus:
    """Read and check a thesaurus file. Raises DataError."""
    try:
        version = stamp(path)
    except DataError as error:
        raise DataError(f"`--synonyms` {error}") from error
    return _read(path, version)


@functools.lru_cache(maxsize=2)  # every trial of a worker uses the same file
def _read(path: Path, version: tuple[int, int]) -> Thesaurus:
    try:
        content = path.read_bytes()
        entries = json.loads(content)
    except OSError as error:
        raise DataError(f"`--synonyms` {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"`--synonyms` {path} must be a JSON file: {error}.") from error
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"`--synonyms` {path} must hold a non-empty dictionary by lemma, found {str(entries)[:80]}.")
    for lemma, parts in entries.items():
        legal = isinstance(parts, dict) and all(
            part in PARTS and isinstance(words, list) and all(isinstance(word, str) for word in words)
            for part, words in parts.items()
        )
        if not legal:
            raise DataError(
                f"`--synonyms` {path}: the entry `{lemma}` must map some of {', '.join(PARTS)} to lists of words, "
                f"found {str(parts)[:80]}."
            )
    return Thesaurus(entries, str(path), hashlib.sha256(content).hexdigest())


def find_thesaurus(file: str | Path | None, data: str | Path | None) -> Thesaurus:
    """Read the named file, else the data folder's, else `../wordnet/synonyms.json` beside it, else the sample's.

    Raises DataError where the first of them that exists cannot be used.
    """
    if file is not None:
        return read_thesaurus(Path(file))
    folder = SAMPLE if data is None else Path(data)
    places = (folder / FILE, folder.resolve().parent / "wordnet" / FILE)
    return read_thesaurus(next((path for path in places if path.is_file()), SAMPLE / FILE))


def _plain(phrase: str) -> bool:
    """Whether a synonym is one or two words in small letters, neither a name nor a chemical formula."""
    return (
        phrase.islower()
        and len(phrase.replace("-", " ").split()) <= MOST_WORDS
        and phrase.replace(" ", "").replace("-", "").isalpha()
    )


def _inflected(phrase: str, part: str) -> str:
    """A phrase with -s on its noun, the last word, or on its verb, the first word."""
    words = phrase.split()
    index = 0 if part == "v" else -1
    words[index] = with_s(words[index])
    return " ".join(words)
