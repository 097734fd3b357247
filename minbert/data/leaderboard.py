r"""Files in the format of the class leaderboard.

    sst-dev-output.csv, sst-test-output.csv     id \t Predicted_Sentiment
    para-dev-output.csv, ...                    id \t Predicted_Is_Paraphrase
    sts-dev-output.csv, ...                     id \t Predicted_Similiary      (spelled so in the class)
    cfimdb-dev-output.csv, ...                  id \t Predicted_Sentiment

The header above is followed by one line `id , label` for each row of the data file, in its order and with its ids.
"""

from __future__ import annotations

from collections.abc import Iterable

FILES = ("dev", "test")
"""Files of a task that are predicted."""


def file_name(stem: str, file: str) -> str:
    """Name of the predictions for one of FILES; `stem` is the first part of `Task.leaderboard`."""
    return f"{stem}-{file}-output.csv"


def file_text(title: str, kind: str, ids: Iterable[str], values: Iterable[float]) -> str:
    """Content of a file. `title` is the header of its second column, `kind` that of the task.

    A class is a whole number, a score has six decimals.
    """
    label = "{:.0f}" if kind == "classification" else "{:.6f}"
    rows = (f"{name} , {label.format(value)}\n" for name, value in zip(ids, values, strict=True))
    return f"id \t {title}\n{''.join(rows)}"
