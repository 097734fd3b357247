"""Predictions of the answer, of the best single trial and of an ensemble against the labels: on `held` what metrics and
figures show, on `search` the errors to read.

Who reads errors changes something because of them, and the score on those rows is no longer held out. So errors are
shown on `search` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.display.ensemble import SOUP
from hpo.launch.record import SweepRecord, TaskRecord

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from results.predictions import Member, Prediction
    from results.store import SweepFolder


@dataclass(frozen=True)
class Predictor:
    """A trial or an ensemble, with its predictions."""

    name: str
    parts: Mapping[str, Mapping[str, pd.DataFrame]]
    """`held` and `search`, as far as they are predicted -> task -> the rows: row, id, label, prediction, and for
    classes chance (of the predicted class) and positive (probability of class 1), NaN without probabilities."""

    @property
    def part(self) -> str | None:
        """The part on which its quality is shown: `held` where it is predicted."""
        return next((part for part in ("held", "search") if self.parts.get(part)), None)


def predictors(
    folder: SweepFolder, record: SweepRecord, singles: Mapping[str, int], ensemble: Mapping[str, Any] | None
) -> tuple[tuple[Predictor, ...], list[str]]:
    """The trials in `singles`, by name, and the ensemble, and what could not be read.

    The `held` of a trial counts as a look (`results.looks`); that of an ensemble was counted when it was saved."""
    from results.files import StoreError
    from results.looks import look_at_runs

    named: dict[str, tuple[Sequence[int], Mapping[str, Any] | None]] = {
        name: ([trial], None) for name, trial in singles.items()
    }
    if ensemble is not None:
        members = [int(member["trial"]) for member in ensemble["members"]]
        named[f"ensemble {ensemble['name']}"] = (members, ensemble)
    found, problems = [], []
    known = _ids(folder)
    for name, (trials, chosen) in named.items():
        parts: dict[str, dict[str, pd.DataFrame]] = {}
        for part, read in (("held", _held), ("search", _search)):
            try:
                if chosen is not None and chosen["combination"] == SOUP:
                    predicted = _of_soup(folder, chosen, read(folder, [int(chosen["best_single"])]))
                else:
                    predicted = _combined(folder, chosen, read(folder, trials))
            except StoreError as error:
                problems.append(f"{name} on `{part}`: {error}")
                continue
            parts[part] = {
                task: table
                for task, prediction in predicted.items()
                if task in record.tasks and len(table := _table(known, task, prediction, record.tasks[task]))
            }
        if chosen is None and parts.get("held"):
            look_at_runs(folder, trials)
        found.append(Predictor(name, parts))
    return tuple(found), problems


def _held(folder: SweepFolder, trials: Sequence[int]) -> list[Member]:
    from results.predictions import headline

    return [headline(folder, trial) for trial in trials]


def _search(folder: SweepFolder, trials: Sequence[int]) -> list[Member]:
    from results.candidates import last_evidence, member_of, search_order

    order, evidence = search_order(folder), last_evidence(folder, trials)
    return [member_of(evidence.get(trial, {}), order) for trial in trials]


def _combined(
    folder: SweepFolder, ensemble: Mapping[str, Any] | None, members: Sequence[Member]
) -> Mapping[str, Prediction]:
    """The predictions of one predictor for the rows that all of its members have predicted; empty without any."""
    from results.predictions import aligned, common_rows
    from results.selection import combine

    rows = common_rows(members)
    whole = [aligned(member, rows) for member in members]
    complete = [member for member in whole if member is not None]
    if not rows or len(complete) != len(members):
        return {}
    if ensemble is None:
        return complete[0]
    by_trial = {int(entry["trial"]): member for entry, member in zip(ensemble["members"], complete, strict=True)}
    return combine(ensemble, by_trial, {task: folder.tasks[task].kind for task in rows})


def _of_soup(folder: SweepFolder, soup: Mapping[str, Any], others: Sequence[Member]) -> Mapping[str, Prediction]:
    """The stored predictions of a soup for the rows of a part: those that the others have predicted."""
    from results import soups
    from results.predictions import aligned, common_rows

    return aligned(soups.read(folder, str(soup["name"])), common_rows(others)) or {}


def _ids(folder: SweepFolder) -> pd.DataFrame:
    """The labelled rows of `search` and `held`: task, row, id, label."""
    frame: pd.DataFrame = folder.read("examples").select(["task", "split", "row", "id", "label"]).to_pandas()
    return frame[frame["split"].isin(["search", "held"]) & frame["label"].notna()].drop(columns="split")


def _table(known: pd.DataFrame, task: str, prediction: Prediction, declared: TaskRecord) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    count = len(prediction.rows)
    frame = pd.DataFrame({"row": prediction.rows, "prediction": prediction.values})
    if declared.kind == "classification":
        chances = prediction.probabilities
        nothing = np.full(count, np.nan)
        classes = prediction.values.astype(int)
        frame["chance"] = nothing if chances is None else chances[np.arange(count), classes]
        frame["positive"] = nothing if chances is None or chances.shape[1] != 2 else chances[:, 1]
    return frame.merge(known[known["task"] == task].drop(columns="task"), on="row").sort_values("row")


def wrongness(rows: pd.DataFrame, task: TaskRecord) -> NDArray[np.float64]:
    """How wrong each prediction is, 0 for a right one: of classes the distance of the class, then the probability of
    the wrong class; of scores the distance in standard deviations of all distances."""
    import numpy as np

    distance = np.abs(rows["prediction"] - rows["label"]).to_numpy(dtype=float)
    if task.kind == "regression":
        spread = float(np.std(rows["prediction"] - rows["label"])) or 1.0
        return np.asarray(distance / spread)
    return np.asarray(np.where(distance > 0, distance + rows["chance"].fillna(0.0).to_numpy(dtype=float), 0.0))


def with_outliers(rows: pd.DataFrame, found: Mapping[str, Any]) -> pd.DataFrame:
    """The rows with a column outlier (bool), by `minbert.metrics.details`."""
    marked = rows.assign(outlier=False)
    marked.iloc[found.get("outliers", []), marked.columns.get_loc("outlier")] = True
    return marked


def confusion_counts(found: Mapping[str, Any]) -> pd.DataFrame:
    """The confusion matrix of `minbert.metrics.details` as a table [C, C]: index labels, columns predictions."""
    import pandas as pd

    classes = [str(number) for number in range(len(found["confusion"]))]
    return pd.DataFrame(found["confusion"], index=classes, columns=classes)


def precision_recall_curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of class 1 at every threshold of its probability, by descending threshold; empty without
    probabilities. Columns: threshold, precision, recall."""
    import numpy as np
    import pandas as pd

    known = rows[rows["positive"].notna()].sort_values("positive", ascending=False)
    hits = (known["label"] == 1).to_numpy().cumsum()
    if not len(known) or not hits[-1]:
        return pd.DataFrame(columns=["threshold", "precision", "recall"])
    chances = known["positive"].to_numpy()
    last = np.flatnonzero(np.append(chances[1:] != chances[:-1], True))  # equal chances pass a threshold together
    return pd.DataFrame(
        {"threshold": chances[last], "precision": hits[last] / (last + 1), "recall": hits[last] / hits[-1]}
    )
