"""Parameters of trials as columns, named by their paths: what a trial drew, or else the value in its configuration.

Configurations are the bulk of `trials`. Only those of the trials that are asked for are read, and only the columns that
are asked for are computed; the names of all columns come from the drawn parameters of these trials.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from results.names import by_path, path_of

if TYPE_CHECKING:
    from results.fold import Fold
    from results.store import SweepFolder

Wanted = Callable[[Collection[str]], Collection[str]]
"""Given the names of all columns that `parameters` can compute: those that are needed."""
TEXTS = ("config", "params")
"""Columns that hold JSON text: the configuration, and the drawn parameters by path."""


def every(names: Collection[str]) -> Collection[str]:
    """All columns."""
    return names


def none(names: Collection[str]) -> Collection[str]:
    """No columns."""
    return ()


def parameters(
    folder: SweepFolder, found: Fold, wanted: Wanted = every, trials: Sequence[int] | None = None
) -> pd.DataFrame:
    """The wanted columns of the given trials, in their order (None: all trials), the index being the trial.

    The columns are config, params, and then one for each parameter that any of these trials has drawn, null where one
    has none.
    """
    every_number = [int(trial) for trial in found.trials]
    numbers = every_number if trials is None else list(trials)
    some = None if numbers == every_number else _texts_of(folder, found, numbers)
    drawn = first_starts(folder, found, "params") if some is None else [some]
    with duckdb.connect(":memory:") as database:
        paths: dict[str, list[str]] = {}
        for key in sorted(_keys(database, drawn)):
            paths.setdefault(path_of(key), []).append(key)
        names = [*TEXTS, *sorted(paths)]
        chosen = set(wanted(names))
        wanted_keys = {name: paths.get(name, []) for name in names if name in chosen}
        values: dict[str, list[Any]] = {name: [] for name in wanted_keys}
        if wanted_keys and numbers:
            for texts in _texts(folder, found, drawn) if some is None else [some]:
                for name, part in _columns(database, texts, wanted_keys, _groups(paths)).items():
                    values[name] += part
    return pd.DataFrame(values, index=numbers).astype({name: "str" for name in TEXTS if name in chosen})


SLICE = 2_000
"""Number of trials whose configurations are in memory as JSON at a time."""


def first_starts(folder: SweepFolder, found: Fold, name: str) -> Slices:
    """A column of the first starts of all trials."""
    table = folder.read("trials", columns=(name,))
    return Slices(table.select([name]), np.searchsorted(table["seq"].to_numpy(), found.first["seq"].to_numpy()))


class Slices(NamedTuple):
    """Some rows of a table, which are copied a slice at a time."""

    table: pa.Table
    places: NDArray[np.int64]
    """Row numbers."""

    def __iter__(self) -> Iterator[pa.Table]:
        for begin in range(0, len(self.places), SLICE):
            yield self.table.take(pa.array(self.places[begin : begin + SLICE]))


def _keys(database: duckdb.DuckDBPyConnection, drawn: Iterable[pa.Table]) -> set[str]:
    """The keys of the drawn parameters of all trials."""
    statement = "SELECT DISTINCT unnest(json_keys(params)) FROM drawn WHERE params IS NOT NULL"
    keys = set[str]()
    for part in drawn:
        database.register("drawn", part)
        keys.update(str(key) for (key,) in database.execute(statement).fetchall())
    return keys


def _texts(folder: SweepFolder, found: Fold, drawn: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """Configuration and drawn parameters of all trials, as stored, a slice at a time."""
    configs = first_starts(folder, found, "config")
    return (each.append_column("params", own["params"]) for each, own in zip(configs, drawn, strict=True))


def _texts_of(folder: SweepFolder, found: Fold, trials: Sequence[int]) -> pa.Table:
    """Configuration and drawn parameters of these trials, as stored."""
    starts = found.first.take(pa.array(np.searchsorted(found.trials, trials)))
    keys = list(zip(starts["generation"].to_pylist(), starts["seq"].to_pylist(), strict=True))
    table = folder.rows("trials", [seq for _, seq in keys])
    stored = zip(table["generation"].to_pylist(), table["seq"].to_pylist(), strict=True)
    places = {key: place for place, key in enumerate(stored)}
    return table.select(list(TEXTS)).take(pa.array([places.get(key) for key in keys], pa.int64()))


def _groups(paths: Iterable[str]) -> set[str]:
    """Paths of groups of parameters: a path may be a parameter in one branch of a kind (`adapter/dropout`) and a group
    in another (`adapter/dropout/sst`)."""
    return {path[:end] for path in paths for end, letter in enumerate(path) if letter == "/"}


def _columns(
    database: duckdb.DuckDBPyConnection, texts: pa.Table, columns: Mapping[str, list[str]], groups: Collection[str]
) -> dict[str, list[Any]]:
    """The columns as lists of values, from configurations and drawn parameters; `columns`: each with the keys of its
    drawn values."""
    database.register("texts", texts)
    keys = [key for names in columns.values() for key in names]
    paths = [name for name in columns if name not in TEXTS]
    selected = list(TEXTS) if set(columns) & set(TEXTS) else ["1"]
    for place, name in enumerate(paths):
        drawn = ", ".join(f"drawn[{1 + keys.index(key)}]" for key in columns[name])
        selected.append(f"coalesce('d' || coalesce({drawn}, NULL), 'c' || configured[{1 + place}]) AS c{place}")
    inside = f"json_extract(params, {_list([[key] for key in keys])}) AS drawn"
    inside += f", json_extract(config, {_list([name.split('/') for name in paths])}) AS configured"
    table = database.sql(f"SELECT {', '.join(selected)} FROM (SELECT *, {inside} FROM texts)").to_arrow_table()
    values: dict[str, list[Any]] = {}
    for name in columns:
        if name == "config":
            values[name] = table[name].to_pylist()
        elif name == "params":
            values[name] = _decoded(table[name], lambda text: json.dumps(by_path(json.loads(text))), "{}")
        else:
            group = name in groups
            values[name] = _decoded(table[f"c{paths.index(name)}"], functools.partial(_value, group=group))
    return values


def _list(paths: Iterable[Sequence[str]]) -> str:
    """JSON paths as a list in SQL."""
    texts = ("$" + "".join(f'."{part}"' for part in parts) for parts in paths)
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]::VARCHAR[]"


def _decoded(texts: pa.ChunkedArray, decode: Callable[[str], Any], missing: Any = None) -> list[Any]:
    """Each text decoded; equal ones once."""
    encoded = texts.combine_chunks().dictionary_encode()
    distinct = [decode(text) for text in encoded.dictionary.to_pylist()]
    return [missing if place is None else distinct[place] for place in encoded.indices.to_pylist()]


def _value(text: str, group: bool) -> Any:
    """A value from its JSON text after a letter: d, it was drawn; c, it stands in the configuration, where a list is
    shown as `query+value`, and a group has no value of its own."""
    value = json.loads(text[1:])
    if text[0] == "d":
        return plain(value)
    if isinstance(value, list):
        return "+".join(map(str, value))
    return None if group and isinstance(value, dict) else plain(value)


def plain(value: Any) -> Any:
    """The value as a JSON type; a list or dict as JSON text."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return value.item() if isinstance(value, np.generic) else value
