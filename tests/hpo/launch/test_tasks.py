"""Tasks of a sweep: chosen at its launch, kept in its record, used by plan, workers and predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.resources import Resources
from hpo.driver.finalise import asked, finalise_here
from hpo.driver.jury import scoring
from hpo.driver.ledger import Ledger
from hpo.driver.selection import needed, select
from hpo.exports.leaderboard import of_trial, write
from hpo.launch.plan import Plan
from hpo.launch.prepare import prepare
from hpo.launch.record import MismatchError, job_of, record_of
from hpo.launch.relaunch import plan_again
from hpo.worker import trainer
from hpo.worker.job import Assignment, Job
from minbert.data.files import fingerprint
from minbert.tasks import TASKS, choose_tasks
from results import views
from results.candidates import candidates
from results.predictions import PARTS, labels
from results.store import Store
from search_spaces.domains import Float, Kind, OneOf, PerTask
from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo, refused
from tests.hpo.conftest import FAKES, launch, written
from tests.minbert.conftest import make_corpus

SPACE = {
    "optimizer": {"encoder_lr": Float(1e-5, 1e-3, log=True)},
    "regularizer": PerTask(Kind(none={}, smart={})),
    "batch_size": OneOf({"sst": 4, "qqp": 8, "sts": 4}, {"sst": 8, "qqp": 8, "sts": 8}, weights=(1, 1)),
}
CHOICES = [("cfimdb",), ("sst", "cfimdb"), ("sst", "qqp", "sts", "cfimdb")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path_factory.getbasetemp() / "tasks-cache"))


def planned(store: Path, folder: Path, tasks: Any, **changes: Any) -> Plan:
    options = {"space": SPACE, "data": str(folder), "tasks": tasks}
    options |= {"trainer": "hpo.worker.trainer", "budget": 96, "grace": 96}
    return prepare(launch(store, **options | changes))


def test_the_default_tasks_are_the_papers_three(tmp_path: Path, folder: Path) -> None:
    plan = planned(tmp_path, folder, None)
    assert list(plan.record.tasks) == ["sst", "qqp", "sts"]
    assert plan.preview.left_out == ()
    assert plan.record.data.fingerprint == fingerprint(folder, choose_tasks())


@pytest.mark.parametrize("tasks", CHOICES, ids="+".join)
def test_a_plan_names_only_its_own_tasks(tmp_path: Path, folder: Path, tasks: tuple[str, ...]) -> None:
    plan = planned(tmp_path, folder, ",".join(reversed(tasks)))
    assert tuple(plan.record.tasks) == tuple(plan.preview.sizes) == tuple(plan.record.report_rows[0]) == tasks
    assert plan.record.data.fingerprint == fingerprint(folder, choose_tasks(tasks))
    assert set(plan.space.tree["regularizer"]) == set(tasks)  # type: ignore[arg-type]
    assert ("batch_size" in plan.space.tree) == ("sst" in tasks)
    assert bool(plan.preview.left_out) == (len(tasks) < 4)
    absent = {"sst", "qqp", "sts", "cfimdb"} - set(tasks)
    assert not any(absent & set(path.replace(".", "/").split("/")) for path in plan.preview.defaults)
    record = written(plan)
    again = plan_again(plan.store, record, 8, FAKES)
    of_other_tasks = replace(record, data=replace(record.data, fingerprint=fingerprint(folder, choose_tasks())))
    with pytest.raises(MismatchError, match="began with another data"):
        plan_again(plan.store, of_other_tasks, 8, FAKES)
    first = plan.sweep(workers=1).next()
    assert first is not None
    assert first.config == again.sweep(workers=1).next().config  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tasks": "cfimbd"}, r"Unknown task `cfimbd`\. Did you mean `cfimdb`"),
        ({"tasks": ()}, "`tasks` must name each task once, found none"),
        ({"tasks": "cfimdb", "data": None}, "sample corpus .* lacks ids-cfimdb-train.csv"),
        ({"tasks": "cfimdb", "settings": ("mixing/kind=single", "mixing/task=sst")}, "`sst` .* has the tasks cfimdb;"),
        ({"tasks": "cfimdb", "space": {"mixing": {"task": OneOf("sst", "qqp")}}}, "is a task that this sweep does not"),
    ],
)
def test_what_does_not_fit_the_tasks_is_refused(
    tmp_path: Path, folder: Path, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        planned(tmp_path / "store", folder, changes.pop("tasks"), **changes)
    assert not (tmp_path / "store").exists()


def test_a_sweep_of_one_task_does_not_ask_how_to_mix(tmp_path: Path, folder: Path) -> None:
    plan = planned(tmp_path, folder, "sst", space="mixing")
    assert "mixing" not in plan.space.tree
    assert plan.preview.notes == ("mixing left out: with the one task sst there is nothing to mix",)
    [note] = planned(tmp_path, folder, "sst,sts", space="mixing").preview.notes
    assert note.startswith("mixing.sequential left out: tasks trained one after the other cannot be judged early")
    with pytest.raises(ValueError, match=r"only compares ways to mix several tasks \(mixing\), and this .* one: s"):
        planned(tmp_path, folder, "sst", space={"mixing": Kind(summed={}, round_robin={})})


def test_a_default_configuration_is_entered_in_the_study_with_its_parameters(tmp_path: Path, folder: Path) -> None:
    """A choice of the space gives batch sizes of three tasks; the complete configuration has four."""
    space = {"batch_size": OneOf({"sst": 8, "qqp": 16, "sts": 8}, {"sst": 16, "qqp": 32, "sts": 16})}
    start = planned(tmp_path, folder, "sst,qqp,sts,cfimdb", space=space).sweep(workers=1).next()
    assert start is not None
    assert start.params == {"batch_size": "16/32/16"}


def test_a_dry_run_shows_the_tasks(tmp_path: Path, folder: Path) -> None:
    common = ["run", "quickstart", "--dry-run", "--data", folder, "--base", "tiny", "--budget", "60"]
    done = hpo(*common, "--tasks", "cfimdb", store=tmp_path / "store")
    assert done.exit_code == 0, done.output
    for words in ("batch_size/cfimdb", "left out", "regularizer", "of tasks that this sweep does not have"):
        assert words in done.stdout
    assert "qqp" not in done.stdout.replace("left out", "")
    message = refused(hpo(*common, "--tasks", "sts,cfimbd", store=tmp_path / "store"))
    assert "Unknown task `cfimbd`. Did you mean `cfimdb`" in message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("tasks", CHOICES[::2], ids="+".join)
def test_a_sweeps_trial_trains_and_predicts_its_tasks(tmp_path: Path, folder: Path, tasks: tuple[str, ...]) -> None:
    """The work of the driver, a worker and `hpo predict`, without Ray."""
    plan = planned(tmp_path, folder, tasks)
    sweep = Store(tmp_path).create("s", written(plan).to_json())
    job = Job.from_json(job_of(record_of(sweep), sweep.folder, Resources()).to_json())
    assert job.tasks == tasks
    trainer.ready(job, sweep)
    start = plan.sweep(workers=1).next()
    assert start is not None
    *_, last = trainer.train(job, Assignment(0, 0, start.config, start.seed), lambda: False)
    assert tuple(last.scores) == tasks
    with sweep.writer() as writer:
        keys = {"trial": 0, "attempt": 0}
        writer.append("trials", {**keys, "event": "start", "config": start.config, "params": start.params})
        no_columns = ("checkpoint_bytes", "checkpoint_sha256", "paused")
        report = {name: value for name, value in last.to_dict().items() if name not in no_columns}
        writer.append("reports", {**keys, **report}, last.evidence)
        writer.append("trials", {**keys, "event": "end", "state": "complete", "checkpoint": last.checkpoint})
    ledger = Ledger(sweep.events())
    values = {task: found.values for task, found in candidates(sweep, [0]).members[0].items()}
    truth = {task: found for task, (_, found) in labels(sweep, ("search",)).items()}
    # Evidence gives the scores of its report: classes exactly, a correlation up to the order of its sums.
    assert scoring(sweep).scores(values, truth) == pytest.approx(last.scores, rel=1e-12)
    selection = select(sweep, ledger)
    assert needed(sweep, ledger, selection).waiting == [0]
    finalise_here(sweep, asked(sweep, ledger, [0], PARTS), print)
    assert asked(sweep, ledger, [0], PARTS) == needed(sweep, ledger, selection).pending == []
    paths = write(sweep, of_trial(sweep, 0), tmp_path / "out", "trial 0")
    assert len(paths) == 2 * len(tasks)
    lines = (tmp_path / "out" / "cfimdb-dev-output.csv").read_text().splitlines()
    assert lines[0] == "id \t Predicted_Sentiment"
    assert [line.split(" , ")[0] for line in lines[1:]] == [f"cdev{row}" for row in range(24)]
    assert {line.split(" , ")[1] for line in lines[1:]} <= {"0", "1"}
    assert len((tmp_path / "out" / "cfimdb-test-output.csv").read_text().splitlines()) == 7
    [row] = views.trials_frame(sweep).to_dict(orient="records")
    assert row["overall"] == pytest.approx(last.overall)
    assert {task: row[f"examples_{task}"] for task in tasks} == last.examples_per_task
    assert row["trainable_share"] == 1.0


@pytest.mark.parametrize("tasks", CHOICES, ids="+".join)
def test_a_stored_sweep_of_any_tasks_is_shown_and_ensembled(
    tmp_path: Path, tasks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "TASKS", {name: TASKS[name] for name in tasks})
    monkeypatch.setattr(stored, "scores", lambda trial, step: dict.fromkeys(tasks, 0.3 + 0.1 * trial + step / 1e4))
    monkeypatch.setattr(stored, "overall", lambda values: sum(values.values()) / len(values))
    stored.make(tmp_path)
    [best, *_] = answer("top", SWEEP, store=tmp_path)
    assert best["trial"] == 3
    for command in (("top", SWEEP), ("show", SWEEP, "2"), ("status", SWEEP)):
        shown = hpo(*command, store=tmp_path)
        assert shown.exit_code == 0, shown.output
    record = answer("ensemble", SWEEP, "--size", "2", "--name", "two", store=tmp_path)
    assert list(record["estimates"]["ensemble"]["held"]["tasks"]) == list(tasks)
    paths = answer("predict", SWEEP, "--ensemble", "two", "--out", tmp_path / "out", store=tmp_path)["files"]
    assert len(paths) == 2 * len(tasks)
    assert (tmp_path / "out" / "cfimdb-test-output.csv").read_text().startswith("id \t Predicted_Sentiment\n")
