"""Preparation: bad input is refused before any compute, by messages that say what would be accepted."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.resources import ResourceRequest, Resources, local_cpus
from hpo.driver.session import resume
from hpo.launch.prepare import _absolute, prepare
from hpo.launch.record import job_of
from hpo.launch.relaunch import plan_again, total_of
from hpo.launch.request import LaunchError, Relaunch
from hpo.samplers.history import FURTHER
from hpo.search.expectation import expected_examples
from hpo.worker import trainer
from hpo.worker.job import Job
from minbert.config import Config
from minbert.data.files import read_corpus
from minbert.encoder.base import find_base
from minbert.encoder.traits import Traits
from minbert.stages.stages import MLM, MNRL
from minbert.tasks import choose_tasks
from minbert.techniques.optimizer import default_adapter_lr
from minbert.training.cost import Workload, stage_examples
from minbert.training.model import MultitaskModel
from results.places import locate
from results.store import Store
from search_spaces.domains import Kind, OneOf
from tests.hpo.conftest import FAKES, launch, written


def refused(tmp_path: Path, match: str, **changes: Any) -> None:
    with pytest.raises(ValueError, match=match):
        prepare(launch(**{"store": tmp_path / "store"} | changes))
    assert not (tmp_path / "store").exists(), "nothing is written"


def test_a_plan_knows_everything_and_writes_nothing(tmp_path: Path) -> None:
    plan = prepare(launch(tmp_path / "store", settings=("dropout/hidden=0.2",)))
    assert plan.record.milestones == (100, 300, 900)
    assert (plan.record.budget, plan.most_examples) == (900, 8 * 900)
    assert plan.record.exempt == (0,)
    assert plan.expected_examples == expected_examples(plan.scheduler, 8, (100, 300, 900), (0,)) > 900 + 7 * 100
    assert set(plan.record.tasks) == {"sst", "qqp", "sts"}
    assert plan.record.tasks["sts"].metric == "pearson"
    assert [set(rows) for rows in plan.record.report_rows] == [{"sst", "qqp", "sts"}] * 3
    assert plan.record.report_rows[-1] == {task: rows["search"] for task, rows in plan.preview.sizes.items()}
    assert plan.expected_cost > plan.expected_examples
    assert "optimizer/encoder_lr" not in plan.preview.defaults
    assert plan.record.pinned == plan.space.pinned == {"dropout": {"hidden": 0.2}}
    assert not (tmp_path / "store").exists()


def test_a_plan_survives_its_record(tmp_path: Path) -> None:
    plan = prepare(launch(tmp_path, settings=("dropout/hidden=0.2",)))
    record = written(plan)
    again = plan_again(plan.store, record, record.trials, FAKES)
    assert again.record == record
    assert record == replace(plan.record, resources=record.resources, created=record.created)
    sweep, resumed = plan.sweep(workers=1), again.sweep(workers=1)
    assert [sweep.next(), sweep.next()] == [resumed.next(), resumed.next()]


def test_a_record_keeps_what_a_trial_gets_and_leaves_open_how_many_run_at_once(tmp_path: Path) -> None:
    plan = prepare(launch(tmp_path))
    assert written(plan).resources == ResourceRequest(1, 1, 0.0)
    asked = replace(plan, record=replace(plan.record, resources=ResourceRequest()))
    assert written(replace(asked, resources=Resources(8, 2, 1.0))).resources == ResourceRequest(None, 2, 1.0)


def test_the_cost_of_a_configuration_follows_from_recorded_facts(tmp_path: Path) -> None:
    plan = prepare(launch(tmp_path))
    record = written(plan)
    facts = record.data.workload
    assert facts == plan.record.data.workload
    assert facts is not None
    assert facts.rows == {task: rows["train"] for task, rows in plan.preview.sizes.items()}
    again = plan_again(plan.store, record, 8, FAKES)
    costs = [each.sweep(workers=1).study.problem.cost for each in (plan, again)]
    space_costs = [[cost({}), cost({"optimizer": {"accumulation": 4}})] for cost in costs if cost is not None]
    assert len(space_costs) == 2
    assert space_costs[0] == space_costs[1]
    assert space_costs[0][0] == pytest.approx(1.0)
    assert space_costs[0][1] < 1.0, "the optimiser visits the weights less often"
    older = replace(record, data=replace(record.data, workload=None))
    assert plan_again(plan.store, older, 8, FAKES).sweep(workers=1).study.problem.cost is None


def test_the_first_trial_with_a_stage_pays_for_it(tmp_path: Path) -> None:
    """Before it starts, its stages are part of its cost; after that they are computed, and so for the next ones."""
    stages: dict[str, Any] = {"mlm": {"kind": "mlm", "epochs": 2.0}, "mnrl": {"kind": "mnrl"}}
    start = tmp_path / "start.json"
    start.write_text(json.dumps({"stages": {"mlm": stages["mlm"]}}))
    space = {"stages": {kind: Kind(**{"none": {}, kind: {}}) for kind in ("mlm", "mnrl")}}
    plan = prepare(launch(tmp_path, space=space, start=(start,)))
    record = written(plan)
    facts = record.data.workload
    assert facts is not None and facts.stages.keys() == {"mlm", "mnrl"}
    workload = Workload.of(read_corpus(), find_base("tiny").traits, [MLM(), MNRL()])
    assert facts.stages == workload.stages
    mlm, mnrl = (
        stage_examples(stage, facts.stages[stage.kind].rows, facts.stages[stage.kind].tokens, workload) / record.budget
        for stage in (MLM(epochs=2.0), MNRL())
    )
    for sweep in (plan.sweep(workers=2), plan_again(plan.store, record, 8, FAKES).sweep(workers=2)):
        cost = sweep.study.problem.cost
        assert cost is not None
        assert cost({"stages": stages}) == pytest.approx(1 + mlm + mnrl) and mlm > 1 and mnrl > 0.1
        assert sweep.next() and cost({"stages": stages}) == pytest.approx(1 + mlm + mnrl), "the default has none"
        assert sweep.next() and cost({"stages": stages}) == pytest.approx(1 + mnrl)
        assert cost({"stages": {"mlm": stages["mlm"]}}) == pytest.approx(1.0)
        assert cost({"stages": {"mnrl": stages["mnrl"]}}) == pytest.approx(1 + mnrl)
    older = replace(record, data=replace(record.data, workload=replace(facts, stages={})))
    cost = plan_again(plan.store, older, 8, FAKES).sweep(workers=1).study.problem.cost
    assert cost is not None and cost({"stages": stages}) == pytest.approx(1.0)


def test_a_grid_gets_no_more_trials_than_it_has_configurations(tmp_path: Path) -> None:
    space = {"dropout": {"hidden": OneOf(0.1, 0.2, weights=(1, 1))}}  # the default, 0, lies outside
    plan = prepare(launch(tmp_path, space=space, searcher="grid", trials=8))
    assert (plan.trials, plan.record.trials) == (3, 3)
    assert "the searcher `grid` tries each configuration once: 3 trials instead of 8" in plan.preview.notes
    record = written(plan)
    assert total_of(3, Relaunch(), record) == total_of(3, Relaunch(trials=3), record) == 3
    with pytest.raises(LaunchError, match=r"each configuration once, 3 trials in all; a total of 4 .* at most 3\."):
        total_of(3, Relaunch(trials=4), record)
    fewer = prepare(launch(tmp_path, space=space, searcher="grid", trials=2))
    assert fewer.trials == 2
    assert not any("grid" in note for note in fewer.preview.notes)
    assert total_of(2, Relaunch(trials=3), written(fewer)) == 3


def test_repeats_are_recorded_and_reach_the_search(tmp_path: Path) -> None:
    plan = prepare(launch(tmp_path, repeats=1, scheduler="none", grace=None, trials=4))
    again = plan_again(plan.store, written(plan), 4, FAKES)
    assert again.record.repeats == plan.record.repeats == 1
    sweep = again.sweep(workers=1)
    for trial in range(4):
        assert sweep.next() is not None
        sweep.report(trial, 0, 900, 0.5, diverged=False)
    assert (sweep.searched, sweep.finished) == (True, False)
    refused(tmp_path / "other", "`repeats` must be an integer of at least 0, not -1", repeats=-1)


def test_objectives_are_recorded_and_reach_the_search(tmp_path: Path) -> None:
    assert prepare(launch(tmp_path)).record.objectives == ("overall",)
    names = "overall,-seconds,-trainable_parameters"
    plan = prepare(launch(tmp_path, objective=names, searcher="nsga2", scheduler="none", grace=None))
    again = plan_again(plan.store, written(plan), 8, FAKES)
    assert again.record.objectives == tuple(names.split(","))
    for sweep in (plan.sweep(workers=1), again.sweep(workers=1)):
        assert sweep.next() is not None
        sweep.report(0, 0, 900, 0.5, diverged=False, row={"seconds": 3.0, "trainable_parameters": 8})
        (trial,) = sweep.study.trials()
        assert (trial.value, trial.user_attrs[FURTHER]) == (0.5, [-3.0, -8.0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "overall,-seconds"}, "`changes` optimises overall alone.*: nsga2"),
        ({"objective": "overall,-seconds", "searcher": "nsga2"}, "learns from complete trials alone.*: with `none`"),
        ({"objective": "overall,-seconds", "searcher": "nsga2", "scheduler": "none", "grace": None}, ""),
        ({}, ""),
    ],
)
def test_a_plan_says_what_its_searcher_does_not_read(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    notes = [note for note in prepare(launch(tmp_path, **changes)).preview.notes if "searcher" in note]
    assert len(notes) == bool(words)
    assert re.search(words, " ".join(notes))


def test_names_count_up_and_taken_ones_offer_to_resume(tmp_path: Path) -> None:
    assert prepare(launch(tmp_path, name=None, space="quickstart")).name == "quickstart-1"
    Store(tmp_path).create("quickstart-1", {})
    assert prepare(launch(tmp_path, name=None, space="quickstart")).name == "quickstart-2"
    with pytest.raises(ValueError, match="hpo resume quickstart-1"):
        prepare(launch(tmp_path, name="quickstart-1"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"trials": 0}, "`trials` must be an integer of at least 1, not 0"),
        ({"eta": 1}, "`eta` must be an integer of at least 2"),
        ({"time": -1.0}, "`time` must be a positive number of seconds"),
        ({"address": "ray://head:10001"}, "`address` must be host:port .*, not 'ray://head:10001': Ray Client cannot"),
        ({"time": "1h"}, "`time` must be a positive number of seconds, not '1h'"),
        ({"pause_timeout": 0.0}, "`pause_timeout` must be a positive number of seconds, not 0"),
        ({"trial_timeout": 5.0}, "`trial_timeout` must be more than 30 seconds, in which .* not 5"),
        ({"gpus_per_trial": 1.5}, "`gpus_per_trial` must be 0, a fraction below 1, or a whole number"),
        ({"gpus_per_trial": float("inf")}, "`gpus_per_trial` must be 0, .*, not inf"),
        ({"store": "ftp://host/runs"}, "Store `ftp://host/runs` is neither a path nor a known URI"),
        ({"name": "../up"}, r"\.\./up"),
        ({"data": "/nowhere"}, "/nowhere"),
        ({"base": "/nowhere"}, "/nowhere"),
        ({"space": "quikstart"}, "quickstart"),
        ({"space": {"dropout": {"hiden": [0.1]}}}, "hiden"),
        ({"settings": ("dropout/hiden=0.1",)}, "dropout/hidden"),
        ({"start": (Path("/nowhere.json"),)}, "`start`: /nowhere.json is no readable JSON file"),
        ({"start_full": (Path("/nowhere.json"),)}, "`start_full`: /nowhere.json is no readable JSON file"),
        (
            {"start": (Path("/a.json"), Path("/b.json")), "start_full": (Path("/x/../b.json"),)},
            "`start_full`: /b.json is also given by `start`, which races it. Name the file once",
        ),
        ({"objective": "overall,-secs"}, "`objective`: Unknown objective `-secs`.* Expected some of: overall, sst"),
        ({"objective": "sst,-seconds"}, "`objective`: The first objective decides .* has to be `overall`, not `sst`"),
        ({"searcher": "nsga2"}, "`nsga2` searches for several objectives, and `objective` names `overall` alone"),
        ({"grace": 901}, "`grace` must be an integer from 1 to the budget of 900, not 901"),
        ({"gpus_per_trial": 1.0, "workers": 64}, "need 64 CPUs, but this machine has|GPUs, but this machine has"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    refused(tmp_path, match, **changes)


def test_no_rung_holds_less_than_a_step(tmp_path: Path) -> None:
    step = r"at least 64 examples, one step of the default configuration \(16 of sst \+ 32 of qqp \+ 16 of sts\), not"
    refused(tmp_path, f"`budget` must be {step} 5", budget=5, grace=None)
    refused(tmp_path, f"`grace` must be {step} 63", grace=63)
    assert prepare(launch(tmp_path, budget=600, grace=None)).record.milestones == (66, 200, 600)
    assert prepare(launch(tmp_path, budget=2700, grace=None)).record.milestones == (300, 900, 2700)
    assert prepare(launch(tmp_path, budget=192, grace=None)).record.milestones == (64, 192), "a ninth would be 21"
    assert prepare(launch(tmp_path, budget=64, grace=None)).record.milestones == (64,)
    small = ("batch_size/sst=1", "batch_size/qqp=2", "batch_size/sts=1")
    assert prepare(launch(tmp_path, budget=36, grace=4, settings=small)).record.milestones == (4, 12, 36)
    single = ("mixing/kind=single", "mixing/task=sst")
    assert prepare(launch(tmp_path, budget=16, grace=None, settings=single)).record.milestones == (16,)
    refused(tmp_path, r"configuration \(16 of sst\), not 15", budget=15, grace=None, tasks="sst")
    doubled = r"128 examples, one step of the default configuration \(32 of sst \+ 64 of qqp \+ 32 of sts\), not 127"
    refused(tmp_path, doubled, budget=127, grace=None, settings=("optimizer/accumulation=2",))


def test_the_first_rung_lies_where_the_default_configuration_can_be_judged(tmp_path: Path) -> None:
    """At 100 steps of 4 + 8 + 4 rows or at twice a warm-up, but never above a ninth of the budget."""
    small = tuple(f"batch_size/{task}={size}" for task, size in (("sst", 4), ("qqp", 8), ("sts", 4)))

    def first(*settings: str, budget: int = 19_440) -> int:
        return prepare(launch(tmp_path, budget=budget, grace=None, settings=(*small, *settings))).record.milestones[0]

    none, longer = "optimizer/schedule/warmup_steps=0", "optimizer/schedule/warmup_steps=120"
    assert first(none) == 2160, "19,440 / 9 is the first of its milestones above 1,600"
    assert first(none, budget=48_600) == 1800, "48,600 / 27"
    assert first(longer, budget=48_600) == 5400, "twice 120 steps of 16"
    assert first(longer, "optimizer/schedule/warmup_share=0.01", budget=48_600) == 1800, "twice 486"
    assert first(none, "optimizer/accumulation=2", budget=48_600) == 5400, "100 steps of 32"
    assert first("optimizer/schedule/warmup_share=0.5", "optimizer/schedule/warmup_steps=10000", budget=48_600) == 5400


def test_more_cpus_than_there_are_are_refused(tmp_path: Path) -> None:
    cpus = local_cpus()
    refused(tmp_path, rf"need {cpus + 1} CPUs, but this machine has {cpus}: at most --workers {cpus}", workers=cpus + 1)


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`store` must be a folder; .*file is a file|Cannot read the store"):
        prepare(launch(tmp_path / "file"))


def test_a_start_file_must_be_a_legal_configuration(tmp_path: Path) -> None:
    path = tmp_path / "start.json"
    path.write_text(json.dumps({"adapter": {"kind": "lora", "rnk": 4}}))
    refused(tmp_path, "start.json: .*rank", start=(path,))
    path.write_text(json.dumps({"adapter": {"kind": "lora", "rank": 4}}))
    [config] = prepare(launch(tmp_path, start=(path,))).record.start
    assert config["adapter"]["rank"] == 4


def test_given_configurations_are_raced_unless_they_are_to_run_in_full(tmp_path: Path) -> None:
    paths = [tmp_path / f"{rank}.json" for rank in (2, 4, 8)]
    for path in paths:
        path.write_text(json.dumps({"adapter": {"kind": "lora", "rank": int(path.stem)}}))
    plan = prepare(launch(tmp_path / "store", start=(paths[1],), start_full=(paths[2], paths[0])))
    assert [config["adapter"]["rank"] for config in plan.record.start] == [4, 8, 2]
    assert plan.record.exempt == (0, 2, 3)
    record = written(plan)
    for sweep in (plan.sweep(workers=5), plan_again(plan.store, record, record.trials, FAKES).sweep(workers=5)):
        assert [start.origin for _ in range(5) if (start := sweep.next())] == ["default", *["given"] * 3, "sampler"]
        verdicts = [sweep.report(trial, 0, 100, 0.1 * trial, diverged=False).action for trial in (4, 3, 2, 1, 0)]
        assert verdicts == ["continue", "continue", "continue", "stop", "continue"]
    refused(tmp_path, "the default configuration and the 3 given ones: at least 4, not 3",
            start=(paths[1],), start_full=(paths[2], paths[0]), trials=3)  # fmt: skip


def test_defaults_follow_the_base_and_are_recorded_with_it(tmp_path: Path) -> None:
    plan = prepare(launch(tmp_path / "store", settings=("adapter/kind=lora",)))
    assert plan.record.base.traits == Traits(32, 2, "cls")
    start = plan_again(plan.store, written(plan), 8, FAKES).sweep(workers=1).next()
    assert start is not None and start.config["optimizer"]["adapter_lr"] == default_adapter_lr(Traits(32, 2, "cls"))
    assert {encoding["pooling"] for encoding in start.config["encoding"].values()} == {"cls"}
    assert "`start`" not in " ".join(plan.preview.notes)


def test_a_start_file_with_the_rate_of_another_base_gets_a_note(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"optimizer": {"encoder_lr": 2e-4}}))  # MiniLM's; 5e-4 is the tiny encoder's
    (note,) = (note for note in prepare(launch(tmp_path / "store", start=(path,))).preview.notes if "`start`" in note)
    assert note == (
        f"`start`: {path}: optimizer/encoder_lr = 0.0002, and the default for the base tiny is 0.0005: "
        "was the file made for another base?"
    )


@pytest.mark.parametrize(
    ("adapter", "noted"),
    [
        ({"kind": "none"}, {"encoder_lr"}),
        ({"kind": "frozen"}, set()),
        ({"kind": "lora"}, {"adapter_lr"}),
        ({"kind": "lora", "rest": "trained"}, {"adapter_lr", "encoder_lr"}),
        ({"kind": "dora", "bias": "adapted"}, {"adapter_lr", "encoder_lr"}),
        ({"kind": "pal"}, {"adapter_lr", "encoder_lr"}),
        ({"kind": "pal", "encoder": "frozen"}, {"adapter_lr"}),
    ],
)
def test_every_rate_in_use_is_looked_at(tmp_path: Path, adapter: dict[str, str], noted: set[str]) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"adapter": adapter, "optimizer": {"encoder_lr": 1e-5, "adapter_lr": 1e-4}}))
    notes = [note for note in prepare(launch(tmp_path / "store", start=(path,))).preview.notes if "`start`" in note]
    assert {note.split("optimizer/")[1].split(" =")[0] for note in notes} == noted
    tasks = choose_tasks()
    config = Config.from_dict(json.loads(path.read_text()), tasks)
    trained = MultitaskModel(config, find_base("tiny"), tasks, 0).trainable()
    added = {config.adapter.adds(name) for name in trained if name.startswith("encoder.")}
    assert {"adapter_lr" if each else "encoder_lr" for each in added} == noted, "as the model trains"


@pytest.mark.parametrize(("stem", "name"), [("my space", "my-space-1"), ("_s", "s-1"), ("ä", "sweep-1")])
def test_any_file_gives_a_name(tmp_path: Path, stem: str, name: str) -> None:
    path = tmp_path / f"{stem}.py"
    path.write_text("from search_spaces.domains import Float\nSPACE = {'dropout': {'hidden': Float(0.0, 0.3)}}\n")
    assert prepare(launch(tmp_path / "store", name=None, space=path)).name == name


def test_a_base_directory_is_kept_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _absolute("model", tmp_path / "model") == str(tmp_path / "model")
    assert _absolute("tiny", None) == "tiny"
    assert _absolute("somebody/model", tmp_path / "cache") == "somebody/model"


def test_a_store_elsewhere_is_refused_on_resume_too() -> None:
    with pytest.raises(ValueError, match="Store `ftp://host/runs` is neither a path nor a known URI"):
        resume("ftp://host/runs", "s")


def test_a_worker_refuses_other_data_and_weights(tmp_path: Path) -> None:
    record = prepare(launch(tmp_path)).record
    job = job_of(record, locate(tmp_path), Resources(), trainer=record.trainer)
    assert (job.fingerprint, job.base_sha256) == (record.data.fingerprint, record.base.sha256)
    job = Job.from_json(job.to_json())
    trainer.data_of(job)
    with pytest.raises(ValueError, match=r"base weights tiny \(SHA-256\): the sweep began with another, now"):
        trainer.data_of(replace(job, base_sha256="another"))
    with pytest.raises(ValueError, match=r"data in the sample corpus \(fingerprint\): the sweep began with another"):
        trainer.data_of(replace(job, fingerprint="another"))
