"""A finished store that was copied to S3: commands answer as on the disk."""

from __future__ import annotations

from pathlib import Path

from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo
from tests.results.places import Place, upload

READING = (
    ("top", SWEEP, "-n", "4"),
    ("top", SWEEP, "--where", "overall < 0.7 AND adapter/rank in (2, 4)"),
    ("show", SWEEP, "4"),
    ("query", "SELECT sweep, trial, state, overall, adapter/rank FROM trials ORDER BY trial"),
    ("query", "SELECT task, split, count(*) AS n FROM predictions GROUP BY ALL ORDER BY ALL", "--sweep", SWEEP),
    ("ensemble", SWEEP, "--size", "2", "--name", "pair"),
    ("status", SWEEP),
    ("list",),
)


def test_commands_answer_as_on_the_disk(tmp_path: Path, s3: Place) -> None:
    stored.make(tmp_path / "runs")
    upload(tmp_path / "runs", s3.store())
    for arguments in READING:
        here = answer(*arguments, store=tmp_path / "runs")
        there = answer(*arguments, store=s3.uri)
        assert here == there, arguments
    assert "0.7583" in hpo("top", SWEEP, "--store", s3.uri).stdout
