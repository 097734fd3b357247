"""Augmentation: edits of words, duplicates, rows of a trial, batches, interruptions, the command."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minbert.__main__ import BAD_INPUT, DONE, STOPPED, main
from minbert.augmentation.augmentations import (
    AUGMENTATIONS,
    AUGMENTERS,
    EDITS,
    PAPER,
    REMOTE,
    EditAugmentation,
    FileAugmentation,
    Material,
    draw,
    shares,
    spread,
)
from minbert.augmentation.chat import ChatError
from minbert.augmentation.edits import WORD, distinct, insert, normalised, swap, synonym
from minbert.augmentation.job import AugmentationPlan, assemble, augmented_name, work
from minbert.augmentation.journal import Journal, JournalError
from minbert.augmentation.thesaurus import Thesaurus, find_thesaurus, read_thesaurus, with_s
from minbert.data.files import SAMPLE, DataError, Rows, read_file
from minbert.fields import ConfigError, dump, load
from minbert.randomness import numpy_generator
from minbert.tasks import TASKS
from tests.minbert.chat_server import Server, client, lines, says, serve, slow, status

SST = TASKS["sst"]
SENTENCES = (
    "The film tells a strange story about two friends who travel through the city .",
    " It 's a good movie , and the actors make the most of its jokes ; I do n't mind the noise .",
    "A decent thriller that keeps you guessing.",
    "-LRB- Gayton 's script -RRB- telegraphs every discovery and layers on the gloss of convenience .",
    "Boring ...",
    "`` Boring ''",
    "Good good",
    "...",
    'He said "watch the scene", didn\'t he?',
)


@pytest.fixture(scope="module")
def thesaurus() -> Thesaurus:
    return read_thesaurus(SAMPLE / "synonyms.json")


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as state:
        yield state


def sample_rows(count: int = 600) -> Rows:
    rows, _ = read_file(SAMPLE / SST.files["train"], SST, labelled=True)
    return Rows(rows.ids[:count], rows.texts[:count], rows.labels[:count])


def plan(probabilities: dict[str, float], count: int = 60, size: int = 10, **more: object) -> AugmentationPlan:
    thesaurus = read_thesaurus(SAMPLE / "synonyms.json")
    return AugmentationPlan(SST, sample_rows(count), shares(probabilities), thesaurus, size=size, **more)  # type: ignore[arg-type]


# Edits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_the_text_never_empties_it_and_depends_on_the_generator_alone(
    kind: str, thesaurus: Thesaurus
) -> None:
    technique = AUGMENTERS[kind]()
    made = 0
    for text, seed in itertools.product(SENTENCES, range(40)):
        new = technique.edit(text, numpy_generator(seed, "test"), thesaurus)
        assert new == technique.edit(text, numpy_generator(seed, "test"), thesaurus)
        if new is not None:
            made += 1
            assert normalised(new) not in ("", normalised(text)) and WORD.search(new)
            assert "\n" not in new and "\t" not in new
    assert made > 100


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_moves_the_words_that_it_says_it_moves(kind: str, thesaurus: Thesaurus) -> None:
    for text, seed in itertools.product(SENTENCES, range(40)):
        new = AUGMENTERS[kind]().edit(text, numpy_generator(seed, "test"), thesaurus)
        if new is None:
            continue
        old_words, new_words = (Counter(word.lower() for word in WORD.findall(sentence)) for sentence in (text, new))
        removed, added = old_words - new_words, new_words - old_words
        signs = [re.sub(r"\s+", "", WORD.sub("", sentence)) for sentence in (text, new)]
        assert signs[0] == signs[1], (text, new)
        if kind == "swap":
            assert not removed and not added
        elif kind == "delete":
            assert sum(removed.values()) == 1 and not added
        elif kind == "insert":
            assert not removed and 1 <= sum(added.values()) <= 2
        else:
            articles = {"a", "an"}
            assert len(set(removed) - articles) == 1 and 1 <= len(set(added) - articles) <= 2


def test_an_impossible_edit_returns_none(thesaurus: Thesaurus) -> None:
    impossible = {
        "synonym": "It is not so .",
        "insert": "It is not so .",
        "delete": "Boring ...",
        "swap": "Good good !",
    }
    for kind, text in impossible.items():
        assert AUGMENTERS[kind]().edit(text, numpy_generator(0, "test"), thesaurus) is None


def test_every_word_is_as_likely_to_go_and_every_pair_to_swap(thesaurus: Thesaurus) -> None:
    text, draws = "one two three four", 3000
    removed: Counter[str] = Counter()
    swapped: Counter[str] = Counter()
    for seed in range(draws):
        shorter = AUGMENTERS["delete"]().edit(text, numpy_generator(seed, "test"), thesaurus)
        removed.update(set(text.split()) - set(shorter.split()))
        swapped[swap(text, numpy_generator(seed, "swap")) or ""] += 1
    for counts, cases in ((removed, 4), (swapped, 6)):
        p = 1 / cases
        assert len(counts) == cases
        assert all(abs(count / draws - p) < 4 * math.sqrt(p * (1 - p) / draws) for count in counts.values())


def test_synonyms_by_hand() -> None:
    small = Thesaurus({"film": {"n": ["movie"]}, "watch": {"v": ["eye"]}, "good": {"n": ["goodness"], "a": ["full"]}})

    def edited(text: str) -> str | None:
        return synonym(text, numpy_generator(0, "test"), small)

    assert edited("The good film .") == "The good movie ."
    assert edited("Two films .") == "Two movies ."
    assert edited("He watches it .") == "He eyes it ."
    assert edited("A film .") == "A movie ."
    assert edited("I have a watch .") is None  # not a verb after an article
    assert edited("The Film .") is None  # a name
    assert synonym("An hour .", numpy_generator(0, "x"), Thesaurus({"hour": {"n": ["minute"]}})) == "A minute ."
    assert synonym("It is a tale .", numpy_generator(0, "x"), Thesaurus({"tale": {"n": ["epic"]}})) == "It is an epic ."
    assert insert("Film", numpy_generator(0, "x"), small) is None and insert("film", numpy_generator(0, "x"), small)


def test_replacements_agree_with_the_table_by_brute_force(thesaurus: Thesaurus) -> None:
    for lemma, parts in thesaurus.entries.items():
        synonyms = thesaurus.replacements(lemma, "the")
        assert synonyms == ([] if "a" in parts or "r" in parts else parts.get("n", []))
        assert set(thesaurus.related(lemma)) == set(itertools.chain(*parts.values()))
    assert thesaurus.replacements("stories") == ["tales", "narratives"]
    assert [with_s(word) for word in ("city", "boy", "watch", "film", "box")] == [
        "cities",
        "boys",
        "watches",
        "films",
        "boxes",
    ]


def test_the_sample_thesaurus_is_small_clean_and_no_word_names_itself(thesaurus: Thesaurus) -> None:
    raw = (SAMPLE / "synonyms.json").read_bytes()
    assert raw.isascii() and raw.endswith(b"}\n") and 140 <= len(thesaurus.entries) <= 300
    for lemma, parts in thesaurus.entries.items():
        for words in parts.values():
            assert words and lemma not in words and len(set(words)) == len(words)
            assert all(word == word.lower() and len(word.split()) <= 2 for word in words)


def test_thesaurus_files_are_found_in_order_and_checked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert find_thesaurus(None, None).name == find_thesaurus(None, data).name == str(SAMPLE / "synonyms.json")
    (tmp_path / "wordnet").mkdir()
    for place in (tmp_path / "wordnet" / "synonyms.json", data / "synonyms.json", tmp_path / "own.json"):
        place.write_text('{"film": {"n": ["movie"]}}')
        named = place if place.name == "own.json" else None
        assert find_thesaurus(named, data).name == str(place)
    for content in ("[]", "{}", "{", '{"film": ["movie"]}', '{"film": {"x": ["movie"]}}', '{"film": {"n": "movie"}}'):
        (tmp_path / "own.json").write_text(content)
        with pytest.raises(DataError, match="`--synonyms`.*own.json"):
            find_thesaurus(tmp_path / "own.json", None)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        find_thesaurus(tmp_path / "none.json", None)


# Choice and duplicates -----------------------------------------------------------------------------------------------


def test_the_papers_probabilities() -> None:
    paper = {"synonym": 0.3, "insert": 0.2, "delete": 0.2, "swap": 0.2, "backtranslate": 0.1, "rewrite": 0.0}
    assert paper == PAPER and sum(PAPER.values()) == pytest.approx(1) and REMOTE == ("backtranslate", "rewrite")
    local = shares({name: PAPER[name] for name in EDITS})
    assert local == pytest.approx({"synonym": 1 / 3, "insert": 2 / 9, "delete": 2 / 9, "swap": 2 / 9})
    assert "rewrite" not in shares(PAPER)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"synonim": 0.3}, "Did you mean `synonym`"),
        ({"swap": -0.1}, "`swap` must be a number from 0 to 1, found -0.1"),
        ({"swap": math.nan}, "found nan"),
        ({"swap": 1.5}, "found 1.5"),
        ({"swap": 0.0, "delete": 0.0}, "above 0, found swap, delete at 0"),
        ({}, "above 0, found none"),
    ],
)
def test_bad_probabilities_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shares(weights)


def test_drawn_techniques_agree_with_their_probabilities() -> None:
    probabilities, draws = shares(PAPER), 4000
    counts = Counter(draw(probabilities, numpy_generator(0, "test", number)) for number in range(draws))
    for name, p in probabilities.items():
        assert abs(counts[name] / draws - p) < 4 * math.sqrt(p * (1 - p) / draws), name
    # the batches of a plan, with one draw for each batch as in the paper
    many = plan(PAPER, count=60, size=1, amount=50)
    drawn = Counter(batch.technique for batch in many.batches())
    assert sum(drawn.values()) == 3000
    for name, p in probabilities.items():
        assert abs(drawn[name] / 3000 - p) < 4 * math.sqrt(p * (1 - p) / 3000), name


@pytest.mark.parametrize("amount", [0.0, 0.01, 0.05, 0.5, 1.0, 1.3, 4.0])
def test_rows_are_spread_evenly_and_smaller_amounts_are_parts_of_larger_ones(amount: float) -> None:
    jobs = spread(200, amount, seed=3)
    assert len(jobs) == len(set(jobs)) == round(200 * amount)
    times = Counter(row for row, _ in jobs)
    assert not jobs or max(times.values()) - min(times[row] for row in range(200)) <= 1
    assert set(jobs) <= set(spread(200, amount + 0.2, seed=3))
    assert spread(0, amount, seed=3) == []


def test_duplicates_agree_with_brute_force() -> None:
    rng = np.random.default_rng(0)
    words = ["good", "Good", "film", "film.", "film .", "a", "é", "é"]

    def texts(count: int) -> list[str]:
        return [" ".join(rng.choice(words, size=rng.integers(1, 3))) for _ in range(count)]

    for _ in range(20):
        known, new = texts(5), texts(40)
        expected = [
            all(normalised(text) != normalised(earlier) for earlier in itertools.chain(known, new[:place]))
            for place, text in enumerate(new)
        ]
        assert distinct(new, known) == expected
        assert any(expected) and not all(expected)
    assert normalised(" A  FILM, the Film's .") == "a film , the film ' s ."
    assert distinct(["...", "  "], []) == [True, False]


def test_equal_normal_forms_are_equal_word_pieces_and_the_other_way_round(tiny: object) -> None:
    from minbert.data.tokens import word_piece
    from minbert.encoder.base import Base

    assert isinstance(tiny, Base)
    pieces = word_piece(tiny.vocabulary, True).pre_tokenizer
    texts = [*SENTENCES, *(text.lower().replace(" .", ".") for text in SENTENCES), "a-b", "a - b", "a_b", "a _ b"]
    for first, second in itertools.combinations(texts, 2):
        tokens = [[token for token, _ in pieces.pre_tokenize_str(text.lower())] for text in (first, second)]
        assert (normalised(first) == normalised(second)) == (tokens[0] == tokens[1]), (first, second)


# Trials --------------------------------------------------------------------------------------------------------------


def no_file() -> Rows:
    raise AssertionError("the file is not needed")


def material(thesaurus: Thesaurus, seed: int = 0, file: Callable[[], Rows] = no_file, count: int = 600) -> Material:
    rows = sample_rows(count)
    return Material([text for (text,) in rows.texts], rows.labels.tolist(), seed, lambda: thesaurus, file)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmentations_are_frozen_records_that_load_and_repeat(kind: str, thesaurus: Thesaurus) -> None:
    entry = AUGMENTATIONS[kind]
    values = dump(entry())
    assert values.pop("kind") == kind and load(entry, values) == entry() and entry.__doc__
    materials = [material(thesaurus, seed, sample_rows, 60) for seed in (0, 0, 1)]
    first, again, with_other_seed = (entry().extra(rows) for rows in materials)
    assert first == again
    assert kind != "edit" or first != with_other_seed
    assert all(isinstance(text, str) and text and label in range(5) for text, label in first)


@pytest.mark.parametrize("amount", [0.0, 0.25, 1.0, 2.5])
def test_edited_rows_are_new_keep_their_labels_and_come_in_the_amount_asked_for(
    amount: float, thesaurus: Thesaurus
) -> None:
    rows = material(thesaurus, count=200)
    extra = EditAugmentation(amount=amount).extra(rows)
    old = {normalised(text) for text in rows.texts}
    new = [normalised(text) for text, _ in extra]
    assert len(set(new)) == len(new) and not old & set(new)
    assert 0.85 * round(200 * amount) <= len(extra) <= round(200 * amount)
    # An edit shares all but a few words with its source: the nearest old text has the same label.
    bags = [set(normalised(text).split()) for text in rows.texts]
    for text, label in extra[::17]:
        words = set(normalised(text).split())
        distance = [len(words ^ bag) for bag in bags]
        near = {rows.labels[place] for place, far in enumerate(distance) if far == min(distance)}
        assert label in near, text


def test_one_row_does_not_depend_on_the_others(thesaurus: Thesaurus) -> None:
    whole = EditAugmentation(amount=1.0).extra(material(thesaurus, count=200))
    part = EditAugmentation(amount=1.0).extra(material(thesaurus, count=50))
    assert part == whole[: len(part)]


def test_an_edit_of_probability_zero_never_happens(thesaurus: Thesaurus) -> None:
    rows = material(thesaurus, count=100)
    for text, _ in EditAugmentation(amount=2.0, synonym=0.0, insert=0.0, delete=0.0, swap=0.1).extra(rows):
        assert sorted(normalised(text).split()) in [sorted(normalised(old).split()) for old in rows.texts]
    with pytest.raises(ConfigError, match="synonym, insert, delete, swap are all 0"):
        EditAugmentation(synonym=0, insert=0, delete=0, swap=0)
    with pytest.raises(ConfigError, match="`augmentation/amount` must be a number above 0.0 and at most 4.0, found 5"):
        load(EditAugmentation, {"amount": 5}, "augmentation")


def test_a_share_of_a_file_is_a_part_of_a_larger_share(thesaurus: Thesaurus) -> None:
    rows = sample_rows(100)
    rows.labels[7] = math.nan
    extras = [FileAugmentation(share).extra(material(thesaurus, file=lambda: rows)) for share in (0.0, 0.3, 0.5, 1.0)]
    assert [len(extra) for extra in extras] == [0, 30, 50, 99]
    for small, large in itertools.pairwise(extras):
        assert set(small) <= set(large)
    assert extras[-1] == [(text, rows.labels[row]) for row, (text,) in enumerate(rows.texts) if row != 7]


# The mechanism -------------------------------------------------------------------------------------------------------


def test_back_translation_goes_there_and_back_and_temperatures_stay_in_range(server: Server) -> None:
    chat, _ = client(server)
    made = plan({"backtranslate": 1.0}, count=40, size=10, languages=("Spanish", "German"))
    results = work(made, chat, [], lambda record: None)
    assert len(server.requests) == 8
    asked = [request["messages"][0]["content"].split("\n")[0] for request in server.requests]
    for there, back in zip(asked[::2], asked[1::2], strict=True):
        language = "German" if "German" in there else "Spanish"
        assert there == f"Translate each of these English sentences into {language}."
        assert back == f"Translate each of these {language} sentences into English."
    temperatures = [request["temperature"] for request in server.requests]
    assert all(0.55 <= value <= 0.85 for value in temperatures) and len(set(temperatures)) == 4
    flat = [text for texts in results for text in texts]
    assert flat == [f"{text} indeed indeed" for (text,) in made.rows.texts]


def test_temperatures_are_uniform(server: Server) -> None:
    chat, _ = client(server)
    work(plan({"rewrite": 1.0}, count=60, size=1, amount=4), chat, [], lambda record: None)
    values = np.array([request["temperature"] for request in server.requests])
    from scipy.stats import kstest

    assert kstest((values - 0.55) / 0.3, "uniform").pvalue > 1e-3


def test_new_rows_keep_labels_name_their_source_and_are_counted(server: Server) -> None:
    chat, _ = client(server)
    server.usual = lines(lambda text: text.upper() if "film" in text else "always the same")
    made = plan({"synonym": 0.5, "rewrite": 0.5}, count=60, size=10, seed=1)
    rows, tallies = assemble(made, work(made, chat, [], lambda record: None))
    label = dict(zip(made.rows.ids, made.rows.labels.tolist(), strict=True))
    assert all(row.label == label[row.source] for row in rows)
    assert len({row.id for row in rows} | set(made.rows.ids)) == len(rows) + 60
    assert sum(row.text == "always the same" for row in rows) == 1  # a text in upper case is a duplicate
    assert sum(row.technique == "rewrite" for row in rows) == tallies["rewrite"].new == 1
    for tally in tallies.values():
        assert tally.tried == tally.new + tally.duplicates + tally.impossible + tally.failed


def test_a_batch_that_the_model_spoils_is_counted_but_the_first_one_stops_the_work(server: Server) -> None:
    chat, _ = client(server)
    made = plan({"rewrite": 1.0}, count=30, size=10)
    server.script = [lines(), says("no"), says("no"), lines()]
    _, tallies = assemble(made, work(made, chat, [], lambda record: None))
    assert (tallies["rewrite"].new, tallies["rewrite"].failed) == (20, 10)
    server.usual = says("no")
    with pytest.raises(ChatError, match="answered no sentence of batch 0 with numbered lines"):
        work(made, chat, [], lambda record: None)


def test_unlabelled_rows_are_not_augmented_but_count_as_old() -> None:
    made = plan({"delete": 1.0}, count=30, size=10)
    made.rows.labels[:10] = math.nan
    assert {row for batch in made.batches() for row, _ in batch.jobs} == set(range(10, 30))
    first = made.rows.texts[0][0]
    rows, tallies = assemble(made, [[first] * 10, [None] * 10])
    assert not rows and tallies["delete"].duplicates == 10 and tallies["delete"].impossible == 10


def test_a_journal_cut_at_any_byte_gives_the_unbroken_result(tmp_path: Path) -> None:
    made = plan({"synonym": 0.4, "delete": 0.3, "swap": 0.3}, count=24, size=6)
    path = tmp_path / "out.progress"
    with Journal(path, made.settings(""), resume=False) as journal:
        unbroken = work(made, None, journal.records, journal.append)
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for cut in sorted({*range(0, len(content), 97), *ends, *(end - 1 for end in ends), len(content)}):
        path.write_bytes(content[:cut])
        finished = max(sum(end <= cut for end in ends) - 1, 0)
        with Journal(path, made.settings(""), resume=True) as journal:
            assert len(journal.records) == finished
            assert work(made, None, journal.records, journal.append) == unbroken
        assert path.read_bytes() == content


def test_journals_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, {"seed": 0}, resume=False) as journal:
        journal.append({"batch": 0})
        with pytest.raises(JournalError, match="in use by another process"):
            Journal(path, {"seed": 0}, resume=True)
    with pytest.raises(JournalError, match="unfinished run; add --resume"):
        Journal(path, {"seed": 0}, resume=False)
    with pytest.raises(JournalError, match="begun with seed = 0, found 1"):
        Journal(path, {"seed": 1}, resume=True)
    path.write_bytes(b"not json\n")
    with pytest.raises(JournalError, match="damaged"):
        Journal(path, {"seed": 0}, resume=True)
    path.write_bytes(b"1\n")
    with pytest.raises(JournalError, match="not a journal"):
        Journal(path, {"seed": 0}, resume=True)


# The command ---------------------------------------------------------------------------------------------------------


def augment(*options: object) -> int:
    return main(["data", "augment", *map(str, options)])


def test_the_file_is_in_the_class_format_and_read_as_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert augment("--out", tmp_path, "--amount", 0.5, "--batch", 20) == DONE
    out, err = capsys.readouterr()
    assert "left out: backtranslate (needs --endpoint)" in err and "synonym 0.333" in err
    assert "new rows" in out and "duplicates" in out
    file = tmp_path / augmented_name(SST)
    assert [path.name for path in tmp_path.iterdir()] == ["ids-sst-train-augmented.csv"] == [file.name]
    header = (SAMPLE / SST.files["train"]).read_text().split("\n")[0]
    assert file.read_text().split("\n")[0] == f"{header}\tsource\ttechnique"
    rows, problems = read_file(file, SST, labelled=True)
    assert not problems and 210 <= len(rows.ids) <= 300
    frame = pd.read_csv(file, sep="\t", index_col=0, keep_default_na=False)
    assert frame.index.tolist() == list(range(len(frame))) and frame["id"].tolist() == rows.ids
    assert frame["sentence"].tolist() == [text for (text,) in rows.texts]
    assert frame["sentiment"].tolist() == rows.labels.tolist() and set(frame["technique"]) <= set(EDITS)
    old = sample_rows()
    label = dict(zip(old.ids, old.labels.tolist(), strict=True))
    assert all(label[source] == new for source, new in zip(frame["source"], frame["sentiment"], strict=True))


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert augment("--out", tmp_path / f"{name}.csv", "--amount", 0.1, "--seed", seed, "--json") == DONE
        summary = json.loads(capsys.readouterr().out)
        assert summary["rows"] == sum(tally["new"] for tally in summary["techniques"].values())
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--techniques", "synonim=1"], "Did you mean `synonym`"),
        (["--techniques", "swap=2"], "`swap` must be a number from 0 to 1, found 2"),
        (["--techniques", "swap"], "NAME=PROBABILITY such as synonym=0.3, found 'swap'"),
        (["--techniques", "swap=0"], "above 0"),
        (["--techniques", "swap=1", "swap=1"], "names `swap` twice"),
        (["--techniques", "rewrite=1"], "names rewrite, which need --endpoint"),
        (["--endpoint", "http://localhost:1"], "`--endpoint` needs --model"),
        (["--endpoint", "localhost", "--model", "m"], "must be an address"),
        (["--endpoint", "http://localhost:1", "--model", "m", "--techniques", "swap=1"], "needs a technique that"),
        (["--amount", "0"], "`--amount` must be above 0"),
        (["--amount", "0.0001"], "600 training rows gives none"),
        (["--amount", "nan"], "`--amount` must be"),
        (["--batch", "0"], "`--batch` must be from 1 to 1000, found 0"),
        (["--temperature-low", "0.9"], "`--temperature-high` must be from 0.9 to 2, found 0.85"),
        (["--task", "qqp"], "`--task` must classify single sentences, `qqp` does not. Expected one of: "),
        (["--task", "ssst"], "Did you mean `sst`"),
        (["--data", "nowhere"], "nowhere/ids-sst-train.csv cannot be read: No such file"),
        (["--synonyms", "nowhere.json"], "`--synonyms` nowhere.json cannot be read"),
        (["--out", f"{__file__}/a.csv"], "`--out` needs a folder that can be written"),
        (["--out", __file__], "`--out` must name a new file; "),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert augment("--out", tmp_path / "a.csv", *options) == BAD_INPUT
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_an_unreachable_endpoint_is_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    more = ["--endpoint", url, "--model", "m", "--techniques", "rewrite=1"]
    assert augment("--out", tmp_path / "a.csv", *more) == BAD_INPUT
    assert f"{url}/chat/completions cannot be reached: Connection refused" in capsys.readouterr().err
    assert augment("--out", tmp_path / "a.csv", "--amount", 0.1) == DONE  # the failure left nothing behind


def test_a_refused_key_is_an_error_before_any_sentence_is_sent(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.models = status(401)
    more = ["--endpoint", server.url, "--model", "m", "--techniques", "rewrite=1"]
    assert augment("--out", tmp_path / "a.csv", *more) == BAD_INPUT
    assert "refuses the key" in capsys.readouterr().err and not server.requests


def test_an_endpoint_that_fails_stops_the_run_and_resume_asks_only_for_the_rest(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--endpoint", server.url, "--model", "m", "--techniques", "rewrite=1", "--amount", 0.1, "--batch", 20]
    options += ["--tries", 1, "--out", tmp_path / "a.csv"]
    server.script = [lines(), lines(), status(500)]
    assert augment(*options) == STOPPED
    assert "finished batches are kept" in capsys.readouterr().err
    assert augment(*options) == BAD_INPUT  # without --resume nothing is thrown away
    assert "add --resume" in capsys.readouterr().err
    assert augment(*options, "--seed", 5, "--resume") == BAD_INPUT
    assert "begun with" in capsys.readouterr().err
    assert augment(*options, "--resume") == DONE
    assert "2 of 3 batches were finished before" in capsys.readouterr().err
    first, second, failed, third = (request["messages"][0]["content"] for request in server.requests)
    assert failed == third and len({first, second, third}) == 3
    rows, _ = read_file(tmp_path / "a.csv", SST, labelled=True)
    assert len(rows.ids) == 60 and all(text.endswith("indeed") for (text,) in rows.texts)
    assert augment(*options, "--resume") == DONE  # nothing left to do
    assert len(server.requests) == 4


def process(*options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "minbert", "data", "augment", *map(str, options)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy())


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_continues_where_it_stopped(
    number: signal.Signals, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted while the endpoint is answering, after two finished batches and before others."""
    options = ["--endpoint", server.url, "--model", "m", "--techniques", "rewrite=0.5", "swap=0.5", "--batch", 10]
    options += ["--amount", 0.2]
    assert augment(*options, "--out", tmp_path / "unbroken.csv") == DONE
    asked = [request["messages"][0]["content"] for request in server.requests]
    assert 3 < len(asked) < 12
    server.requests.clear()
    server.script = [lines(), lines(), slow(60)]
    running = process(*options, "--out", tmp_path / "broken.csv")
    deadline = time.monotonic() + 100
    while len(server.requests) < 3 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    _, err = running.communicate(timeout=20)
    assert running.returncode == (-number if number == signal.SIGKILL else STOPPED), err
    assert "Traceback" not in err and not (tmp_path / "broken.csv").exists()
    assert augment(*options, "--out", tmp_path / "broken.csv", "--resume") == DONE
    prompts = [request["messages"][0]["content"] for request in server.requests]
    assert prompts == [*asked[:3], *asked[2:]]  # the third was cut off; the first two are not requested again
    assert (tmp_path / "broken.csv").read_bytes() == (tmp_path / "unbroken.csv").read_bytes()
    assert not (tmp_path / "broken.csv.progress").exists()


@pytest.mark.slow
def test_the_real_training_file_is_augmented_with_wordnet(real_data: Path, tmp_path: Path) -> None:
    if not (real_data.parent / "wordnet" / "synonyms.json").is_file():
        pytest.skip(f"no WordNet beside {real_data}")
    assert augment("--data", real_data, "--out", tmp_path) == DONE
    rows, problems = read_file(tmp_path / augmented_name(SST), SST, labelled=True)
    assert not problems and 0.95 * 8544 < len(rows.ids) <= 8544  # the paper: 8,430
    old, _ = read_file(real_data / SST.files["train"], SST, labelled=True)
    assert not {normalised(text) for (text,) in rows.texts} & {normalised(text) for (text,) in old.texts}
    assert not set(rows.ids) & set(old.ids)
