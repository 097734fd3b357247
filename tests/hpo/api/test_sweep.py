"""A stored sweep from Python: what it shows is what the store's rows say."""

from __future__ import annotations

import errno
import json
import re
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

import hpo
from hpo.api.sweep import StoredSweep
from results.looks import FOLDER, look_at_runs, looks
from results.store import Store, StoreError, SweepMissing
from tests.hpo.cli import answer
from tests.hpo.cli import hpo as command
from tests.hpo.commands.test_importance import make

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "python.md").read_text(encoding="utf-8")
SPENT = "optimizer/encoder_lr"


@pytest.fixture
def sweep(two_sweeps: Path) -> StoredSweep:
    return hpo.open("a", str(two_sweeps))


def documented(title: str) -> set[str]:
    """The names in the first column of the table under a heading of docs/python.md."""
    section = re.split(r"^### ", DOCS.split(f"### {title}\n")[1], flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_column_of_the_tables_is_documented(sweep: StoredSweep, tmp_path: Path) -> None:
    make(tmp_path, "many")
    many = hpo.open("many", str(tmp_path))
    tasks = {"sst", "qqp", "sts"}
    trials = documented("`sweep.trials`")
    columns = {re.sub(r"(sst|qqp|sts)$", "<task>", name) for name in sweep.trials.columns}
    assert {name for name in columns if "/" not in name} == trials - {"adapter/rank"}
    assert any("/" in name for name in columns), "parameters by path, as the page's adapter/rank"
    columns = {re.sub(r"(sst|qqp|sts)$", "<task>", name) for name in sweep.reports.columns}
    assert columns == documented("`sweep.reports`")
    assert documented("`sweep.top(n)`") == set(sweep.top(1).columns) - set(sweep.trials.columns)
    assert tasks <= set(sweep.trials.columns)
    assert documented("`sweep.importance()`") == set(many.importance().columns)
    assert many.importance().groupby("target")["importance"].sum().to_numpy() == pytest.approx(1)


def test_reports_are_the_rows_of_the_store(sweep: StoredSweep) -> None:
    rows = [row for row in sweep.folder.events() if row["table"] == "reports"]
    frame = sweep.reports
    assert len(frame) == len(rows)
    for row, shown in zip(rows, frame.to_dict(orient="records"), strict=True):
        assert (shown["trial"], shown["step"], shown["overall"]) == (row["trial"], row["step"], row["overall"])
        assert shown["sst"] == row["scores"]["sst"]
        assert np.isnan(shown["qqp"]), "the fake trainer scores no QQP"
    assert frame["used"].iloc[-1] == sweep.status.budget_examples_used


def test_figures_show_the_sweep(sweep: StoredSweep) -> None:
    plot = sweep.plot
    drawn = [plot.history("elapsed"), plot.intermediate_values("sst"), plot.parallel_coordinate(),
             plot.slice([SPENT], step=100), plot.pareto_front("-trainable_parameters"), plot.timeline(),
             plot.replicates(), plot.agreement("sts"), plot.confusion("sst", trial=0)]  # fmt: skip
    assert all(figure.data for figure in drawn)
    assert drawn[2].data[0].dimensions[0].label == SPENT
    assert sum(len(trace.x) for trace in drawn[3].data) == 7, "one point per trial at the first rung, without repeats"
    with pytest.raises(ValueError, match=f"no trial drew `adapter/rank`. Drawn: {SPENT}"):
        plot.slice(["adapter/rank"])


def test_figures_of_predictions_show_the_rows_of_held(two_sweeps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_sweeps / "b", tmp_path / "b", ignore=shutil.ignore_patterns(FOLDER))
    sweep = hpo.open("b", str(tmp_path))
    found = sweep.plot.confusion("sst", trial=0)
    assert found.layout.title.text == "sst, trial 0, on held"
    assert looks(sweep.folder) == 1
    labels = {row["row"]: row["label"] for row in sweep.folder.read("examples").to_pylist() if row["task"] == "sst"}
    rows = [row for row in sweep.folder.read("predictions").to_pylist() if (row["trial"], row["task"]) == (0, "sst")]
    held = [row for row in rows if row["split"] == "held"]
    right = sum(row["value"] == labels[row["row"]] for row in held)
    shares, counts = np.array(found.data[0].z), np.array(
        [[float(text.split("<br>")[0].replace(",", "")) for text in line] for line in found.data[0].text]
    )
    assert (counts.sum(), np.trace(counts)) == (len(held), right)
    assert shares == pytest.approx(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    record = sweep.ensemble(size=2, name="pair")
    figure = sweep.plot.agreement(ensemble="pair")
    assert figure.layout.title.text == "sts, ensemble pair, on held"
    estimate = record["estimates"]["ensemble"]["held"]["tasks"]["sts"]
    assert sum(len(trace.x) for trace in figure.data[:2]) == estimate["n"]
    assert sweep.plot.precision_recall().data
    with pytest.raises(ValueError, match="`task` must name one of sst, qqp"):
        sweep.plot.confusion()
    with pytest.raises(ValueError, match="Unknown task `sts`. Expected one of: qqp"):
        sweep.plot.precision_recall("sts")
    with pytest.raises(ValueError, match="exclude each other"):
        sweep.plot.agreement(trial=0, ensemble="pair")


def test_the_best_is_the_answer(sweep: StoredSweep) -> None:
    decision = sweep.answer
    assert decision is not None
    assert decision.answer.trial == sweep.best["trial"]
    row = sweep.trials.set_index("trial").loc[sweep.best["trial"]]
    assert sweep.best["overall"] == row["overall"]
    assert sweep.config() == sweep.config(int(sweep.best["trial"]))
    assert sweep.config(3) == json.loads(sweep.trials["config"][3])
    assert sweep.state == "done"
    assert repr(sweep).startswith("<StoredSweep a in ")
    assert "7 of 7 trials ended" in repr(sweep)
    assert "<table" in sweep._repr_html_()
    with pytest.raises(StoreError, match=r"No trial 99 in sweep `a`. It has trials 0 to"):
        sweep.config(99)


def test_what_shows_a_score_on_held_counts_as_a_look(two_sweeps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_sweeps / "a", tmp_path / "a", ignore=shutil.ignore_patterns(FOLDER))
    sweep = hpo.open("a", str(tmp_path))
    best = int(sweep.best["trial"])
    assert sweep.config() and answer("best", "a", "--config", store=tmp_path)
    assert looks(sweep.folder) == 0, "the best trial and its configuration are known from `search`"
    assert sweep.trial(best)["held"] and sweep.trial(best)["held"]
    assert looks(sweep.folder) == 1
    shutil.rmtree(tmp_path / "a" / FOLDER)
    held = sweep.answer.held
    assert held is not None
    assert looks(sweep.folder) == 2, "the configuration nearest to the default, and the default, of all their runs"
    assert answer("best", "a", store=tmp_path)["answer"]["held"]["trial"] == held.trial
    assert looks(sweep.folder) == 2, "the same again"
    for each in {held.runs, held.default_runs}:
        look_at_runs(sweep.folder, each)
    assert looks(sweep.folder) == 2


def test_a_store_that_cannot_be_written_can_be_read(
    two_sweeps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(two_sweeps / "a", tmp_path / "a", ignore=shutil.ignore_patterns(FOLDER))

    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for method in ("make", "write"):
        monkeypatch.setattr(f"results.files.Disk.{method}", refuse)
    sweep = hpo.open("a", str(tmp_path))
    assert sweep.trial(0)["held"]
    assert sweep.answer.held is not None
    assert looks(sweep.folder) == 0


def test_what_is_taken_away_is_what_the_commands_give(sweep: StoredSweep, two_sweeps: Path, tmp_path: Path) -> None:
    assert sweep.command(3) == command("show", "a", "3", "--command", store=two_sweeps).stdout.strip()
    assert sweep.command() == sweep.command(int(sweep.best["trial"]))
    path = sweep.report(tmp_path / "a.html")
    assert path.read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not a report"):
        sweep.report(tmp_path / "mine.txt")


def test_the_study_is_what_happened(sweep: StoredSweep) -> None:
    events, study = sweep.folder.events(), sweep.study
    starts = {row["trial"]: row for row in events if row.get("event") == "start" and row["origin"] != "repeat"}
    ends = {row["trial"]: row for row in reversed(events) if row.get("event") == "end"}
    reports: dict[int, dict[int, float]] = {}
    for row in events:
        if row["table"] == "reports":
            reports.setdefault(row["trial"], {})[row["step"]] = row["overall"]
    assert [trial.user_attrs["trial"] for trial in study.trials] == sorted(starts)
    assert len(sweep.trials) > len(study.trials), "repeats are no trials of the study"
    for trial in study.trials:
        number = trial.user_attrs["trial"]
        assert trial.params == json.loads(starts[number]["params"])
        assert trial.intermediate_values == reports[number]
        complete = ends[number]["state"] == "complete"
        assert trial.state == (TrialState.COMPLETE if complete else TrialState.PRUNED)
        assert trial.values == ([reports[number][900]] if complete else None)
        assert trial.datetime_start == datetime.fromtimestamp(starts[number]["time"])
        assert trial.datetime_complete == datetime.fromtimestamp(ends[number]["time"])
        assert trial.user_attrs["seed"] == starts[number]["seed"]
    assert study.study_name == "a"
    best = max((score for steps in reports.values() for step, score in steps.items() if step == 900))
    assert study.best_value >= best - 0.2, "and the study can be asked"


def test_tables_and_queries(sweep: StoredSweep) -> None:
    top = sweep.top(2, where=f"overall > 0 and {SPENT} > 0")
    assert list(top["trial"]) == [leader.trial for leader in sweep.status.best[:2]]
    assert sweep.query("SELECT count(*) AS n FROM trials")["n"][0] == len(sweep.trials)
    front = sweep.pareto("overall,-seconds")
    assert set(front["trial"]) <= set(sweep.trials["trial"])
    assert sweep.trial(1)["reports"][0]["step"] == 100


def test_an_ensemble_is_saved_as_the_command_saves_it(two_sweeps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_sweeps, tmp_path / "store")
    sweep = hpo.open("b", str(tmp_path / "store"))
    record = sweep.ensemble(size=2, name="pair")
    assert sum(member["weight"] for member in record["members"]) == pytest.approx(1)
    assert record["estimates"]["ensemble"]["held"]["overall"]["n"] > 0
    assert json.loads((tmp_path / "store" / "b" / "ensembles" / "pair.json").read_text())["name"] == "pair"


def test_a_damaged_file_is_named_in_a_warning(two_sweeps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_sweeps / "a", tmp_path / "a")
    (tmp_path / "a" / "reports" / "broken.parquet").write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match=r"broken\.parquet"):
        assert len(hpo.open("a", str(tmp_path)).trials) > 6


def test_an_unknown_sweep_names_the_nearest(two_sweeps: Path) -> None:
    Store(two_sweeps)
    with pytest.raises(SweepMissing, match="It has: a, b"):
        hpo.open("zzz", str(two_sweeps))
