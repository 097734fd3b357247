"""`hpo export`, and `hpo predict` for files of texts: real checkpoints of the tiny encoder in a stored sweep."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpo.api.sweep import StoredSweep
from minbert.data.tokens import open_data
from minbert.encoder.base import find_base
from minbert.training.predict import open_predictor
from minbert.training.train import State, train
from tests.hpo import stored
from tests.hpo.api.test_sweep import DOCS, documented
from tests.hpo.cli import SWEEP, answer, hpo, refused
from tests.minbert.configs import configure
from tests.minbert.conftest import make_corpus

ADAPTERS = {1: "pal", 2: "none", 3: "dora"}
"""Trial with real weights -> its adapter."""
TEXTS = [("a dog runs", "a dog sat"), ("", "one, two"), ("a good film", "a good film")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests add ensembles to."""
    path = tmp_path_factory.mktemp("export")
    folder = stored.make(path / "runs", unpredicted=True)
    with folder.writer() as writer:
        repeat = {"trial": 6, "attempt": 0, "origin": "repeat", "replicate": 1, "config": "{}", "params": "{}"}
        writer.append("trials", {**repeat, "event": "start"})
        writer.append("trials", {"trial": 6, "attempt": 0, "event": "end", "state": "diverged"})
    data = open_data(make_corpus(path / "corpus"), find_base("tiny"), cache=path / "cache")
    for trial, kind in ADAPTERS.items():
        state = State.fresh(trial, (64,), path / "trained" / kind)
        (report,) = train(configure(f"adapter/kind={kind}"), data, state)
        shutil.copytree(report.checkpoint, path / "runs" / SWEEP / "checkpoints" / str(trial) / "0-302")
    return path / "runs"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"left": one, "right": two}) + "\n" for one, two in TEXTS))
    return path


def test_export_predicts_as_the_checkpoint_and_has_a_card(store: Path, tmp_path: Path) -> None:
    summary = answer("export", SWEEP, "3", tmp_path / "e", "--adapter", "peft", store=store)
    assert (summary["trial"], summary["adapter"]) == (3, "peft")
    files = sorted(str(path.relative_to(tmp_path / "e")) for path in (tmp_path / "e").rglob("*") if path.is_file())
    assert summary["files"] == files
    checkpoint = store / SWEEP / "checkpoints" / "3" / "0-302"
    found, expected = (open_predictor(path)("qqp", TEXTS) for path in (tmp_path / "e", checkpoint))
    assert (found.probabilities == expected.probabilities).all()  # type: ignore[union-attr]
    card = (tmp_path / "e" / "README.md").read_text()
    trial = json.loads((checkpoint / "trial.json").read_text())
    for words in (
        f"# {SWEEP}, trial 3", 'PeftModel.from_pretrained(encoder, "DIR/adapter")', trial["data"],
        trial["base"]["sha256"], "at most 300 training examples", f"hpo predict {SWEEP} --trial 3 --out DIR",
        "repeats not counted: 6\n", "adapter/kind = \"dora\"", "## Licence",
        "| sts | sentence1, sentence2 | a score from 0 to 5 |",
    ):  # fmt: skip
        assert words in card, words


def test_the_card_gives_scores_with_intervals(store: Path, tmp_path: Path) -> None:
    assert hpo("export", SWEEP, "2", tmp_path / "e", store=store).exit_code == 0
    card = (tmp_path / "e" / "README.md").read_text()
    held = json.loads(hpo("show", SWEEP, "2", "--json", store=store).stdout)["held"]
    row = next(line for line in card.splitlines() if line.startswith("| `held` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
    for cell, name in zip(cells, ("overall", "sst", "qqp", "sts"), strict=True):
        value, _, rest = cell.partition(" (")
        low, _, high = rest.partition(")")[0].partition(" to ")
        assert float(value) == pytest.approx(held[name], abs=1e-4)
        assert float(low) <= float(value) <= float(high) and "n = " in rest


def test_export_refuses(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "e"
    message = refused(hpo("export", SWEEP, "1", target, store=store))
    assert "found `adapter/kind` pal" in message and "Accepted for pal: own" in message
    assert "lora and dora; found none" in refused(hpo("export", SWEEP, "2", target, "--adapter", "peft", store=store))
    assert "Trials with kept weights: 0, 1, 2, 3" in refused(hpo("export", SWEEP, "5", target, store=store))
    assert "not a complete trial checkpoint" in refused(hpo("export", SWEEP, "0", target, store=store))
    assert not target.exists()
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    assert "must be new or empty" in refused(hpo("export", SWEEP, "2", target, "--overwrite", store=store))
    assert [path.name for path in target.iterdir()] == ["mine.txt"]


def test_an_ensemble_predicts_the_weighted_mean_of_its_members(store: Path, pairs: Path, tmp_path: Path) -> None:
    members = [{"trial": 2, "attempt": 0, "weight": 1}, {"trial": 3, "attempt": 0, "weight": 2}]
    record = {"name": "two", "method": "greedy", "combination": "average", "members": members}
    (store / SWEEP / "ensembles").mkdir(exist_ok=True)
    (store / SWEEP / "ensembles" / "two.json").write_text(json.dumps(record))

    def predicted(task: str, *source: str) -> list[dict[str, object]]:
        out = tmp_path / f"{task}{source[1]}.jsonl"
        options = ("--input", pairs, "--columns", "left,right", "--task", task, "--out", out)
        done = hpo("predict", SWEEP, *source, *options, store=store)
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in out.read_text().splitlines()]

    for task, key in (("qqp", "probabilities"), ("sts", "prediction")):
        second, third, both = (
            np.array([row[key] for row in predicted(task, *source)])
            for source in (("--trial", "2"), ("--trial", "3"), ("--ensemble", "two"))
        )
        np.testing.assert_allclose(both, (second + 2 * third) / 3, rtol=1e-5)
        assert (second != third).all()
    record["members"] = [own | {"weights": {"qqp": 1, "sts": own["weight"] - 1}} for own in members]
    (store / SWEEP / "ensembles" / "third.json").write_text(json.dumps(record | {"name": "third"}))
    options = ("--input", pairs, "--columns", "left,right", "--task", "sts", "--out", tmp_path / "third.jsonl")
    done = hpo("predict", SWEEP, "--ensemble", "third", *options, store=store)
    assert "trial 3 predicts 3 rows (1 of 1)" in done.output
    assert (tmp_path / "third.jsonl").read_text() == (tmp_path / "sts3.jsonl").read_text(), "2 has no weight in sts"


def test_predict_reads_standard_input_and_writes_standard_output(store: Path) -> None:
    command = ("predict", SWEEP, "--trial", "2", "--task", "sst", "--input", "-", "--json")
    done = hpo(*command, store=store, typed="a good film\nbad\n")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["1", "2"]
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-5 for row in rows)


def test_python_predicts_as_the_command(store: Path, pairs: Path) -> None:
    sweep = StoredSweep(SWEEP, str(store))
    options = ("--trial", "2", "--input", pairs, "--columns", "left,right", "--task", "qqp")
    done = hpo("predict", SWEEP, *options, store=store)
    rows = [line.split(",") for line in done.stdout.splitlines()]
    found = sweep.predict(TEXTS, "qqp", trial=2)
    assert rows[0][1:] == list(found.columns)
    assert np.array(rows[1:], float)[:, 1:] == pytest.approx(found.to_numpy(), abs=1e-6)
    assert list(sweep.predict(TEXTS, "sts", trial=2).columns) == ["prediction"]
    with pytest.raises(ValueError, match="row 1 has 1 texts; qqp takes 2"):
        sweep.predict([("a", "b"), "c"], "qqp", trial=2)
    with pytest.raises(ValueError, match="exclude each other"):
        sweep.predict(TEXTS, "qqp", trial=2, ensemble="two")


def test_the_block_of_the_page_about_python(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of docs/python.md that needs real weights. The answer, trial 0, has those of trial 3 here."""
    monkeypatch.chdir(tmp_path)
    made_by_hand = shutil.ignore_patterns("ensembles")  # those of other tests have no estimates
    store = shutil.copytree(store, tmp_path / "runs", ignore=made_by_hand)
    weights = store / SWEEP / "checkpoints"
    shutil.copytree(weights / "3" / "0-302", weights / "0" / "0-302")
    sweep = StoredSweep(SWEEP, str(store))
    assert sweep.best["trial"] == 0
    [block] = [block for block in re.findall(r"^```python\n(.*?)^```", DOCS, re.M | re.S) if ".predict(" in block]
    exec(compile(block, "docs/python.md", "exec"), {"sweep": sweep})
    assert (tmp_path / "mine.html").is_file()
    found = sweep.predict(["a good film", "dull"], "sst")
    assert open_predictor(tmp_path / "exported")("sst", [("a good film",), ("dull",)]).probabilities == pytest.approx(
        found.filter(like="probability").to_numpy(), abs=1e-3
    )
    assert {re.sub(r"\d$", "<class>", name) for name in found} == documented("`sweep.predict(texts)`")
    done = hpo("predict", SWEEP, "--task", "sst", "--input", "-", store=store, typed="a good film\ndull\n")
    assert "trial 0 predicts, the best of small-1" in done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()]
    assert np.array(rows[1:], float)[:, 1:] == pytest.approx(found.to_numpy(), abs=1e-6)


def test_predict_of_texts_refuses(store: Path, pairs: Path, tmp_path: Path) -> None:
    command = ("predict", SWEEP, "--trial", "2")
    assert "`task` must name one of sst, qqp, sts" in refused(hpo(*command, "--input", pairs, store=store))
    message = refused(hpo(*command, "--input", pairs, "--task", "sts", store=store))
    assert "pairs.jsonl:1: column `sentence1` must be a text; found only left, right" in message
    assert "give --out DIR" in refused(hpo(*command, store=store))
    assert "or --input FILE" in refused(hpo(*command, "--task", "sst", "--out", tmp_path, store=store))
