"""Output of `hpo run --dry-run`: the plan of a sweep before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from hpo.display import tables
from hpo.display.units import amount, duration, plural
from hpo.launch.plan import Plan, Preview, Range, StageWork
from hpo.launch.record import SweepRecord
from hpo.search.repeats import FINALISTS
from hpo.space.tree import path_of

PROBLEMS = 20
"""Largest number of notes on the data that are listed; further ones are only counted."""


def show_plan(plan: Plan, console: Console) -> None:
    """Print the plan as tables, then its expected cost."""
    tables.show(parameters(plan), console, title="search space")
    console.print()
    title = "defaults taken (parameters that the space does not vary)"
    tables.show(defaults(plan.preview.defaults), console, title=title, empty="no defaults taken")
    console.print()
    sizes = [{"task": task} | dict(rows) for task, rows in plan.preview.sizes.items()]
    tables.show(sizes, console, title="rows of each task")
    for problem in plan.preview.problems[:PROBLEMS]:
        console.print(f"note: {problem}", style="yellow")
    if len(plan.preview.problems) > PROBLEMS:
        console.print(f"and {plural(len(plan.preview.problems) - PROBLEMS, 'more note')} on the data", style="yellow")
    for note in plan.preview.notes:
        console.print(f"note: {note}", style="yellow")
    console.print()
    tables.show_facts(facts(plan), console, title="what would run")


def parameters(plan: Plan) -> list[dict[str, str]]:
    """One row a parameter: its domain, and the branch in which it exists."""
    rows = plan.space.describe()
    return [{"parameter": row["path"], "domain": row["domain"], "only where": row["when"]} for row in rows]


FOLLOWS = "follows other parameters"
"""Default of a parameter whose value is null in a configuration, such as LoRA's alpha, twice the rank."""


def defaults(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a default: parameter, value, and the branch in which it applies."""
    return [
        {
            "parameter": path_of(name),
            "default": FOLLOWS if value is None else value,
            "only where": _branch_of(name),
        }
        for name, value in values.items()
    ]


def _branch_of(name: str) -> str:
    """The branch of a parameter: `adapter/kind = lora` for `adapter.lora/bias`."""
    parts = name.split("/")
    kinds = [(path_of("/".join(parts[: end + 1])), part.partition(".")[2]) for end, part in enumerate(parts)]
    return ", ".join(f"{path}/kind = {kind}" for path, kind in kinds if kind)


def facts(plan: Plan) -> dict[str, str]:
    """The single facts of a plan, as text by their names."""
    record, preview, resources = plan.record, plan.preview, plan.resources
    machines = "chosen when Ray has started"
    if resources is not None:
        gpus = f" and {resources.gpus_per_trial:g} GPU" if resources.gpus_per_trial else ""
        machines = f"{plural(resources.workers, 'worker')}, {plural(resources.cpus_per_trial, 'CPU')}{gpus} each"
    return {
        "sweep": f"{plan.name} in {plan.store}",
        "data": record.data.place,
        "encoder": record.base.name,
        "trials": _trials(plan),
        "searcher": plan.searcher.name,
        "scheduler": f"{plan.scheduler.name}: {plan.scheduler.rule}",
        "objectives": objectives(record.objectives),
        "seed": str(record.seed),
        **_pinned(plan.space.pins),
        **_left_out(preview.left_out),
        "milestones": " ".join(f"{step:,}" for step in record.milestones) + " examples",
        "examples": f"about {amount(plan.expected_examples)} expected, {amount(plan.most_examples)} at most",
        "repeats": _repeats(plan),
        "evaluation": _evaluation(record),
        "resources": machines,
        **_costs(preview),
        "time": _time(preview),
        **_stages(plan),
    }


def _trials(plan: Plan) -> str:
    """`24: the default configuration, 2 given, 21 drawn; exempt from early stopping: 0, 2`."""
    given, exempt = len(plan.record.start), ", ".join(map(str, plan.record.exempt))
    kinds = f"{plan.trials}: the default configuration, {given} given, {plan.trials - 1 - given} drawn"
    stops = "stopped" in plan.scheduler.columns
    return f"{kinds}; exempt from early stopping: {exempt}" if exempt and stops else kinds


def objectives(names: Sequence[str]) -> str:
    """`overall, which decides rungs, ranks and the answer; -seconds`."""
    first, *others = names
    return f"{first}, which decides rungs, ranks and the answer; {', '.join(others)}" if others else first


def _repeats(plan: Plan) -> str:
    """`about 2 expected, 5 at most, of 20,000 examples each: ...`."""
    replicates, budget = plan.record.repeats, plan.record.budget
    if not replicates:
        return "none: the best trial at full budget is compared with the default by one run each"
    number = f"about {plan.expected_repeats} expected, {plan.most_repeats} at most, of {amount(budget)} examples each"
    rule = f"the best {FINALISTS} and the default, up to {plural(replicates, 'more run')} each"
    return f"{number}: {rule}, within a fifth of the sweep's examples"


def _time(preview: Preview) -> str:
    """The expected time, with what it counts and what it leaves out."""
    if not preview.seconds:
        return "unknown"
    stages = ", stages (below)" if preview.stages else ""
    return (
        f"about {duration(preview.seconds)} of training and evaluation; not counted: start-up{stages}, "
        "predictions of the chosen trials at the end"
    )


def _costs(preview: Preview) -> dict[str, str]:
    """The fact about what draws cost; empty if it is unknown."""
    if (costs := preview.costs) is None:
        return {}
    spread = f"median {costs.median:.2f}, 10% below {costs.low:.2f}, 10% above {costs.high:.2f}"
    return {
        "cost of a draw": f"{spread}, dearest {costs.dearest:.1f} times the default configuration's time an example"
    }


def _stages(plan: Plan) -> dict[str, str]:
    """The fact about the stages before training; empty if there are none."""
    work = "; ".join(stage_words(stage, plan.preview.example_seconds) for stage in plan.preview.stages)
    return {"stages": f"{work}; each distinct chain once"} if work else {}


def stage_words(stage: StageWork, example_seconds: float | None = None) -> str:
    """`MLM 1,800 rows, 56 to 169 steps of 32, about 1m to 3m, in 12% of the priors' draws`."""
    steps = f"{_range(stage.rows)} rows, {_range(stage.steps)} steps of {_range(stage.batch_size)}"
    work = f"as long as {_range(stage.examples)} examples"
    if example_seconds is not None:
        low, high = (duration(examples * example_seconds) for examples in stage.examples)
        work = f"about {low}" if low == high else f"about {low} to {high}"
    return f"{stage.kind.upper()} {steps}, {work}, in {stage.share:.0%} of the priors' draws"


def _range(bounds: Range) -> str:
    low, high = bounds
    return amount(low) if low == high else f"{amount(low)} to {amount(high)}"


def _pinned(pins: Mapping[str, Any]) -> dict[str, str]:
    pinned = ", ".join(f"{path} = {tables.cell(value)}" for path, value in pins.items())
    return {"pinned": pinned} if pinned else {}


def _left_out(names: tuple[str, ...]) -> dict[str, str]:
    return {"left out": f"{'; '.join(names)} (of tasks that this sweep does not have)"} if names else {}


def _evaluation(record: SweepRecord) -> str:
    """The rows of the first and of the last report, and the share of a trial's time that evaluation takes by then."""
    from minbert.training.milestones import evaluation_shares

    rows, shares = record.report_rows, evaluation_shares(record.milestones, record.report_rows)
    last = f"{_sizes(rows[-1])} ({shares[-1]:.0%} of a full trial's time)"
    if len(rows) == 1:
        return f"rows of the report: {last}"
    first = f"{_sizes(rows[0])} ({shares[0]:.0%} of the time of a trial that ends there)"
    return f"rows at the first milestone: {first}; at the last: {last}"


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{size:,} {task}" for task, size in sizes.items())
