"""Leaderboard files: stored predictions in the format of the class leaderboard (`minbert.data.leaderboard`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.driver.finalise import PredictError, without_weights
from hpo.driver.ledger import Ledger
from hpo.launch.record import TaskRecord, record_of
from minbert.data.leaderboard import file_name, file_text
from results.files import NAME
from results.predictions import Prediction

if TYPE_CHECKING:
    from results.store import SweepFolder

Predictions = Mapping[tuple[str, str], Prediction]
"""(task, dev or test) -> predictions for rows of that file."""
FILES: dict[str, tuple[str, ...]] = {"dev": ("search", "held", "dev"), "test": ("test",)}
"""File -> the splits whose rows it holds. The split `dev` has the rows of the dev file without labels."""


def of_trial(folder: SweepFolder, trial: int) -> Predictions:
    """The stored predictions of one trial's newest attempt."""
    from results.predictions import member, predicted

    if trial not in predicted(folder):
        raise PredictError(without_weights(folder, trial, Ledger.of(folder).kept))
    return {
        (task, file): prediction
        for file, splits in FILES.items()
        for task, prediction in member(folder, trial, splits).items()
    }


def of_ensemble(folder: SweepFolder, name: str) -> Predictions:
    """The predictions of a saved ensemble, combined from the stored predictions of its members."""
    from results.selection import combined, load

    ensemble = load(folder, name)
    return {
        (task, file): prediction
        for file, splits in FILES.items()
        for task, prediction in combined(folder, ensemble, splits).items()
    }


def of_soup(folder: SweepFolder, soup: Mapping[str, Any]) -> Predictions:
    """The predictions of a saved soup, from its record; its model predicts the files now."""
    from hpo.driver.kept import soup_model
    from hpo.driver.soup import data_here, joined, predictions
    from minbert.training.train import default_device
    from results.predictions import PARTS

    model, _ = soup_model(folder, soup)
    found = list(predictions(model.to(default_device()), data_here(folder), PARTS))
    return {
        (task, file): prediction
        for file, splits in FILES.items()
        for task, prediction in joined((task, each) for task, split, each in found if split in splits).items()
    }


def write(folder: SweepFolder, predictions: Predictions, out: Path, source: str) -> list[Path]:
    """Write the dev and test file of every task; returns the paths. `source` names the predictions in error
    messages."""
    ids = row_ids(folder)
    tasks = record_of(folder).tasks
    paths = _paths(folder, tasks, out)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for (name, file), path in paths.items():
            rows = ids.get((name, file), {})
            if not rows:
                continue  # the data has no test file for this task
            title = f"{name} {file} of {source}"
            values = _values(predictions.get((name, file)), list(rows), title)
            text = file_text(tasks[name].leaderboard[1], tasks[name].kind, rows.values(), values)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise PredictError(f"`--out`: cannot write {error.filename or out}: {error.strerror}") from error
    return written


def check_out(folder: SweepFolder, out: Path, overwrite: bool) -> None:
    """Raise PredictError if a file would be outside `out`, or exists and `overwrite` is False. Call it before
    predicting."""
    paths = _paths(folder, record_of(folder).tasks, out)
    existing = [path.name for path in paths.values() if path.exists()]
    if existing and not overwrite:
        names = ", ".join(existing)
        raise PredictError(f"`--out`: {out} holds {names} already; name another folder, or add --overwrite")


def _paths(folder: SweepFolder, tasks: Mapping[str, TaskRecord], out: Path) -> dict[tuple[str, str], Path]:
    """(task, dev or test) -> path of the file, always inside `out`. The names come from the sweep's record, which may
    be damaged or written by another person."""
    for name, task in tasks.items():
        if not NAME.fullmatch(task.leaderboard[0]):
            raise PredictError(
                f"`tasks.{name}.leaderboard` in {folder.folder.path}/sweep.json begins the names of files. It must be "
                f"letters, digits, `.`, `_` and `-`, a letter or digit first, so that they stay in `--out`, not "
                f"{task.leaderboard[0]!r}."
            )
    return {(name, file): out / file_name(task.leaderboard[0], file) for name, task in tasks.items() for file in FILES}


def row_ids(folder: SweepFolder) -> dict[tuple[str, str], dict[int, str]]:
    """(task, dev or test) -> row -> id, in the order of the data file."""
    table = folder.read("examples")
    columns = (table.column(name).to_pylist() for name in ("task", "split", "row", "id"))
    ids: dict[tuple[str, str], dict[int, str]] = {}
    for task, split, row, name in zip(*columns, strict=True):
        ids.setdefault((task, "test" if split == "test" else "dev"), {})[row] = name
    return {key: dict(sorted(rows.items())) for key, rows in ids.items()}


def _values(prediction: Prediction | None, rows: Sequence[int], title: str) -> list[float]:
    """The predicted value of each row. `title` names the predictions in the PredictError about rows without one."""
    values = {} if prediction is None else dict(zip(prediction.rows.tolist(), prediction.values.tolist(), strict=True))
    missing = [row for row in rows if row not in values]
    if missing:
        raise PredictError(f"{title}: no prediction for {len(missing)} rows, the first is row {missing[0]}")
    return [values[row] for row in rows]
