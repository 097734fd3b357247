"""Tables of trials, computed from the store's rows: one row per trial, the best trials, one trial in detail.

If several attempts have reported a step, the tables show the report by which the search went
(`results.reading.report_per_step`). Trials are ranked by (last step, overall): a trial that trained longer ranks above
the trials that were stopped earlier. Diverged and failed trials have no rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from results import costs, noise, predictions, sql
from results.files import StoreError
from results.fold import Fold, columns, fold
from results.looks import look_at_runs
from results.objectives import Objective, gains, undominated
from results.parameters import TEXTS, Wanted, every, parameters, plain
from results.rows import to_rows
from results.scoring import Scoring
from results.store import SweepFolder

Row = dict[str, Any]
UNRANKED = ("diverged", "failed")
"""States of trials without a rank."""
REPEAT = "repeat"
"""Origin of a trial that runs the configuration of another one again."""
TYPES = {
    **dict.fromkeys(("trial", "attempts", "step", "examples"), "int64"),
    **dict.fromkeys(("overall", "seconds", *costs.RATES), "float64"),
    **dict.fromkeys((*costs.COUNTS, "seed", "replicate"), "Int64"),  # nullable: a trial without a report has no cost
    **dict.fromkeys(("state", "checkpoint", "origin", "config_id", "reason", "error"), "str"),
    "kept": "bool",
}
"""Types of the columns that every `trials_frame` has: a column has the same type in every sweep, even an empty one."""


def trials_frame(folder: SweepFolder, wanted: Wanted = every) -> pd.DataFrame:
    """One row per trial, ordered by number; a repeat has a row of its own, and a `replicate` above 0.

    Columns: trial, state, attempts, step, examples, overall, one score for each task (on `search`, at the last step),
    seconds, trainable_parameters, trainable_share, seconds_per_1000, stage_seconds and peak_memory_bytes (see
    `results.costs`), examples_<task>, kept, checkpoint, origin, seed, config_id, replicate, reason, error. Then config
    (JSON), params (JSON: the drawn parameters by path), and one column for each parameter that any trial has drawn,
    named by its path (`adapter/rank`): the value that the trial drew, or else that of its configuration, or null. Of
    these last columns only those that `wanted` chooses. No column has scores on `held`: who ranks or filters by them
    selects on them.
    """
    found = fold(folder)
    return _with_parameters(_facts(folder, found), folder, found, wanted)


def _facts(folder: SweepFolder, found: Fold) -> pd.DataFrame:
    """The table of trials without configurations and parameters."""
    tasks = list(folder.tasks)
    counts = dict.fromkeys((costs.EXAMPLES + task for task in tasks), "Int64")
    frame = columns(found, tasks).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame.astype({**TYPES, **dict.fromkeys(tasks, "float64"), **counts})


def _with_parameters(frame: pd.DataFrame, folder: SweepFolder, found: Fold, wanted: Wanted = every) -> pd.DataFrame:
    """A table of trials with the wanted columns of their parameters."""
    values = parameters(folder, found, wanted, [int(trial) for trial in frame["trial"]])
    return pd.concat([frame.reset_index(drop=True), values.reset_index(drop=True)], axis=1)


def held_scores(folder: SweepFolder, scoring: Scoring, trial: int) -> dict[str, float]:
    """A trial's scores on the rows of `held` on which headlines are estimated, by task, and `overall`; empty if its
    predictions are incomplete. They count as a look (`results.looks`)."""
    predicted = predictions.headline(folder, trial)
    labelled = predictions.labels(folder, ("held",), predictions.common_rows([predicted]))
    held = predictions.aligned(predicted, {task: rows for task, (rows, _) in labelled.items()})
    if held is None or not labelled.keys() >= scoring.metrics.keys():
        return {}
    values = {task: prediction.values for task, prediction in held.items()}
    scores = scoring.scores(values, {task: labels for task, (_, labels) in labelled.items()})
    look_at_runs(folder, [trial])
    return {"overall": scoring.overall(scores), **scores}


def ranking(frame: pd.DataFrame) -> list[int]:
    """Numbers of the ranked trials, best first by (last step, overall); among equals the lower number comes first.

    Diverged and failed trials, trials without a report, and repeats are left out: a repeat belongs to the trial whose
    configuration it runs again.
    """
    out = frame["state"].isin(UNRANKED) | (frame["origin"] == REPEAT)
    ranked = frame[~out.fillna(False).astype(bool) & np.isfinite(frame["overall"].astype(float))]
    ordered = ranked.sort_values(["step", "overall", "trial"], ascending=[False, False, True])
    return [int(trial) for trial in ordered["trial"]]


def top(folder: SweepFolder, n: int = 10, where: str | None = None) -> pd.DataFrame:
    """Rows of the `n` best trials, best first, each with three more columns about the runs of its configuration. The
    parameters are those that any of these trials has drawn.

    `runs`: number of its runs at full budget, repeats included; `mean`: the mean of their `overall`; `like_best`:
    whether noise alone may explain the difference from the best trial's mean, null below the full budget.

    `where`: an SQL condition on the columns of `trials_frame`, such as `overall > 0.6 and adapter/rank >= 8`.
    """
    found = fold(folder)
    frame = _where(with_runs(_facts(folder, found)), where, folder, found)
    return _with_parameters(_rows(frame, ranking(frame)[:n]), folder, found)


def pareto(folder: SweepFolder, objectives: Sequence[Objective], where: str | None = None) -> pd.DataFrame:
    """Rows of the complete trials that no other complete trial dominates (`results.objectives`), best first by the
    first objective, with the columns of `top`. Repeats, and trials without a value of an objective, are left out.

    `where`, as in `top`: only these trials are compared.
    """
    found = fold(folder)
    frame = _where(with_runs(_facts(folder, found)), where, folder, found)
    frame = frame[(frame["state"] == "complete") & (frame["origin"] != REPEAT).fillna(True)]
    values = gains(frame, objectives)
    known = np.isfinite(values).all(axis=1)
    frame, values = frame[known], values[known]
    kept = undominated(values)
    order = np.lexsort((frame["trial"][kept], -values[kept, 0]))
    best = [int(trial) for trial in frame["trial"][kept].iloc[order]]
    return _with_parameters(_rows(frame, best), folder, found)


def _where(frame: pd.DataFrame, where: str | None, folder: SweepFolder, found: Fold) -> pd.DataFrame:
    """The trials that fulfil an SQL condition, all without one."""
    if where is None:
        return frame
    matching = _matching(lambda wanted: _with_parameters(frame, folder, found, wanted), where)
    return frame[frame["trial"].isin(matching)]


def _rows(frame: pd.DataFrame, trials: list[int]) -> pd.DataFrame:
    """The rows of these trials, in this order."""
    return frame.set_index("trial", drop=False).loc[trials].reset_index(drop=True)


def with_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns `runs`, `mean` and `like_best` of `top`, beside `overall`."""
    groups = runs(frame)
    keys = _configurations(frame)
    complete = frame["state"] == "complete"
    counts = [len(groups.get(key, ())) if whole else 0 for key, whole in zip(keys, complete, strict=True)]
    mean = {key: sum(values) / len(values) for key, values in groups.items()}
    means = [mean[key] if count else math.nan for key, count in zip(keys, counts, strict=True)]
    alike: list[bool | None] = [None] * len(frame)
    best = next(iter(ranking(frame)), None)
    if best is not None:
        place = int(np.flatnonzero(frame["trial"] == best)[0])
        spread = noise.pooled(groups.values())
        if counts[place]:
            alike = [
                noise.alike(mean - means[place], count, counts[place], spread) if count else None
                for mean, count in zip(means, counts, strict=True)
            ]
    result = frame.copy()
    position = result.columns.get_loc("overall") + 1
    result.insert(position, "runs", pd.array(counts, dtype="Int64"))
    result.insert(position + 1, "mean", means)
    result.insert(position + 2, "like_best", pd.array(alike, dtype="boolean"))
    return result


def runs(frame: pd.DataFrame) -> dict[str, list[float]]:
    """Configuration -> `overall` of its runs at full budget, by number of the trial."""
    groups: dict[str, list[float]] = {}
    complete = (frame["state"] == "complete") & np.isfinite(frame["overall"].astype(float))
    for key, value, whole in zip(_configurations(frame), frame["overall"], complete, strict=True):
        if whole:
            groups.setdefault(key, []).append(float(value))
    return groups


def _configurations(frame: pd.DataFrame) -> list[str]:
    """A key for the configuration of each trial; older stores recorded no identity, and repeated none."""
    own = "trial " + frame["trial"].astype("str")
    return [str(key) for key in frame["config_id"].where(frame["config_id"].notna(), own)]


def _matching(trials: sql.Loader, where: str) -> pd.Series:
    """Numbers of the trials for which an SQL condition holds. Raises QueryError if `where` is not a condition."""
    tables = {"trials": trials}
    rule = "`where` must be a condition that is true or false for each trial, such as overall > 0.6"
    if not where.strip():
        raise sql.QueryError(f"{rule}; found nothing.")
    condition = f"(\n{where}\n)"
    answer = sql.run(f"SELECT trial, {condition} AS holds, typeof({condition}) AS kind FROM trials", tables)
    for kind in answer["kind"][:1]:
        if kind != "BOOLEAN":
            raise sql.QueryError(f"{rule}; found `{where}`, which is of type {kind}.")
    return answer["trial"][answer["holds"].eq(True).fillna(False).astype(bool)]


def show(folder: SweepFolder, trial: int, scoring: Scoring | None = None, found: Fold | None = None) -> Row:
    """One trial in detail.

    The result holds the trial's row of `trials_frame` without the parameters' columns, `config` and `params` as dicts,
    `rank` (1 is best), `held` scores, `runs` (trial, replicate, state and overall of every run of its configuration),
    `attempts` (start and end events) and `reports` in order of seq, each with its `cost` (`results.costs`). Raises
    StoreError for an unknown trial. `found`: the sweep's fold, if it is known.
    """
    found = found or fold(folder)
    frame = _facts(folder, found)
    numbers = [int(number) for number in frame["trial"]]
    if trial not in numbers:
        existing = f"It has trials {numbers[0]} to {numbers[-1]}." if numbers else "It has no trials yet."
        raise StoreError(f"No trial {trial} in sweep `{folder.name}`. {existing}")
    row = frame.iloc[numbers.index(trial)].items()
    facts = {str(name): None if pd.isna(value) else plain(value) for name, value in row if name != "attempts"}
    texts = parameters(folder, found, lambda names: TEXTS, [trial]).iloc[0]
    order = ranking(frame)
    has_held = scoring is not None and trial in predictions.predicted(folder, predictions.HELD)
    return {
        **facts,
        "rank": order.index(trial) + 1 if trial in order else None,
        "held": held_scores(folder, scoring, trial) if scoring is not None and has_held else None,
        "runs": _runs_of(frame, trial),
        "config": _parsed(texts["config"]),
        "params": _parsed(texts["params"]),
        "attempts": _of_trial(folder, "trials", trial, without=(*TEXTS, "error")),
        "reports": [report | {"cost": costs.cost(report)} for report in _of_trial(folder, "reports", trial)],
    }


def _of_trial(folder: SweepFolder, table: str, trial: int, without: Collection[str] = ()) -> list[Row]:
    """The rows of one trial in order of seq, without some columns."""
    rows = folder.read(table, columns=("trial",))
    own = rows.filter(pc.equal(rows["trial"], trial))
    counted = set(zip(own["seq"].to_pylist(), own["generation"].to_pylist(), strict=True))
    found = to_rows(folder.rows(table, own["seq"].to_pylist()).drop_columns(list(without)))
    return [row for row in found if (row["seq"], row["generation"]) in counted]


def _parsed(text: Any) -> dict[str, Any]:
    """The object of a JSON text; empty if there is none."""
    parsed: dict[str, Any] = {} if pd.isna(text) else json.loads(text)
    return parsed


def _runs_of(frame: pd.DataFrame, trial: int) -> list[Row]:
    """The trials of one configuration, by number."""
    keys = pd.Series(_configurations(frame), index=frame.index)
    own = frame[(keys == keys[frame["trial"] == trial].iloc[0]).to_numpy()]
    columns = ["trial", "replicate", "state", "overall"]
    return [{name: None if pd.isna(row[name]) else plain(row[name]) for name in columns} for _, row in own.iterrows()]
