"""The search and the store's views count the same report when two attempts have reported at one step."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from results.query import query
from tests.hpo.simulation import CURVES, Cluster, Faults, new_sweep
from tests.results.samples import sweep


@pytest.mark.parametrize("seed", range(3))
def test_the_search_and_sql_count_the_same_report_of_a_step(tmp_path: Path, seed: int) -> None:
    live = new_sweep(trials=12, seed=seed)
    cluster = Cluster(live, CURVES[seed], Faults(lose=0.2, pause=0.2), seed)
    rows = []
    for row in cluster.run():
        rows.append(row)
        if "step" in row and math.isfinite(row["overall"]):
            rows.append({**row, "attempt": row["attempt"] + 1, "overall": row["overall"] / 2})
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        for row in rows:
            writer.append(row["table"], {name: row[name] for name in row.keys() - {"seq", "table"}})

    again = new_sweep(trials=12, seed=seed)
    again.replay(folder.events())
    counted = {(trial, step): value for trial, record in again.records.items() for step, value in record.values.items()}
    shown = query(folder, "SELECT trial, step, overall FROM reports").itertuples(index=False)
    assert {(int(trial), int(step)): value for trial, step, value in shown} == counted
    assert len(counted) * 2 == query(folder, "SELECT count(*) AS n FROM attempt_reports")["n"][0]
