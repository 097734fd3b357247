"""The status of a sweep: a watch that reads new rows shows what a first look at all rows shows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hpo.display.status import Watch, read
from hpo.driver import generations
from hpo.driver.quarantines import QuarantineLog
from results.store import Store
from tests.hpo.cli import hpo
from tests.hpo.stored import record
from tests.results.test_fold import rows


@pytest.mark.parametrize("seed", range(3))
def test_a_later_look_shows_what_a_first_look_shows(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    folder = Store(tmp_path).create("s", record("s", 99).to_json())
    histories = [rows(chance, trial) for trial in range(20)]
    for history in histories:  # a look knows no row that was written twice
        history[:] = [row for before, row in zip([None, *history], history, strict=False) if row != before]
    watch = Watch(folder)
    for _ in range(3):
        with folder.writer(period=3600) as writer:
            for _ in range(6):
                for history in chance.sample(histories, 8):
                    if history:
                        writer.append(*history.pop(0))
                writer.barrier()
                if chance.random() < 0.3:
                    folder.compact()
                assert repr(watch.look()) == repr(read(Store(tmp_path).open("s")))
    assert len(watch.look().rungs) == 2
    assert sum(watch.look().counts.values()) > 10


def test_the_rate_counts_the_reports_of_the_last_minutes(tmp_path: Path) -> None:
    """Reports before the first look count for the rate as later ones do."""
    from tests.results.samples import report, start

    folder = Store(tmp_path).create("s", record("s").to_json())
    generation = generations.claim(folder.folder)
    try:
        with folder.writer() as writer:
            writer.append("trials", start(0))
            writer.append("reports", report(0, 100, 0.5))
            writer.barrier()
            watch = Watch(folder)
            assert watch.look().examples_per_second > 0
            writer.append("reports", report(0, 300, 0.5))
            writer.barrier()
            assert watch.look().budget_examples_used == 301
    finally:
        generation.end()


def test_a_running_sweep_names_its_quarantines(tmp_path: Path) -> None:
    """From the store, so that another process than the driver shows them."""
    folder = Store(tmp_path).create("s", record("s").to_json())
    generation = generations.claim(folder.folder)
    try:
        log = QuarantineLog(folder.folder, generation.number, pytest.fail)
        log.follow(dict.fromkeys(("n0 GPU 3", "n1"), "2 trials failed there alike: CUDA error"))
        told = "in quarantine: n0 GPU 3, n1: 2 trials failed there alike: CUDA error"
        assert read(Store(tmp_path).open("s")).messages == (told,)
        assert told in " ".join(hpo("status", "s", store=tmp_path).stdout.split())
        log.follow({})
        assert read(folder).messages == ()
    finally:
        generation.end()
