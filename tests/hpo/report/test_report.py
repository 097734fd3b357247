"""`hpo report`: the page, its parts, the file, the server. `test_browser` looks at it as a reader does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo.display import compared
from hpo.driver import generations
from hpo.driver.compare import compare
from hpo.driver.quarantines import QuarantineLog
from hpo.launch.record import DataRecord
from hpo.report import html, quality, serve
from hpo.report.errors import LONG, error_rows, texts_of
from hpo.report.facts import Facts, facts_of
from hpo.report.page import Content, comparison, content_of, page
from hpo.report.quality import Predictor
from hpo.report.sections import LISTED, failures, headline, workers
from minbert.data.files import fingerprint
from minbert.tasks import TASKS
from results.store import Store, SweepFolder
from tests.hpo import stored
from tests.hpo.cli import answer, hpo, refused
from tests.hpo.report import sweeps
from tests.hpo.report.sweeps import EVIL
from tests.minbert.conftest import make_corpus

LARGEST = 8_000_000
"""Largest number of bytes of a page about 1,000 trials."""


@pytest.fixture(scope="module")
def small(store: Path) -> Facts:
    return facts_of(Store(store).open("small-1"))


@pytest.fixture(scope="module")
def evil(store: Path) -> Facts:
    return facts_of(Store(store).open("evil"))


@pytest.fixture(scope="module")
def both(small: Facts, evil: Facts) -> Content:
    """A page about `evil` and `small-1`, in this order."""
    return content_of([evil, small])


class Elements(HTMLParser):
    """The elements of a page with their attributes, the text outside scripts, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(both: Content) -> None:
    found = Elements(page(both))
    for tag, attributes in found.elements:
        assert not {"src", "srcset", "data"} & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    policy = next(each["content"] for _, each in found.elements if each.get("http-equiv"))
    assert policy is not None
    assert "connect-src 'none'" in policy
    assert "script-src 'unsafe-inline'" not in policy
    own = [script for script in found.scripts if not script.startswith("{")]
    assert len(re.findall(r"'sha256-", policy)) == len(own) == 2


def test_texts_of_the_store_stay_texts(both: Content) -> None:
    found = Elements(both.main)
    assert not [tag for tag, _ in found.elements if tag in ("img", "iframe", "object", "link", "meta")]
    plots = [attributes for tag, attributes in found.elements if tag == "script"]
    assert plots
    assert all(attributes.get("type") == "application/json" for attributes in plots)
    assert all(json.loads(script)["data"] is not None for script in found.scripts), "no text ends its script early"
    for place in ("Traceback </script>", "Error: </script>", "Base </script>"):
        assert place in found.text
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "two sweeps on a page share no id"


def copied(store: Path, target: Path) -> SweepFolder:
    """A copy of `small-1` in a store of its own, to change."""
    shutil.copytree(store / "small-1", target / "small-1")
    return Store(target).open("small-1")


def row(content: str, name: str) -> list[str]:
    """The cells of the table row that begins with this name."""
    found = re.search(rf"<tr><td[^>]*>{re.escape(name)}</td>(.*?)</tr>", content)
    assert found is not None, name
    return re.findall(r"<td[^>]*>(.*?)</td>", found[1])


def test_the_headline_is_held_out(both: Content, small: Facts) -> None:
    found = Elements(both.main).text
    record = small.ensembles["greedy-3"]
    for role in ("ensemble", "best_single", "default"):
        assert f"{record['estimates'][role]['held']['overall']['value']:.4f}" in found
    assert "greedy-3: held out (n = " in found
    assert row(both.main, "answer (0, the default)")[0] == f"{held_score(0):.4f}"
    assert found.count("There are no held-out scores yet") == 1, "of `evil`, which has no ensemble"
    assert f"{small.looks} predictors of this sweep had a score on held shown so far" in found
    assert "held outadapter" not in found, "the table of the best trials shows `search` alone"


def held_score(trial: int) -> float:
    """A trial's overall on `held`, from the rows that the fixture writes."""
    scores = {}
    for task, declared in stored.TASKS.items():
        rows = [entry for entry in stored.predictions(trial) if entry["task"] == task and entry["split"] == "held"]
        values, truth = np.array([entry["value"] for entry in rows]), stored.truth(task)[[e["row"] for e in rows]]
        scores[task] = np.mean(values == truth) if declared.classes > 1 else np.corrcoef(values, truth)[0, 1]
    return stored.overall(scores)


@pytest.mark.parametrize("number", [1, 2])
def test_the_answer_has_a_row_and_figures_of_its_own(
    store: Path, small: Facts, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is neither the default nor trial 2, the best single trial on `search`."""
    assert small.decision is not None
    decision = small.decision._replace(answer=replace(small.decision.answer, trial=number))
    monkeypatch.setattr("hpo.report.facts.of_sweep", lambda folder: decision)
    facts = facts_of(Store(store).open("small-1"))
    shown = headline(facts, "k")
    overall, interval, *_, on_search = row(shown, f"answer ({number})")
    assert float(overall) == pytest.approx(held_score(number), abs=1e-4)
    low, high = map(float, interval.split(" .. "))
    assert low < float(overall) < high
    assert float(on_search) == pytest.approx(stored.overall(stored.scores(number, stored.MILESTONES[-1])), abs=1e-4)
    assert row(shown, "best single trial on <code>search</code> (2)")[0] == f"{held_score(2):.4f}"
    names = [predictor.name for predictor in facts.predictors]
    one = ["answer, best single trial on `search` (2)"]
    assert names[:-1] == (one if number == 2 else [f"answer ({number})", "best single trial on `search` (2)"])
    assert names[-1] == "ensemble greedy-3"


def test_ensembles_are_ordered_by_cross_validation(store: Path, tmp_path: Path, small: Facts) -> None:
    """The score on the rows that chose the members says less; a soup, which has no other, comes last and is marked."""
    folder = copied(store, tmp_path)
    record = small.ensembles["greedy-3"]

    def save(name: str, method: str, in_sample: float, validated: float | None) -> None:
        own = record["compared"][1] | {"method": method, "size": 5, "value": validated}
        tried = [] if validated is None else [own | {"optimism": in_sample - validated}]
        estimates = deepcopy(record["estimates"])
        estimates["ensemble"]["search"]["overall"]["value"] = in_sample
        combination = "soup" if method == "soup" else record["combination"]
        content = record | {"name": name, "method": method, "size": 5, "combination": combination, "compared": tried}
        path = folder.path / "ensembles" / f"{name}.json"
        path.write_text(json.dumps(content | {"estimates": estimates, "evaluations": 7}))

    (folder.path / "ensembles" / "greedy-3.json").unlink()
    save("top-k-5", "top-k", 0.6925, 0.6843)
    save("average-5", "average", 0.6896, 0.6854)
    save("soup-5", "soup", 0.9, None)
    facts = facts_of(folder)
    assert list(facts.ensembles) == ["average-5", "top-k-5", "soup-5"]
    assert facts.predictors[-1].name == "ensemble average-5"
    told = Elements(headline(facts, "k")).text
    assert "0.6896 on the rows that chose it, 0.6854 by cross-validation" in told
    assert "0.9000 on the rows that chose it, after 7 evaluations there, without cross-validation, so it is" in told


def test_a_soup_without_stored_predictions_says_so(store: Path, tmp_path: Path, small: Facts) -> None:
    """As one that an earlier version saved."""
    folder = copied(store, tmp_path)
    (folder.path / "ensembles" / "greedy-3.json").unlink()
    record = small.ensembles["greedy-3"] | {"name": "soup-3", "method": "soup", "combination": "soup"}
    (folder.path / "ensembles" / "soup-3.json").write_text(json.dumps(record))
    facts = facts_of(folder)
    assert facts.predictors[-1].part is None
    told = Elements(headline(facts, "k")).text
    assert "ensemble soup-3 on held: The soup soup-3 has no stored predictions" in told


def test_quarantines_are_named_and_mark_their_workers(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(store, tmp_path)
    monkeypatch.setattr("hpo.driver.quarantines.time.time", lambda: stored.START + 2)
    generation = generations.claim(folder.folder, since=stored.START)
    QuarantineLog(folder.folder, generation.number, pytest.fail).follow({"node7 GPU 3": EVIL})
    monkeypatch.undo()
    found = Elements(workers(facts_of(folder), "k"))
    generation.end()
    assert f"node7 GPU 32s20s{' '.join(EVIL.split())}" in found.text, "place, from, to, the reason as a text"
    bars = json.loads(found.scripts[0])["data"][0]
    assert (bars["name"], bars["y"]) == ("in quarantine", ["node7 GPU 3"])
    assert "No place was in quarantine." not in found.text


def test_failures_of_one_reason_stand_together(both: Content) -> None:
    found = Elements(both.main).text
    assert "28 of 31trials closed" in found, "two repeats are no trials of the search"
    assert "failed, 3 attempts: Error:" in found


def test_many_reasons_of_failures_do_not_fill_the_page(evil: Facts) -> None:
    reasons = ["often", *[f"reason {number}" for number in range(50)], "often"]
    many = pd.DataFrame({"trial": range(52), "state": "failed", "reason": reasons, "error": "Traceback"})
    shown = Elements(failures(replace(evil, attempts=many), "k")).text
    assert shown.startswith("failed, 2 attempts: often (trials 0, 51)")
    assert shown.count("Traceback") == LISTED
    assert f"Other reasons, {51 - LISTED} attempts: hpo show tells them (trials 20, 21, " in shown


def test_the_page_of_a_thousand_trials_is_small(tmp_path: Path) -> None:
    facts = facts_of(sweeps.many(tmp_path, "thousand", 1000, evil="text"))
    text = page(content_of([facts]))
    assert len(facts.attempts) == 1001
    assert len(text.encode()) < LARGEST


def test_sweeps_of_different_data_are_not_compared_in_silence(small: Facts, evil: Facts) -> None:
    told = Elements(comparison([small, evil])).text
    assert "No sweep can be compared with 'small-1'. evil: its data are others (fingerprint g, here f)" in told
    assert "minus small-1, held out" not in told


def test_sweeps_are_compared_as_hpo_compare_does(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference of the best configurations on `held` with its interval, and the settings that differ."""
    config = stored.config
    monkeypatch.setattr(stored, "config", lambda trial: config(trial) | {"max_length": 96})
    folders = [copied(store, tmp_path), stored.make(tmp_path, "small-2", unpredicted=True)]
    better = [entry | {"value": float(stored.truth(entry["task"])[entry["row"]])} for entry in stored.predictions(0)]
    folders[1].write_table("predictions", better, key="0-1")  # a later attempt of trial 0, which is right everywhere
    found = compare(folders)
    [pair] = found.pairs
    assert pair.difference is not None and pair.difference.low > 0, "this fixture has something to show"
    told = comparison([facts_of(folder) for folder in folders])
    assert compared.sentence(found, pair) in Elements(told).text
    assert "small-2 is better" in told
    assert row(told, "max_length") == ["64", "96"]
    assert row(told, "small-2")[-4:] == ["1.0000", "-", "-", "-"], "its answer is right everywhere; it has no ensemble"


def test_quality_goes_by_the_kind_of_a_task(both: Content) -> None:
    """sst has classes, qqp two, sts scores: figures by kind, for the answer, the best single trial and the ensemble."""
    boxes = [each["id"] for tag, each in Elements(both.main).elements if each.get("class") == "plot"]
    ends = [str(name).removeprefix("s1-predictions-") for name in boxes if str(name).startswith("s1-predictions")]
    expected = ["sst-confusion", "qqp-confusion", "qqp-precision", "sts-agreement"]
    assert ends == [f"{number}-{name}" for number in range(3) for name in expected]


def test_a_page_about_other_tasks_has_the_figures_of_their_kinds(tmp_path: Path) -> None:
    """Tasks of other names, with figures computed here from the rows."""
    with sweeps.other_tasks() as tasks:
        facts = facts_of(sweeps.small(tmp_path))
        content = content_of([facts]).main
        entries = stored.predictions(2)
        rows = {name: [entry for entry in entries if entry["task"] == name and entry["split"] == "held"]
                for name in tasks}  # fmt: skip
        truth = {name: stored.truth(name)[[entry["row"] for entry in rows[name]]] for name in tasks}
    values = {name: np.array([entry["value"] for entry in rows[name]]) for name in tasks}
    assert [each.name for each in facts.predictors][1] == "best single trial on `search` (2)"
    found, plots = Elements(content), dict[str, Any]()
    for (_, attributes), script in zip(
        [each for each in found.elements if each[0] == "script"], found.scripts, strict=True
    ):
        plots[str(attributes["data-plot"]).removeprefix("s0-predictions-1-")] = json.loads(script)["data"]
    for task, classes in (("mood", 3), ("same", 2)):
        counts = np.zeros((classes, classes), int)
        np.add.at(counts, (truth[task].astype(int), values[task].astype(int)), 1)
        shown = [[int(cell.split("<br>")[0]) for cell in line] for line in plots[f"{task}-confusion"][0]["text"]]
        assert shown == counts.tolist()
        assert f"n = 20: accuracy {np.trace(counts) / 20:.4f}" in found.text
    near = np.mean(np.abs(values["mood"] - truth["mood"]) <= 1)
    assert f"off by one {near:.4f}" in found.text
    right = (values["same"] == 1) & (truth["same"] == 1)
    precision, recall = right.sum() / (values["same"] == 1).sum(), right.sum() / (truth["same"] == 1).sum()
    assert f"precision {precision:.4f}, recall {recall:.4f}" in found.text
    assert "same-precision" in plots and "mood-precision" not in plots
    assert f"pearson {np.corrcoef(values['grade'], truth['grade'])[0, 1]:.4f}" in found.text
    for axis, expected in (("x", truth["grade"]), ("y", values["grade"])):
        drawn = plots["grade-agreement"][0][axis]
        assert np.frombuffer(base64.b64decode(drawn["bdata"]), drawn["dtype"]) == pytest.approx(expected)
    assert not re.search(r"\b(sst|qqp|sts)\b", found.text, re.IGNORECASE)


def test_the_page_names_no_task() -> None:
    """Figures go by a task's kind, so no file of the page knows the name of a task."""
    for path in Path(html.__file__).parent.iterdir():
        if path.is_file():
            named = re.search(rf"\b({'|'.join(TASKS)})\b", path.read_text(encoding="utf-8"), re.IGNORECASE)
            assert named is None, (path.name, named)


def test_answer_best_trial_and_ensemble_predict_the_labelled_rows(small: Facts) -> None:
    names = [predictor.name for predictor in small.predictors]
    assert names == ["answer (0)", "best single trial on `search` (2)", "ensemble greedy-3"]
    for predictor in small.predictors:
        assert predictor.part == "held"
        for task in stored.TASKS:
            rows = predictor.parts["held"][task]
            assert rows["row"].tolist() == list(range(0, stored.ROWS - 1, 2))
            assert rows["label"].tolist() == stored.truth(task)[rows["row"]].tolist()


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the extra `witness`")
    generator = np.random.default_rng(0)
    positive = generator.integers(0, 20, 300) / 20  # with ties
    label = (generator.random(300) < positive).astype(float)
    curve = quality.precision_recall_curve(pd.DataFrame({"positive": positive, "label": label}))
    precision, recall, thresholds = metrics.precision_recall_curve(label, positive, drop_intermediate=False)
    assert curve["threshold"].tolist() == thresholds[::-1].tolist()
    assert curve["precision"].to_numpy() == pytest.approx(precision[:-1][::-1])
    assert curve["recall"].to_numpy() == pytest.approx(recall[:-1][::-1])


def test_the_worst_errors_come_first(small: Facts) -> None:
    rows = pd.DataFrame({"row": [3, 1, 2, 0], "id": list("dbca"), "label": [0.0, 4.0, 2.0, 1.0],
                         "prediction": [4.0, 3.0, 2.0, 0.0], "chance": [0.4, 0.9, 0.8, 0.5],
                         "positive": [np.nan] * 4})  # fmt: skip
    texts = {"sst": [("zero",), ("one " * LONG,), ("two",), (EVIL,)]}
    found = error_rows(small.record, [Predictor("x", {"search": {"sst": rows}})], texts)
    assert [row["id"] for row in found] == ["d", "b", "a"], "by distance, then by the probability of the wrong class"
    assert [row["x"] for row in found] == ["4 (0.40)", "3 (0.90)", "0 (0.50)"]
    assert found[0]["text"] == EVIL
    assert len(found[1]["text"]) == LONG + 4
    shown = Elements(html.filtered("k", found, "task"))
    assert not [tag for tag, _ in shown.elements if tag in ("script", "img")]


def test_texts_come_from_the_data_that_was_recorded(small: Facts, tmp_path: Path) -> None:
    data = make_corpus(tmp_path / "data", train=24, dev=12)
    mark = fingerprint(data, stored.TASKS)
    texts, missing = texts_of(replace(small.record, data=DataRecord(str(data), mark)))
    assert missing == ""
    assert {task: len(rows) for task, rows in texts.items()} == dict.fromkeys(stored.TASKS, 12)
    assert [len(texts[task][0]) for task in stored.TASKS] == [len(TASKS[task].columns) for task in stored.TASKS]
    assert "has changed" in texts_of(replace(small.record, data=DataRecord(str(data), "other")))[1]
    assert "does not exist" in texts_of(replace(small.record, data=DataRecord(str(tmp_path / "gone"), mark)))[1]


def test_the_command_writes_a_file(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    assert hpo("report", "small-1", "--out", out, store=store).stdout.strip() == str(out)
    first = out.read_text(encoding="utf-8")
    assert "<title>Sweep small-1</title>" in first
    done = answer("report", "small-1", "evil", "--out", out, store=store)
    assert done == {"file": str(out), "bytes": out.stat().st_size}
    assert "<title>Sweep small-1, evil</title>" in out.read_text(encoding="utf-8"), "a page of ours is replaced"
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_the_command_refuses(store: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    assert "is not a report" in refused(hpo("report", "small-1", "--out", mine, store=store))
    assert mine.read_text() == "<p>mine</p>"
    assert "is a folder" in refused(hpo("report", "small-1", "--out", tmp_path, store=store))
    assert "named twice: small-1" in refused(hpo("report", "small-1", "small-1", "--out", mine, store=store))
    assert "No sweep `small-2`" in refused(hpo("report", "small-2", "--out", tmp_path / "x.html", store=store))
    assert "--serve writes no file" in refused(hpo("report", "small-1", "--serve", "--out", mine, store=store))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a live page about a sweep of its own, and its store."""
    monkeypatch.setattr(serve, "PAUSE", 0.0)
    monkeypatch.setattr(serve, "SHARE", 0.0)
    sweeps.many(tmp_path, "live", 6)
    running = serve.server(serve.Source(lambda: [Store(tmp_path).open("live")]), 0)
    assert running.server_address[0] == "127.0.0.1", "other machines cannot reach it"
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/", tmp_path
    running.shutdown()
    thread.join()
    running.server_close()


def read(address: str, host: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, headers={} if host is None else {"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as answered:
            return answered.status, answered.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_a_live_page_follows_the_store(served: tuple[str, Path]) -> None:
    address, store = served
    status, text = read(address)
    assert status == 200
    assert "connect-src 'self'" in text
    content = json.loads(read(f"{address}content?since=")[1])
    assert f'<body data-version="{content["version"]}">' in text
    assert read(f"{address}content?since={content['version']}")[0] == 204, "nothing has changed"
    with Store(store).open("live").writer() as writer:
        writer.append("trials", {"trial": 77, "attempt": 0, "event": "start", "config": "{}", "params": "{}"})
    later = json.loads(read(f"{address}content?since={content['version']}")[1])
    assert later["version"] != content["version"]
    assert later["main"] != content["main"]
    assert read(f"{address}other")[0] == 404
    assert read(address, host="elsewhere.example")[0] == 403
    Store(store).remove("live")
    assert read(address)[0] == 503, "the server goes on"
