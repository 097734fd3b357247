"""The benchmark of ensembles compares like with like: what it times gives the same results."""

from __future__ import annotations

import pytest

from benchmarks import ensembles


def test_the_cases_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles, "PICKS", 8)
    given = ensembles.problem((60, 80, 50), 7)
    assert ensembles.ours_jointly(given) == ensembles.plain_jointly(given)
    assert ensembles.ours_bootstrap(given) == pytest.approx(ensembles.plain_bootstrap(given), abs=1e-12)
    assert all(len(picks) <= 8 for picks in ensembles.ours_by_task(given))


def test_results_are_compared_with_ours() -> None:
    rows = [
        {"part": "dev", "case": "greedy: ours", "seconds": 1.0, "peak": 1.0, "found": [1, 2], "overall": 0.5},
        {"part": "dev", "case": "greedy: plain", "seconds": 1.0, "peak": 1.0, "found": [2, 1], "overall": None},
    ]
    assert ensembles.table(rows).endswith("| no |")
    rows[1]["found"] = [1, 2]
    assert ensembles.table(rows).endswith("| yes |")
