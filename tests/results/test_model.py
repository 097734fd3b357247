"""The store compared with a model, a plain list, under random histories of writes, crashes, merges and deletions."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from results import compaction
from results.store import Store, StoreError, Writer
from tests.results.samples import report, start, sweep


def write(writer: Writer, trial: int) -> None:
    """Append a row and commit it. A superseded writer fails at the barrier, and at each later append."""
    writer.append("trials", start(trial))
    writer.barrier()


@pytest.mark.parametrize("seed", range(4))
def test_random_histories(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    folder = sweep(tmp_path)
    writer = folder.writer(period=3600)  # only barriers commit
    zombies: list[Writer] = []
    durable: list[tuple[int, str, int]] = []
    waiting: list[tuple[int, str, int]] = []
    for number in range(60):
        action = chance.choices(["append", "barrier", "crash", "zombie", "compact", "discard"], [50, 20, 5, 5, 8, 5])[0]
        if action == "append":
            table = chance.choice(["trials", "reports"])
            row = start(number) if table == "trials" else report(number, 100, 0.5)
            waiting.append((writer.append(table, row), table, number))
        elif action == "barrier":
            assert writer.barrier() == writer.durable_seq
            durable, waiting = durable + waiting, []
        elif action == "crash":
            zombies.append(writer)
            writer, waiting = folder.writer(period=3600), []
            assert writer.continued_from == (durable[-1][0] if durable else 0)
        elif action == "zombie" and zombies:
            with pytest.raises(StoreError, match="has begun"):
                write(chance.choice(zombies), 1000 + number)
        elif action == "compact":
            folder.compact(fewest=chance.choice([2, 4]))
        elif action == "discard":
            for name in ("trials", "reports"):
                compaction.discard(folder.folder.child(name), name, now=time.time() + 1e4)
        if number % 2:
            continue
        reader = Store(tmp_path / "runs").open("one")
        assert [(row["seq"], row["table"], row["trial"]) for row in reader.events()] == durable
        assert reader.warnings == []
    seqs = [seq for seq, _, _ in durable]
    assert seqs == sorted(set(seqs))
    assert len(durable) > 5
