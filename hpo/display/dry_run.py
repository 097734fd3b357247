"""What `hpo run --dry-run` prints: all that is known of a sweep before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from hpo.display import tables
from hpo.display.units import amount, duration, plural
from hpo.launch.plan import Plan, Range, StageWork
from hpo.space.check import describe
from hpo.space.tree import flatten

PROBLEMS = 20
"""Skipped rows of the corpus that are listed; the rest is counted."""


def show_plan(plan: Plan, console: Console) -> None:
    """The plan as tables, then its expected cost."""
    tables.show(parameters(plan), console, title="search space")
    console.print()
    tables.show([{"parameter": path, "default": value} for path, value in plan.defaults.items()], console,
                title="defaults taken (not in the space)", empty="no defaults taken")  # fmt: skip
    console.print()
    tables.show([{"task": task} | dict(rows) for task, rows in plan.sizes.items()], console, title="rows of the data")
    for line in plan.problems[:PROBLEMS]:
        console.print(f"note: {line}", style="yellow")
    if len(plan.problems) > PROBLEMS:
        console.print(f"and {plural(len(plan.problems) - PROBLEMS, 'more row')}", style="yellow")
    for line in plan.notes:
        console.print(f"note: {line}", style="yellow")
    console.print()
    tables.show_facts(facts(plan), console, title="what would run")


def parameters(plan: Plan) -> list[dict[str, str]]:
    """One row a parameter: what it may be, the branch in which it exists, fixed or drawn."""
    rows = describe(plan.space, plan.pinned)
    return [{"parameter": row["path"], "domain": row["domain"], "only where": row["when"]} for row in rows]


def facts(plan: Plan) -> dict[str, str]:
    """Single numbers and words of a plan, ready to print."""
    resources = plan.resources
    machine = "chosen when the cluster is reached"
    if resources is not None:
        gpus = f" and {resources.gpus_per_trial:g} GPU" if resources.gpus_per_trial else ""
        machine = f"{plural(resources.workers, 'worker')}, {plural(resources.cpus_per_trial, 'CPU')}{gpus} each"
    return {
        "sweep": f"{plan.name} in {plan.store}",
        "data": plan.data or "the sample corpus",
        "encoder": plan.base_name,
        "trials": f"{plan.trials}: the default configuration, {len(plan.start)} given, "
        f"{plan.trials - 1 - len(plan.start)} drawn",
        "seed": str(plan.seed),
        **_pinned(plan.pinned),
        **_left_out(plan.left_out),
        "milestones": " ".join(f"{step:,}" for step in plan.milestones) + f" examples, {plan.scheduler.rule}",
        "examples": f"about {amount(plan.expected_examples)} expected, {amount(plan.most_examples)} at most",
        "evaluation": _sizes(plan.search_sizes) + f" a report: {plan.evaluation_share:.0%} of a full trial's time",
        "resources": machine,
        "time": f"about {duration(plan.seconds)}" if plan.seconds else "unknown",
        **_stages(plan),
    }


def _stages(plan: Plan) -> dict[str, str]:
    """What the time leaves out."""
    words = "; ".join(stage_words(work) for work in plan.stages)
    return {"stages": f"{words}; each distinct chain once, beside the time above"} if words else {}


def stage_words(work: StageWork) -> str:
    """`MLM 1,800 rows, 56 to 169 steps of 32`."""
    return f"{work.kind.upper()} {_range(work.rows)} rows, {_range(work.steps)} steps of {_range(work.batch_size)}"


def _range(bounds: Range) -> str:
    low, high = bounds
    return amount(low) if low == high else f"{amount(low)} to {amount(high)}"


def _pinned(pinned: Mapping[str, Any]) -> dict[str, str]:
    words = ", ".join(f"{path} = {tables.cell(value)}" for path, value in flatten(pinned).items())
    return {"pinned": words} if words else {}


def _left_out(names: tuple[str, ...]) -> dict[str, str]:
    return {"left out": f"{'; '.join(names)} (of tasks that this sweep does not have)"} if names else {}


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{size:,} {task}" for task, size in sizes.items())
