"""The machines of a cluster as `hpo doctor` shows them: one row each, then what is wrong with them and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from hpo.cluster.devices import Gpu
from hpo.cluster.verdict import Answer, Finding
from hpo.display import tables
from hpo.display.units import plural, size

Judged = Sequence[tuple[Answer, Sequence[Finding]]]
"""Each machine's answer, and what is wrong with it."""


def ready(judged: Judged) -> bool:
    """Whether sweeps can run: the driver's machine has no problem, and a machine that runs trials has none."""
    good = {answer.node: not any(finding.refuses for finding in found) for answer, found in judged}
    return all(good[node] for node in good if not node.cpus) and any(good[node] for node in good if node.cpus)


def show(judged: Judged, free: Mapping[str, float], console: Console) -> None:
    """Print the table and the findings. `free`: CPUs and GPUs of the whole cluster that nothing takes now."""
    console.print(tables.rich_table([_row(answer, found) for answer, found in judged]))
    for answer, found in judged:
        for finding in found:
            kind = "problem" if finding.refuses else "warning"
            style = "red" if finding.refuses else "yellow"
            console.print(f"\n{kind}: {answer.node.name} {finding.what}", style=style, soft_wrap=True)
            console.print(f"  to do: {finding.remedy}", soft_wrap=True)
    cpus, gpus = (sum(getattr(answer.node, kind) for answer, _ in judged) for kind in ("cpus", "gpus"))
    now = f"free now: {free.get('CPU', 0.0):g} of {cpus:g} CPUs, {free.get('GPU', 0.0):g} of {gpus:g} GPUs"
    waits = "; trials wait for the others" if free.get("CPU", 0.0) < cpus or free.get("GPU", 0.0) < gpus else ""
    console.print(f"\n{now}{waits}", style="dim")
    console.print(_conclusion(judged))


def _conclusion(judged: Judged) -> str:
    if not ready(judged):
        return "sweeps cannot run here"
    closed = [answer.node.name for answer, found in judged if any(finding.refuses for finding in found)]
    return f"sweeps can run, without trials on {', '.join(closed)}" if closed else "sweeps can run"


def to_json(judged: Judged, free: Mapping[str, float]) -> dict[str, Any]:
    """All that is known, for programs."""
    machines = [
        {
            "machine": answer.node.name,
            "ready": not any(finding.refuses for finding in found),
            "cpus": answer.node.cpus,
            "gpus": answer.node.gpus,
            "clock_seconds_ahead": answer.clock,
            "facts": answer.facts and asdict(answer.facts),
            "findings": [asdict(finding) for finding in found],
        }
        for answer, found in judged
    ]
    return {
        "ready": ready(judged),
        "free": {name: free.get(name, 0.0) for name in ("CPU", "GPU")},
        "machines": machines,
    }


def _row(answer: Answer, found: Sequence[Finding]) -> dict[str, Any]:
    row: dict[str, Any] = {"machine": answer.node.name, "verdict": _verdict(found)}
    row |= {"CPUs": answer.node.cpus, "GPUs": answer.node.gpus}
    if (facts := answer.facts) is not None:
        devices = facts.gpus or []
        row |= {"devices": _devices(devices), "driver": ", ".join(sorted({gpu.driver for gpu in devices}))}
        row |= {"clock": f"{answer.clock:+.1f} s"}
        row |= {"free for store": size(facts.store_free), "free for temporary": size(facts.temporary_free)}
    return row


def _verdict(found: Sequence[Finding]) -> str:
    problems = sum(finding.refuses for finding in found)
    if problems:
        return plural(problems, "problem")
    return f"ready, {plural(len(found), 'warning')}" if found else "ready"


def _devices(gpus: Sequence[Gpu]) -> str:
    """`2 NVIDIA H100 80GB HBM3 (79.6 GiB)`."""
    counted = Counter((gpu.name, gpu.memory) for gpu in gpus)
    return ", ".join(f"{count} {name} ({size(memory)})" for (name, memory), count in counted.items())
