"""What `hpo gc` deleted or would delete: a row for each sweep and kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from hpo.display import tables
from hpo.display.units import size
from hpo.driver.upkeep import Upkeep


def rows(freed: Sequence[Upkeep]) -> list[dict[str, Any]]:
    """One row for each place and kind: number of files and folders, bytes on the disk."""
    found: dict[tuple[str, str], list[int]] = {}
    for upkeep in freed:
        for item in upkeep.waste:
            found.setdefault((upkeep.place, item.kind), []).append(item.size)
    return [
        {"place": place, "kind": kind, "items": len(sizes), "bytes": sum(sizes)}
        for (place, kind), sizes in found.items()
    ]


def show(freed: Sequence[Upkeep], dry_run: bool, console: Console) -> None:
    """Print the table, the sweeps that were left alone, and the sum."""
    listed = rows(freed)
    if listed:
        console.print(tables.rich_table([{**row, "bytes": size(row["bytes"])} for row in listed]))
    for upkeep in freed:
        if upkeep.left_alone:
            console.print(f"{upkeep.place} is left alone: {upkeep.left_alone}", style="yellow", soft_wrap=True)
    total = size(sum(row["bytes"] for row in listed))
    console.print(f"would free {total}; --dry-run deletes nothing" if dry_run else f"freed {total}")


def to_json(freed: Sequence[Upkeep], dry_run: bool) -> dict[str, Any]:
    """The same for programs."""
    listed = rows(freed)
    return {
        "dry_run": dry_run,
        "bytes": sum(row["bytes"] for row in listed),
        "rows": listed,
        "left_alone": {upkeep.place: upkeep.left_alone for upkeep in freed if upkeep.left_alone},
    }
