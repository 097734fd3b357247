"""What a filled sweep lacks beside a real one that has ended: repeats, predictions on `held`, and an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.store import history
from hpo.driver.jury import scoring
from hpo.driver.ledger import Ledger
from hpo.search.repeats import REPLICATES, missing
from hpo.search.states import REPEAT
from results import choice, selection
from results.evidence import decoded
from results.predictions import HELD, key
from results.store import SweepFolder

MEMBERS = 5
CANDIDATES = 40
"""Trials from which the ensemble is chosen, as many as a sweep keeps weights of."""


def finish(folder: SweepFolder, reports: int) -> None:
    """Repeat the best configurations and the default, choose an ensemble, predict `held`, estimate and save it.

    `reports`: number of reports of each trial.
    """
    rng, ledger = np.random.default_rng(1), Ledger.of(folder)
    events = folder.read("trials").to_pylist()
    starts = {row["trial"]: row for row in events if row["event"] == "start"}
    wanted = missing(ledger.runs(), history.BUDGET, REPLICATES)
    with folder.writer() as writer:
        for place, repeat in enumerate(wanted):
            begun = events[-1]["time"] + place * reports
            number, steps = len(ledger.trials) + place, history.milestones(reports)
            own = {name: starts[repeat.of][name] for name in ("config", "params", "config_id")}
            own |= {"origin": REPEAT, "replicate": repeat.replicate}
            for second, row in enumerate(history.trial(number, own, steps, history.evidence(rng), fate=2)):
                writer.append(row.table, row.values | {"time": begun + second}, row.evidence)
    score = scoring(folder)
    chosen = choice.select(folder, score, method="greedy", size=MEMBERS, trials=[0, *ledger.ranking()[:CANDIDATES]])
    for trial in chosen.trials:
        folder.write_table("predictions", predictions(trial, rng), key(trial, 0, HELD))
    selection.conclude(folder, score, chosen)


def predictions(trial: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Random predictions of a trial for `held`."""
    for task, drawn in history.evidence(rng, history.HELD).items():
        values, chances = decoded(drawn)
        for place, value in enumerate(values.tolist()):
            row = {"task": task, "split": "held", "row": history.SEARCH[task] + place, "value": value}
            chance = None if chances is None else chances[place].tolist()
            yield {"trial": trial, "attempt": 0, **row, "probabilities": chance}
