"""`hpo report`: the page, its parts, the file, the server. `test_browser` looks at it as a reader does."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpo.launch.record import DataRecord
from hpo.report import html, quality, serve
from hpo.report.errors import LONG, error_rows, texts_of
from hpo.report.facts import Facts, facts_of
from hpo.report.page import Content, comparison, content_of, page
from hpo.report.quality import Predictor
from hpo.report.sections import LISTED, failures
from minbert.data.files import fingerprint
from minbert.tasks import TASKS
from results.store import Store
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


def test_the_headline_is_held_out(both: Content, small: Facts) -> None:
    found = Elements(both.main).text
    record = small.ensembles["greedy-3"]
    for role in ("ensemble", "best_single", "default"):
        assert f"{record['estimates'][role]['held']['overall']['value']:.4f}" in found
    assert "greedy-3: held out (n = " in found
    assert found.count("There are no held-out scores yet") == 1, "of `evil`, which has no ensemble"
    assert f"{small.looks} predictors of this sweep had a score on held shown so far" in found
    assert "held outadapter" not in found, "the table of the best trials shows `search` alone"


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
    assert "their scores cannot be compared" in comparison([small, evil])
    assert "their scores cannot be compared" not in comparison([small, small])


def test_quality_goes_by_the_kind_of_a_task(both: Content) -> None:
    """sst has classes, qqp two, sts scores: figures by kind, for the best trial and the ensemble."""
    boxes = [each["id"] for tag, each in Elements(both.main).elements if each.get("class") == "plot"]
    ends = [str(name).removeprefix("s1-predictions-") for name in boxes if str(name).startswith("s1-predictions")]
    expected = ["sst-confusion", "qqp-confusion", "qqp-precision", "sts-agreement"]
    assert ends == [f"{number}-{name}" for number in range(2) for name in expected]


def test_best_trial_and_ensemble_predict_the_labelled_rows(small: Facts) -> None:
    single, ensemble = small.predictors
    assert single.name == f"best trial ({small.ensembles['greedy-3']['best_single']})"
    assert (single.part, ensemble.part) == ("held", "held")
    for predictor in (single, ensemble):
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
