"""Data files: reading, notes on odd rows, the dev split, the cache of tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from minbert.data.files import Corpus, DataError, Rows, read_corpus, split_dev
from minbert.data.tokens import open_data
from minbert.encoder.base import Base
from minbert.tasks import DEFAULT_TASKS, choose_tasks
from tests.minbert.conftest import make_corpus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus")


def edit(file: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a file."""
    file.write_text("\n".join(change(file.read_text().split("\n"))))


def test_real_files_are_read_whole(real_data: Path) -> None:
    corpus = read_corpus(real_data)
    sizes = {task: [corpus.size(task, split) for split in ("train", "dev", "test")] for task in DEFAULT_TASKS}
    assert sizes == {"sst": [8544, 1101, 2210], "qqp": [76113, 20214, 10000], "sts": [6040, 863, 1725]}
    # The two unlabelled rows are counted with their lines, predicted, and neither trained on nor scored.
    assert [str(problem).split(";")[0] for problem in corpus.problems] == [
        "quora-dev.csv:2577: no label",
        "quora-dev.csv:14222: no label",
        "quora-dev.csv:14222: `sentence2` is empty",
    ]
    assert corpus.size("qqp", "search") == 2000 and corpus.size("qqp", "held") == 20214 - 2 - 2000
    assert sum(1 for _, split, *_ in corpus.examples() if split == "dev") == 2


def test_the_test_file_with_an_extra_column_is_read_by_name(folder: Path) -> None:
    rows = read_corpus(folder).rows["sst", "test"]
    assert rows.ids[0] == "x0" and rows.texts[0] == ("a good film 0",)


def test_unusable_rows_are_left_out_and_counted(folder: Path) -> None:
    def damage(lines: list[str]) -> list[str]:
        lines[2] = '1\tid\t"an unclosed quote swallows the rest\t3'
        lines[4] = "3\tid\ttoo\tmany\tfields"
        lines[6] = lines[6].rpartition("\t")[0] + "\t"
        return lines

    edit(folder / "ids-sst-train.csv", damage)
    corpus = read_corpus(folder)
    assert notes(corpus, "ids-sst-train.csv") == [
        (3, "3 fields instead of 4, because a quote is not closed or stands undoubled in a quoted text; row left out"),
        (5, "5 fields instead of 4; row left out"),
        (7, "no label; row neither trained on nor scored"),
    ]
    assert corpus.size("sst", "train") == 96 - 3


def notes(corpus: Corpus, file: str) -> list[tuple[int | None, str]]:
    """(line, reason) of a file's problems."""
    return [(problem.line, problem.reason) for problem in corpus.problems if problem.file.name == file]


def test_odd_rows_are_kept_with_a_note(folder: Path) -> None:
    def spoil(lines: list[str]) -> list[str]:
        lines[2] = "1\tstrain0\tthe same id as the row before\t3"
        lines[4] = "3\tx\tthe film \0 is good\t4"
        lines[6] = "5\ty\t  \t0"
        return lines

    before = read_corpus(folder)
    edit(folder / "ids-sst-train.csv", spoil)
    corpus = read_corpus(folder)
    assert notes(before, "ids-sst-train.csv") == []
    assert notes(corpus, "ids-sst-train.csv") == [
        (3, "`id` 'strain0' is that of line 2 too; row kept"),
        (5, "`sentence` holds a NUL byte; row kept, and read without it"),
        (7, "`sentence` is empty; row kept"),
    ]
    assert corpus.size("sst", "train") == 96
    assert corpus.rows["sst", "train"].ids[:2] == ["strain0", "strain0"]
    assert corpus.rows["sst", "train"].texts[5] == ("",)


def test_the_tokenizer_drops_nul_bytes_as_the_note_says(folder: Path, tiny: Base, tmp_path: Path) -> None:
    edit(folder / "ids-sst-train.csv", lambda lines: [lines[0], "0\tx\tthe f\0ilm is good\t4", *lines[2:]])
    damaged = open_data(folder, tiny, cache=tmp_path / "a").file("sst", "train").texts[0]
    edit(folder / "ids-sst-train.csv", lambda lines: [lines[0], "0\tx\tthe film is good\t4", *lines[2:]])
    sound = open_data(folder, tiny, cache=tmp_path / "b").file("sst", "train").texts[0]
    assert damaged.ids.tolist() == sound.ids.tolist() and damaged.offsets.tolist() == sound.offsets.tolist()


def test_a_file_with_one_label_gets_a_note(folder: Path) -> None:
    edit(folder / "ids-sst-train.csv", lambda lines: [lines[0], *(f"{line[:-1]}1" for line in lines[1:] if line)])
    corpus = read_corpus(folder)
    assert notes(corpus, "ids-sst-train.csv") == [(None, "all 96 labels are 1, so they carry no information")]
    assert str(corpus.problems[0]).startswith("ids-sst-train.csv: all 96 labels are 1")


def test_splits_of_few_rows_get_a_note(tmp_path: Path) -> None:
    corpus = read_corpus(make_corpus(tmp_path, train=49, dev=100), choose_tasks("sst,sts"))
    assert [str(problem) for problem in corpus.problems] == [
        "ids-sst-train.csv: `train` has 49 rows to learn the task from, fewer than 50",
        "sts-train.csv: `train` has 49 rows to learn the task from, fewer than 50",
    ]
    search, held = "`search` has 1 row to compare trials on", "`held` has 2 rows to estimate a score on"
    for dev, expected in ((99, ["`search` has 49 rows to compare trials on"]), (3, [search, held])):
        corpus = read_corpus(make_corpus(tmp_path, train=50, dev=dev), choose_tasks("cfimdb"))
        assert notes(corpus, "ids-cfimdb-dev.csv") == [(None, f"{words}, fewer than 50") for words in expected]


def test_notes_on_whole_files_come_first(tmp_path: Path) -> None:
    make_corpus(tmp_path, train=60, dev=30)
    edit(tmp_path / "ids-sst-train.csv", lambda lines: [*lines[:3], "2\ttoo few fields", *lines[4:]])
    problems = read_corpus(tmp_path, choose_tasks("sst")).problems
    assert [problem.line for problem in problems] == [None, None, 4]


@pytest.mark.parametrize("name", ["sts-dev.csv", "sts-test-student.csv"])
def test_a_folder_in_place_of_a_file_is_an_error(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(DataError, match=f"{name} must be a file of tab-separated text .* it is a folder"):
        read_corpus(folder)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("ids-sst-train.csv", lambda lines: ["\tid\ttext\tsentiment", *lines[1:]], "the header lacks sentence"),
        ("ids-sst-train.csv", lambda lines: lines[:1], "no usable rows"),
        (
            "sts-dev.csv",
            lambda lines: [*lines[:3], "9\tx\ta\tb\t5.5", *lines[3:]],
            r"sts-dev.csv:4: `similarity` must be a number from 0 to 5, found '5.5'",
        ),
        (
            "ids-sst-dev.csv",
            lambda lines: [*lines[:3], "9\tx\ta\t2.5", *lines[3:]],
            r":4: `sentiment` must be a whole number",
        ),
        ("quora-train.csv", lambda lines: [*lines[:3], "9\tx\ta\tb\tyes", *lines[3:]], r"`is_duplicate`.*found 'yes'"),
        ("quora-train.csv", lambda lines: [*lines[:3], "9\tx\ta\tb\tnan", *lines[3:]], r"`is_duplicate`.*found 'nan'"),
        ("quora-dev.csv", lambda lines: lines[:2], "must have at least 2 labelled rows of different text"),
    ],
)
def test_untrustworthy_files_are_errors(
    folder: Path, file: str, change: Callable[[list[str]], list[str]], message: str
) -> None:
    edit(folder / file, change)
    with pytest.raises(DataError, match=message):
        read_corpus(folder)


def test_wrong_encoding_is_named_with_its_line(folder: Path) -> None:
    file = folder / "ids-sst-train.csv"
    file.write_bytes(file.read_bytes().replace(b"number 2", b"number \xe9"))
    with pytest.raises(DataError, match=r"ids-sst-train.csv:4: not UTF-8 \(byte 0xe9\)"):
        read_corpus(folder)


def test_missing_folder_or_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which does not exist"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(DataError, match="which is a file"):
        read_corpus(folder / "sts-dev.csv")
    (folder / "sts-dev.csv").unlink()
    with pytest.raises(DataError, match=r"lacks sts-dev.csv. Expected there: ids-sst-train.csv"):
        read_corpus(folder)


def test_a_missing_test_file_is_allowed(folder: Path) -> None:
    (folder / "sts-test-student.csv").unlink()
    assert read_corpus(folder).size("sts", "test") == 0


def test_windows_line_ends_and_byte_order_mark(folder: Path) -> None:
    before = read_corpus(folder).rows["sst", "train"]
    file = folder / "ids-sst-train.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    after = read_corpus(folder).rows["sst", "train"]
    assert after.texts == before.texts and after.labels.tolist() == before.labels.tolist()


@pytest.mark.parametrize("most", [None, 10])
def test_dev_split_is_disjoint_stable_and_keeps_duplicates_together(most: int | None) -> None:
    texts = [(f"text {index % 40}",) for index in range(100)]
    labels = np.where(np.arange(100) % 9 == 0, np.nan, 1.0)
    rows = Rows([str(index) for index in range(100)], texts, labels)
    search, held = split_dev(rows, most)
    assert sorted([*search, *held]) == np.flatnonzero(~np.isnan(labels)).tolist()
    assert not {texts[row] for row in search} & {texts[row] for row in held}
    assert len(search) >= min(most or 999, len([*search, *held]) // 2) and len(search) < 60
    # A row keeps its side when the file is shuffled: the split depends on text alone.
    shuffled = Rows(rows.ids[::-1], texts[::-1], labels[::-1])
    again, _ = split_dev(shuffled, None)
    assert most or {texts[::-1][row] for row in again} == {texts[row] for row in search}


def test_the_cache_is_keyed_by_content_and_shared(folder: Path, tiny: Base, tmp_path: Path) -> None:
    first = open_data(folder, tiny, cache=tmp_path / "cache")
    moved = shutil.copytree(folder, tmp_path / "moved")
    second = open_data(moved, tiny, cache=tmp_path / "cache")
    assert second.fingerprint == first.fingerprint and len(list((tmp_path / "cache").iterdir())) == 1
    assert isinstance(second.file("sst", "train").texts[0].ids, np.memmap)
    edit(moved / "ids-sst-train.csv", lambda lines: [*lines[:-1], "999\tnew\tone more film\t1", ""])
    third = open_data(moved, tiny, cache=tmp_path / "cache")
    assert third.fingerprint != first.fingerprint and third.sizes("train")["sst"] == 97


def test_lines_that_csv_cannot_take_apart_are_left_out(folder: Path) -> None:
    def damage(lines: list[str]) -> list[str]:
        lines[2] = lines[2].replace("film", "fi\rlm")  # a stray carriage return is read as a space
        lines[3] = "2\tx\t" + "a" * 140_000 + "\t1"  # above the csv module's limit for a field
        return lines

    edit(folder / "ids-sst-train.csv", damage)
    corpus = read_corpus(folder)
    assert notes(corpus, "ids-sst-train.csv") == [(4, "a text is longer than 131,072 characters; row left out")]
    assert ("the fi lm number 1 is weak",) in corpus.rows["sst", "train"].texts


def test_an_unreadable_folder_is_a_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_corpus(folder)


def test_a_damaged_cache_entry_is_made_anew(folder: Path, tiny: Base, tmp_path: Path) -> None:
    before = open_data(folder, tiny, cache=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    for name in ("sst.train.0.ids.npy", "index.json"):
        (entry / name).write_bytes((entry / name).read_bytes()[:10])
        after = open_data(folder, tiny, cache=tmp_path / "cache")
        assert after.sizes("train") == before.sizes("train")
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [entry.name]


def test_an_unwritable_cache_is_a_clear_error(folder: Path, tiny: Base, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="`MINBERT_CACHE` .* cannot be written"):
        open_data(folder, tiny, cache=tmp_path / "file" / "cache")


def test_processes_may_build_one_entry_at_once(folder: Path, tiny: Base, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_data(folder, tiny, cache=tmp_path / "cache"), range(4)))
    assert all(data.sizes("train") == opened[0].sizes("train") for data in opened)
    assert len([path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]) == 1
