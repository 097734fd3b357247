"""`sweep.json`: records of earlier versions, damaged records, and what must be equal on a resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.resources import ResourceRequest, Resources
from hpo.launch.prepare import prepare
from hpo.launch.record import MismatchError, RecordError, SweepRecord, check_same, job_of, record_of
from hpo.launch.relaunch import plan_again, total_of
from hpo.launch.request import LaunchError, Relaunch
from hpo.launch.typed import FieldError
from hpo.search.records import to_record
from hpo.search.schedulers import Asha, scheduler_from
from hpo.search.searchers import Changes
from results.places import locate
from results.store import Store
from tests.hpo import stored
from tests.hpo.conftest import FAKES, launch, written

OLD = json.loads("""{
 "name": "old",
 "space": {"optimizer": {"head_lr": {"$float": {"low": 0.0003, "high": 0.01, "log": true}}}},
 "space_hash": "b4c744882d3cab0d795f1b76e3d3f0540da0560839b568db81b7014cd99f4be5",
 "pinned": {}, "start": [], "seed": 0, "trials": 5, "budget": 900, "eta": 4, "milestones": [100, 300, 900],
 "workers": 2, "cpus_per_trial": 1, "gpus_per_trial": 0.0, "keep": 2,
 "data": {"folder": null, "fingerprint": "ade40e5eceb33dadb2ede088c5877211ab68ab517706247492f05df4e8806c70"},
 "base": {
  "asked": "tiny", "name": "tiny", "sha256": "350ea7c36d5b1a2d7618e5427773a2b2d95d09f280ccc3afe4bae5f0e5f9180d"
 },
 "search_sizes": {"sst": 100, "sts": 100},
 "tasks": {
  "sst": {"kind": "classification", "classes": 5, "metric": "accuracy", "weight": 1.0, "low": 0, "high": 4,
          "leaderboard": ["sst", "Predicted_Sentiment"]},
  "sts": {"kind": "regression", "classes": 1, "metric": "pearson", "weight": 1.0, "low": 0, "high": 5,
          "leaderboard": ["sts", "Predicted_Similiary"]}
 },
 "versions": {"python": "3.11.7", "ray": "2.60.0"}, "config_version": 4,
 "argv": ["run", "quickstart", "--checkpoint", "tiny"], "created": 1795746412.741969
}""")
"""A record as an earlier version wrote it: without trainer, searcher and scheduler, with one size for all reports."""


def test_a_record_of_an_earlier_version_gets_the_values_that_sweeps_had_then() -> None:
    record = SweepRecord.from_json(OLD)
    assert record.trainer == "hpo.worker.trainer"
    assert record.searcher == {"name": "tpe", "startup": 8}
    assert record.scheduler == {"name": "asha", "eta": 4, "grace": 100}
    assert scheduler_from(record.scheduler) == Asha(eta=4, grace=100)
    assert record.report_rows == ({"sst": 100, "sts": 100},) * 3
    assert record.evaluation_version == 1
    assert record.data.inputs == {}
    assert record.exempt == (), "every trial was raced"
    assert record.repeats == 0
    assert record.objectives == ("overall",)
    assert record.resources == ResourceRequest(2, 1, 0.0)
    assert record.milestones == (100, 300, 900)
    assert record.tasks["sts"].leaderboard == ("sts", "Predicted_Similiary")
    assert record.unknown == {}
    assert SweepRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_time_in_iso_8601_is_read_as_seconds() -> None:
    assert SweepRecord.from_json({**OLD, "created": "2026-01-02T03:04:05+00:00"}).created == 1767323045.0
    with pytest.raises(FieldError, match="`created` must be seconds since 1970 or ISO 8601, not 'today'"):
        SweepRecord.from_json({**OLD, "created": "today"})


def test_fields_of_a_later_version_are_kept_and_ignored() -> None:
    record = SweepRecord.from_json({**OLD, "objective": {"name": "pareto"}})
    assert record.unknown == {"objective": {"name": "pareto"}}
    assert record.to_json()["objective"] == {"name": "pareto"}
    assert replace(record, unknown={}) == SweepRecord.from_json(OLD)


def without(path: str) -> dict[str, Any]:
    values = json.loads(json.dumps(OLD))
    *groups, name = path.split(".")
    inner = values
    for group in groups:
        inner = inner[group]
    del inner[name]
    return dict(values)


@pytest.mark.parametrize("path", ["seed", "milestones", "data.fingerprint", "base.sha256", "tasks.sst.metric"])
def test_a_missing_field_is_named_by_its_path(path: str) -> None:
    with pytest.raises(FieldError, match=f"it lacks `{path}`"):
        SweepRecord.from_json(without(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": "5"}, "`trials` must be an integer, not '5'"),
        ({"seed": True}, "`seed` must be an integer, not True"),
        ({"name": None}, "`name` must be text, not None"),
        ({"milestones": [100, "300"]}, r"`milestones\.1` must be an integer, not '300'"),
        ({"milestones": []}, r"`milestones` must name at least the budget, not \[\]"),
        ({"data": []}, r"`data` must be an object, not \[\]"),
        ({"search_sizes": {"sst": 1.5}}, r"`report_rows\.0\.sst` must be an integer, not 1\.5"),
        ({"tasks": {"sst": OLD["tasks"]["sst"] | {"leaderboard": ["sst"]}}}, r"`tasks\.sst\.leaderboard` .* list of 2"),
        ({"workers": 0}, "`workers` must be an integer of at least 1, not 0"),
        ({"scheduler": ["asha"]}, r"`scheduler` must be an object, not \['asha'\]"),
        ({"milestones": [100, 50]}, r"`milestones` must be ascending numbers of examples, not \[100, 50\]"),
        ({"exempt": [0, 1]}, "`exempt` must name trials that are not drawn, 0 to 0, not 1"),
        ({"keep": 0}, "`keep` must be at least 1, not 0"),
        ({"repeats": -1}, "`repeats` must be at least 0, not -1"),
        ({"report_rows": [{"sst": 9}]}, "`report_rows` must be a list of 3, one for each milestone"),
        ({"search_sizes": None}, r"`report_rows\.0` must be an object, not None"),
        ({"tasks": {}}, "`tasks` must name at least one task"),
        ({"objectives": ["overall", "seconds"]}, "`objectives`: .*write `-seconds`"),
        ({"objectives": ["sst"]}, "`objectives`: The first objective decides .* has to be `overall`, not `sst`"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_must_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        SweepRecord.from_json({**OLD, **changes})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = stored.make(tmp_path)
    (folder.path / "sweep.json").write_text(json.dumps(without("space")))
    with pytest.raises(RecordError, match=r"small-1/sweep.json` is damaged or foreign: it lacks `space`\."):
        record_of(Store(tmp_path).open("small-1"))


CHANGES: dict[str, dict[str, Any]] = {
    "search space": {"space_hash": "changed"},
    "configuration version": {"config_version": 1},
    "evaluation version": {"evaluation_version": 2},
    "declaration of the tasks": {"tasks": {}},
}


@pytest.mark.parametrize("words", CHANGES)
def test_what_makes_trials_incomparable_is_refused(words: str) -> None:
    record = SweepRecord.from_json(OLD)
    check_same(record, record)
    with pytest.raises(ValueError, match=f"sweep 'old' began with another {words}.*another name"):
        check_same(record, replace(record, **CHANGES[words]))


def test_long_values_are_cut_around_their_first_difference() -> None:
    record = SweepRecord.from_json(OLD)
    tasks = dict(record.tasks) | {"sts": replace(record.tasks["sts"], weight=0.5)}
    with pytest.raises(MismatchError) as error:
        check_same(record, replace(record, tasks=tasks))
    before, after = str(error.value).split(": ", 1)[1].split(". Its trials")[0].split(", now ")
    assert max(len(before), len(after)) <= 80
    assert "weight=1.0" in before
    assert "weight=0.5" in after


def test_other_data_and_weights_are_refused() -> None:
    record = SweepRecord.from_json(OLD)
    with pytest.raises(ValueError, match=r"began with another data in the sample corpus \(fingerprint\): ade4"):
        check_same(record, replace(record, data=replace(record.data, fingerprint="other")))
    with pytest.raises(ValueError, match=r"began with another base weights tiny \(SHA-256\): 350e"):
        check_same(record, replace(record, base=replace(record.base, sha256="other")))


def test_a_relaunch_changes_what_it_may_and_nothing_else(tmp_path: Path) -> None:
    record = written(prepare(launch(tmp_path)))
    resources = ResourceRequest(cpus_per_trial=2)
    request = replace(FAKES, time=60.0, address="auto", resources=resources, keep=3)
    plan = plan_again(str(tmp_path), record, 12, request)
    assert (plan.trials, plan.time, plan.address, plan.resources) == (12, 60.0, "auto", None)
    assert plan.record == replace(record, keep=3, resources=ResourceRequest(1, 2, 0.0))


def test_a_stored_trainer_runs_only_if_the_caller_names_it(tmp_path: Path) -> None:
    record = written(prepare(launch(tmp_path)))
    assert record.trainer == "tests.hpo.fakes"
    with pytest.raises(RecordError, match=r"names the trainer 'tests\.hpo\.fakes', which is not hpo\.worker\.trainer"):
        plan_again(str(tmp_path), record, 8, Relaunch())
    with pytest.raises(RecordError, match="names the trainer"):
        job_of(record, locate(tmp_path), Resources())
    assert plan_again(str(tmp_path), record, 8, FAKES).trainer == record.trainer
    assert job_of(record, locate(tmp_path), Resources(), trainer=record.trainer).trainer == record.trainer


def test_a_total_never_shrinks() -> None:
    record = SweepRecord.from_json(OLD)
    assert total_of(8, Relaunch(), record) == 8
    assert total_of(8, Relaunch(trials=9), record) == 9
    with pytest.raises(LaunchError, match="sweep 'old' has 8 trials, a total of 7 would be fewer"):
        total_of(8, Relaunch(trials=7), record)


def test_a_new_sweep_records_its_trainer_searcher_and_scheduler(tmp_path: Path) -> None:
    content = written(prepare(launch(tmp_path, eta=2, budget=800))).to_json()
    assert content["trainer"] == "tests.hpo.fakes"
    assert content["searcher"] == to_record(Changes())
    assert content["scheduler"] == {"name": "asha", "eta": 2, "grace": 100}
    content = written(prepare(launch(tmp_path, searcher="random", scheduler="none", grace=None))).to_json()
    assert (content["searcher"], content["scheduler"]) == ({"name": "random"}, {"name": "none"})
