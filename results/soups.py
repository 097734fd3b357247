"""Predictions of a soup, which those of its members do not give: a Parquet file beside the record of the ensemble,
`<store>/<sweep>/ensembles/<name>.parquet`, with rows of the dev files; columns task, row, value and probabilities, as
of table `predictions`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.files import Folder, StoreError, safe_name
from results.predictions import Member, from_table, to_table
from results.store import SweepFolder

COLUMNS = ["task", "row", "value", "probabilities"]


def write(ensembles: Folder, name: str, predictions: Member) -> None:
    """Write the predictions of a soup. `ensembles`: the folder of the sweep's ensembles."""
    table = to_table(0, 0, [(task, "", prediction) for task, prediction in predictions.items()])
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(COLUMNS), sink, compression="zstd")
    ensembles.write(_file(name), sink.getvalue().to_pybytes())


def read(folder: SweepFolder, name: str) -> Member:
    """The predictions of a saved soup by task. Raises StoreError where none are stored, as of earlier versions."""
    ensembles = folder.folder.child("ensembles")
    try:
        table = pq.read_table(pa.BufferReader(ensembles.read(_file(name)))).select(COLUMNS)
    except FileNotFoundError:
        raise StoreError(
            f"The soup `{name}` has no stored predictions, as it was saved by an earlier version; "
            f"`hpo ensemble {folder.name} --method soup --name {name}` stores them."
        ) from None
    except (pa.ArrowInvalid, KeyError) as error:
        raise StoreError(f"`{ensembles.path}/{_file(name)}` is damaged or foreign: {error}.") from error
    tasks = pc.unique(table["task"]).to_pylist()
    return {task: from_table(table.filter(pc.equal(table["task"], task))) for task in tasks}


def _file(name: str) -> str:
    return f"{safe_name(name, 'Ensemble name')}.parquet"
