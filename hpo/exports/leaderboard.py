"""Predictions as files in the class leaderboard format, from the predictions that the store holds.

    sst-dev-output.csv, sst-test-output.csv     id \\t Predicted_Sentiment
    para-dev-output.csv, ...                    id \\t Predicted_Is_Paraphrase
    sts-dev-output.csv, ...                     id \\t Predicted_Similiary      (spelled so in the class)
    cfimdb-dev-output.csv, ...                  id \\t Predicted_Sentiment

then one line `id , label` for each row of the data file, in its order, ids as they stand there.
A kept trial that has not predicted yet, or whose predictions are damaged, does so here, in this process, once: its
predictions enter the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.driver.finalise import PredictError, without_weights
from hpo.driver.ledger import Ledger

if TYPE_CHECKING:
    from results.store import SweepFolder

Values = dict[tuple[str, str], dict[int, float]]
"""(task, dev or test) -> row of that file -> predicted class or score."""
FILES: dict[str, tuple[str, ...]] = {"dev": ("search", "held", "dev"), "test": ("test",)}
"""File -> the splits whose rows stand in it; `dev` among them is the rest without labels."""


def of_trial(folder: SweepFolder, trial: int) -> Values:
    """The stored predictions of one trial's newest attempt."""
    from results.predictions import member, predicted

    if trial not in predicted(folder):
        raise PredictError(without_weights(folder, trial, Ledger(folder.events()).kept))
    return {
        (task, file): dict(zip(column.rows.tolist(), column.values.tolist(), strict=True))
        for file, splits in FILES.items()
        for task, column in member(folder, trial, splits).items()
    }


def of_ensemble(folder: SweepFolder, name: str) -> Values:
    """The predictions of a saved ensemble, from the stored ones of its members."""
    from results.selection import combined, load

    record = load(folder, name)
    return {
        (task, file): dict(zip(one.rows.tolist(), one.values.tolist(), strict=True))
        for file, splits in FILES.items()
        for task, one in combined(folder, record, splits).items()
    }


def write(folder: SweepFolder, values: Values, out: Path, source: str) -> list[Path]:
    """Write every task's dev and test file; returns the paths. `source` names the predictions in an error."""
    ids = row_ids(folder)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for task, described in folder.meta["tasks"].items():
            title = described["leaderboard"][1]
            for file in FILES:
                rows = ids.get((task, file), {})
                if not rows:
                    continue  # the data has no test file for this task
                labels = labels_of(values.get((task, file), {}), rows, described["kind"], f"{task} {file} of {source}")
                path = _path(out, described, file)
                path.write_text("".join(lines(title, rows.values(), labels)), encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise PredictError(f"`--out`: cannot write {error.filename or out}: {error.strerror}") from error
    return written


def check_free(folder: SweepFolder, out: Path) -> None:
    """Raise, before any prediction is made, where a file that would be written is there already."""
    taken = [
        path.name
        for described in folder.meta["tasks"].values()
        for file in FILES
        if (path := _path(out, described, file)).exists()
    ]
    if taken:
        raise PredictError(f"`--out`: {out} holds {', '.join(taken)} already; name another folder, or add --overwrite")


def _path(out: Path, described: Mapping[str, Any], file: str) -> Path:
    """Of a task, as the sweep's record describes it."""
    return out / f"{described['leaderboard'][0]}-{file}-output.csv"


def row_ids(folder: SweepFolder) -> dict[tuple[str, str], dict[int, str]]:
    """(task, dev or test) -> row -> id, in the order of the file."""
    table = folder.read("examples")
    columns = (table.column(name).to_pylist() for name in ("task", "split", "row", "id"))
    found: dict[tuple[str, str], dict[int, str]] = {}
    for task, split, row, name in zip(*columns, strict=True):
        found.setdefault((task, "test" if split == "test" else "dev"), {})[row] = name
    return {key: dict(sorted(rows.items())) for key, rows in found.items()}


def labels_of(values: Mapping[int, float], rows: Iterable[int], kind: str, what: str) -> list[str]:
    """The label of each row as text: a whole number for a class, six decimals for a score."""
    missing = [row for row in rows if row not in values]
    if missing:
        raise PredictError(f"{what}: no prediction for {len(missing)} rows, the first is row {missing[0]}")
    form = "{:.0f}" if kind == "classification" else "{:.6f}"
    return [form.format(values[row]) for row in rows]


def lines(title: str, ids: Iterable[str], labels: Sequence[str]) -> Iterator[str]:
    """The file, line by line."""
    yield f"id \t {title}\n"
    for name, label in zip(ids, labels, strict=True):
        yield f"{name} , {label}\n"
