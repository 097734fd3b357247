"""Fixtures: a small corpus in the class format and the tiny encoder, for trials of a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minbert.data.tokens import Data, open_data
from minbert.encoder.base import Base, find_base

WORDS = {0: "awful", 1: "weak", 2: "plain", 3: "good", 4: "superb"}


def write(folder: Path, name: str, header: str, lines: list[str]) -> None:
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def review(number: int) -> str:
    """A film review; every fifth is longer than 128 word pieces."""
    rating = "superb" if number % 2 else "awful"
    return f"review {number} : " + f"a {rating} film . " * (40 if number % 5 == 0 else 3)


def make_corpus(folder: Path, train: int = 96, dev: int = 24) -> Path:
    """Write a corpus in the class format, whose labels follow from the words; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("dev", dev)):
        sst = [f"{i}\ts{split}{i}\tthe film number {i} is {WORDS[i % 5]}\t{i % 5}" for i in range(count)]
        write(folder, f"ids-sst-{split}.csv", "\tid\tsentence\tsentiment", sst)
        qqp = [
            f"{i}\tq{split}{i}\twhat is item {i}?\t{'what is item' if i % 2 else 'who likes tea'} {i}?\t{float(i % 2)}"
            for i in range(count)
        ]
        write(folder, f"quora-{split}.csv", "\tid\tsentence1\tsentence2\tis_duplicate", qqp)
        sts = [
            f"{i}\tt{split}{i}\ta dog runs {i}\ta dog {'runs' if i % 6 > 2 else 'sat'} {i}\t{i % 6}.0"
            for i in range(count)
        ]
        write(folder, f"sts-{split}.csv", "\tid\tsentence1\tsentence2\tsimilarity", sts)
        reviews = [f"{i}\tc{split}{i}\t{review(i)}\t{i % 2}" for i in range(count)]
        write(folder, f"ids-cfimdb-{split}.csv", "\tid\tsentence\tsentiment", reviews)
    write(
        folder,
        "ids-sst-test-student.csv",
        "0\t\tid\tsentence",
        [f"{i}\t{i}.0\tx{i}\ta good film {i}" for i in range(7)],
    )
    write(
        folder,
        "ids-cfimdb-test-student.csv",
        "0\t\tid\tsentence",
        [f"{i}\t{i}.0\tcx{i}\t{review(i)}" for i in range(6)],
    )
    for name in ("quora", "sts"):
        rows = [f"{i}\t{name}x{i}\tone {i}\ttwo {i}" for i in range(5)]
        write(folder, f"{name}-test-student.csv", "\tid\tsentence1\tsentence2", rows)
    return folder


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def tiny() -> Base:
    return find_base("tiny")


@pytest.fixture(scope="session")
def data(corpus_folder: Path, tiny: Base, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(corpus_folder, tiny, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, so that the user's cache is not written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINBERT_CACHE", str(tmp_path_factory.mktemp("own_cache")))
        yield
