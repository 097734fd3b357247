"""The output of `hpo run --dry-run`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpo.display import dry_run
from hpo.display.units import amount
from hpo.launch.plan import CostSpread, Plan, StageWork
from hpo.launch.prepare import prepare
from hpo.launch.request import Launch


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    store = tmp_path_factory.mktemp("store")
    return prepare(Launch("quickstart", base="tiny", store=str(store), trials=4, budget=300))


def test_the_expected_time_says_what_it_counts_and_what_it_leaves_out(plan: Plan) -> None:
    assert dry_run.facts(plan)["time"] == "unknown"
    time = dry_run.facts(replace(plan, preview=replace(plan.preview, seconds=90.0)))["time"]
    assert time == (
        "about 1m 30s of training and evaluation; not counted: start-up, predictions of the chosen trials at the end"
    )
    stages = (StageWork("mlm", (10, 10), (3, 6), (4, 4), (8, 16), 0.25),)
    staged = replace(plan, preview=replace(plan.preview, seconds=90.0, stages=stages))
    assert "start-up, stages (below), predictions" in dry_run.facts(staged)["time"]
    told = (
        "MLM 10 rows, 3 to 6 steps of 4, as long as 8 to 16 examples, in 25% of the priors' draws; "
        "each distinct chain once"
    )
    assert dry_run.facts(staged)["stages"] == told
    timed = replace(staged, preview=replace(staged.preview, example_seconds=5.0))
    assert "steps of 4, about 40s to 1m 20s, in 25% of the priors' draws" in dry_run.facts(timed)["stages"]


def test_objectives_are_told_with_what_the_first_decides(plan: Plan) -> None:
    assert dry_run.facts(plan)["objectives"] == "overall"
    several = replace(plan, record=replace(plan.record, objectives=("overall", "-seconds", "sst")))
    assert dry_run.facts(several)["objectives"] == (
        "overall, which decides rungs, ranks and the answer; -seconds, sst"
    )


def test_the_spread_of_costs_is_told_where_it_is_known(plan: Plan) -> None:
    assert "cost of a draw" not in dry_run.facts(plan)
    costs = CostSpread(200, 0.618, 1.204, 3.1, 8.04, 1.5)
    told = dry_run.facts(replace(plan, preview=replace(plan.preview, costs=costs)))["cost of a draw"]
    assert told == (
        "median 1.20, 10% below 0.62, 10% above 3.10, dearest 8.0 times the default configuration's time an example"
    )


def test_the_plan_says_which_trials_are_exempt_and_what_all_are_expected_to_use(plan: Plan) -> None:
    facts = dry_run.facts(plan)
    assert facts["trials"] == "4: the default configuration, 0 given, 3 drawn; exempt from early stopping: 0"
    assert facts["examples"] == f"about {amount(plan.expected_examples)} expected, 1,200 at most"
    all_run = replace(plan, record=replace(plan.record, scheduler={"name": "none"}))
    assert dry_run.facts(all_run)["trials"] == "4: the default configuration, 0 given, 3 drawn"
    raced = replace(plan, record=replace(plan.record, exempt=(), start=[{}]))
    assert dry_run.facts(raced)["trials"] == "4: the default configuration, 1 given, 2 drawn"


def test_evaluation_is_told_for_the_first_and_the_last_milestone(plan: Plan) -> None:
    assert plan.record.milestones == (100, 300)
    rows = ({"sst": 30, "qqp": 60}, {"sst": 30, "qqp": 1_200})
    told = dry_run.facts(replace(plan, record=replace(plan.record, report_rows=rows)))["evaluation"]
    assert told == (
        "rows at the first milestone: 30 sst, 60 qqp (23% of the time of a trial that ends there); "
        "at the last: 30 sst, 1,200 qqp (59% of a full trial's time)"
    )
    alone = replace(plan.record, milestones=(300,), report_rows=rows[:1])
    told = dry_run.facts(replace(plan, record=alone))["evaluation"]
    assert told == "rows of the report: 30 sst, 60 qqp (9% of a full trial's time)"


def test_defaults_are_named_by_path_with_the_branch_in_which_they_hold() -> None:
    values = {"adapter.lora/alpha": None, "adapter.lora/bias": "none", "encoding/qqp.cross/head.linear/features": "all"}
    rows = dry_run.defaults(values | {"seed": 3})
    assert [tuple(row.values()) for row in rows] == [
        ("adapter/alpha", "follows other parameters", "adapter/kind = lora"),
        ("adapter/bias", "none", "adapter/kind = lora"),
        ("encoding/qqp/head/features", "all", "encoding/qqp/kind = cross, encoding/qqp/head/kind = linear"),
        ("seed", 3, ""),
    ]


def test_no_default_of_a_plan_names_a_branch_in_its_path(plan: Plan) -> None:
    assert any("." in name for name in plan.preview.defaults), "the plan's own names do"
    assert not [row for row in dry_run.defaults(plan.preview.defaults) if "." in row["parameter"]]


def test_the_plan_says_how_many_repeats_a_fifth_of_the_examples_allows(plan: Plan) -> None:
    assert dry_run.facts(plan)["repeats"] == (
        "about 0 expected, 1 at most, of 300 examples each: the best 3 and the default, up to 2 more runs each, within "
        "a fifth of the sweep's examples"
    )
    long = replace(plan, trials=400)
    assert (long.expected_repeats, long.most_repeats) == (8, 8)
    assert long.expected_cost > replace(long, record=replace(plan.record, repeats=0)).expected_cost
    middle = replace(plan, trials=24)
    assert middle.expected_repeats == min(8, middle.expected_examples // 1200)
    off = replace(plan, record=replace(plan.record, repeats=0))
    assert (off.expected_repeats, off.most_repeats) == (0, 0)
    assert dry_run.facts(off)["repeats"].startswith("none")
