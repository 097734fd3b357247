"""A finished store that was copied to S3: commands that read its tables answer as on the disk, others refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo, refused
from tests.results.conftest import s3, s3_server
from tests.results.places import Place, upload

__all__ = ["s3", "s3_server"]

READING = (
    ("top", SWEEP, "-n", "4"),
    ("top", SWEEP, "--where", "overall < 0.7 AND adapter/rank in (2, 4)"),
    ("show", SWEEP, "4"),
    ("query", "SELECT sweep, trial, state, overall, adapter/rank FROM trials ORDER BY trial"),
    ("query", "SELECT task, split, count(*) AS n FROM predictions GROUP BY ALL ORDER BY ALL", "--sweep", SWEEP),
    ("ensemble", SWEEP, "--size", "2", "--name", "pair"),
)


def test_commands_that_read_tables_answer_as_on_the_disk(tmp_path: Path, s3: Place) -> None:
    stored.make(tmp_path / "runs")
    upload(tmp_path / "runs", s3.store())
    for arguments in READING:
        here = answer(*arguments, store=tmp_path / "runs")
        there = answer(*arguments, store=s3.uri)
        assert here == there, arguments
    assert "0.7583" in hpo("top", SWEEP, "--store", s3.uri).stdout


@pytest.mark.parametrize("command", ["status", "stop", "resume", "extend", "logs", "rm"])
def test_commands_that_need_plain_files_say_so(tmp_path: Path, s3: Place, command: str) -> None:
    stored.make(tmp_path / "runs")
    upload(tmp_path / "runs", s3.store())
    more = {"logs": ["0"], "rm": ["--yes"], "extend": ["--trials", "9"]}.get(command, [])
    message = refused(hpo(command, SWEEP, *more, "--store", s3.uri))
    assert s3.uri in message
    assert "shared file system" in message
    assert s3.store().sweeps() == [SWEEP]


def test_a_sweep_is_not_run_into_an_object_store(s3: Place) -> None:
    message = refused(hpo("run", "quickstart", "--trials", "1", "--store", s3.uri))
    assert "`store` must be a folder" in message
    assert s3.store().sweeps() == []


def test_list_names_what_it_skips(tmp_path: Path, s3: Place) -> None:
    stored.make(tmp_path / "runs")
    upload(tmp_path / "runs", s3.store())
    done = hpo("list", "--store", s3.uri)
    assert done.exit_code == 0
    assert f"{s3.uri}/{SWEEP} is skipped" in " ".join(done.stderr.split())
