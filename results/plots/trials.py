"""Figures of a search: its trials, reports and attempts. The names follow `optuna.visualization` where it has the same.

Tables: TRIALS as of `results.views.trials_frame`, one row a trial; REPORTS and ATTEMPTS as of `results.frames`. Scores
are on `search`. Only scores at one milestone can be compared, so that every figure says which ones it shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from results.objectives import SCORE, Objective, gains, undominated
from results.plots import look
from results.plots.look import safe
from results.views import REPEAT

SURE = 0.05
"""Largest probability of as much importance by chance at which a bar is filled."""
UNITS = {
    "peak_memory_bytes": (2.0**30, "peak memory (GiB)"),
    "trainable_parameters": (1e6, "trainable parameters (millions)"),
    "seconds": (1.0, "seconds of training and evaluation"),
}
"""Column of a cost -> the unit in which it is drawn, and the title of its axis."""
COLUMNS = 3
"""Panels of `slice` in a row."""
QUARANTINE = "in quarantine"
"""Name of the bars of places that got no more trials."""
DENSE = 2000
"""Largest number of reports at lower rungs that `history` draws at once."""


def history(reports: pd.DataFrame, *, by: str = "used", target: str = SCORE) -> go.Figure:
    """Every report of a sweep, and the best score at the full budget so far.

    `reports` has the columns trial, step, origin, `target`, and `by`: `used` (examples used by the sweep) or `elapsed`
    (seconds since it began). Repeats are left out. The line holds reports at the largest step alone. Of more than DENSE
    reports at lower rungs every nth is drawn; who zooms in sees more of them.
    """
    shown = _searched(reports, target)
    if shown.empty:
        return look.empty("no trial has a score yet")
    scale, axis = _axis_of(shown, by)
    full = shown["step"] == shown["step"].max()
    default = shown["trial"] == 0
    every = math.ceil((~full & ~default).sum() / DENSE)
    lower = "lower rungs" if every <= 1 else f"lower rungs (1 in {every} is drawn)"
    parts: Mapping[str, tuple[Any, dict[str, Any]]] = {
        lower: (~full & ~default, {"color": look.GREY, "size": 5, "maxdisplayed": DENSE}),
        "full budget": (full & ~default, {"color": look.BLUE, "size": 8}),
        "default configuration": (default, {"color": look.ORANGE, "size": 10, "symbol": "diamond"}),
    }
    traces = [
        go.Scatter(
            x=rows[by] / scale, y=rows[target], mode="markers", name=name, marker=marker,
            customdata=rows[["trial", "step"]],
            hovertemplate="trial %{customdata[0]}: %{y:.4f} at %{customdata[1]:,} examples<extra></extra>",
        )
        for name, (mask, marker) in parts.items()
        if len(rows := shown[mask])
    ]  # fmt: skip
    traces.append(_best_line(shown[full], by, scale, target, "best at full budget", look.GREEN))
    return look.figure(traces, x=axis, y=f"{safe(target)} on search")


def sweeps_history(reports: Mapping[str, pd.DataFrame], *, by: str = "used", target: str = SCORE) -> go.Figure:
    """The best score at the full budget so far of several sweeps, by name; the tables are those of
    `history`."""
    shown = {name: _searched(frame, target) for name, frame in reports.items()}
    shown = {name: frame[frame["step"] == frame["step"].max()] for name, frame in shown.items() if len(frame)}
    if not shown:
        return look.empty("no trial has a score yet")
    scale, axis = _axis_of(pd.concat(list(shown.values())), by)
    traces = [
        _best_line(frame, by, scale, target, safe(name), look.COLOURS[place % len(look.COLOURS)])
        for place, (name, frame) in enumerate(shown.items())
    ]
    return look.figure(traces, x=axis, y=f"best {safe(target)} on search")


def intermediate_values(reports: pd.DataFrame, *, target: str = SCORE) -> go.Figure:
    """The learning curve of each trial over its milestones, by the state of the trial; a mark where a trial was stopped
    or ended otherwise before the full budget. Dotted lines are the milestones.

    `reports` has the columns trial, step, state, origin and `target`.
    """
    shown = _searched(reports, target)
    if shown.empty:
        return look.empty("no trial has a score yet")
    traces = []
    for state, rows in shown.groupby("state", sort=False):
        curves = rows.sort_values(["trial", "step"])
        last = (curves["trial"] != curves["trial"].shift(-1)).to_numpy()
        ends, gaps = curves[last], np.flatnonzero(last) + 1
        line = {name: np.insert(curves[name].to_numpy(float), gaps, math.nan) for name in ("trial", "step", target)}
        colour = look.STATES.get(str(state), look.GREY)
        hover = "trial %{customdata}: %{y:.4f} at %{x:,}"
        common = {"legendgroup": safe(state), "name": safe(state), "hovertemplate": hover}
        traces += [
            go.Scatter(x=line["step"], y=line[target], customdata=line["trial"], mode="lines",
                       line={"color": colour, "width": 1}, opacity=0.6, **common),
            go.Scatter(x=ends["step"], y=ends[target], customdata=ends["trial"], mode="markers", showlegend=False,
                       marker={"color": colour, "symbol": look.SYMBOLS.get(str(state), "circle"), "size": 8,
                               "line": {"color": colour, "width": 2}}, **common),
        ]  # fmt: skip
    made = look.figure(traces, x="examples (milestone)", y=f"{safe(target)} on search")
    steps = sorted(int(step) for step in shown["step"].unique())
    for step in steps:
        made.add_vline(x=step, line={"dash": "dot", "width": 1, "color": look.GREY}, opacity=0.6)
    return made.update_xaxes(type="log", tickvals=steps, ticktext=[f"{step:,}" for step in steps])


def parallel_coordinate(trials: pd.DataFrame, params: Sequence[str], *, target: str = SCORE) -> go.Figure:
    """One line a trial through its values of `params`, coloured by its score. Drag along an axis to select.

    `trials` has a column for each parameter and `target`, with scores at one milestone (`results.frames.at_rung`). A
    trial that does not have a parameter passes its axis below all values, at `-`.
    """
    shown = trials[np.isfinite(trials[target].astype(float))]
    if len(shown) < 2 or not params:
        return look.empty("fewer than two trials with a score and a varied parameter")
    score = shown[target].to_numpy(dtype=float)
    dimensions = [{"label": safe(name), **_dimension(shown[name])} for name in params]
    dimensions.append({"label": safe(target), "values": score})
    trace = go.Parcoords(
        dimensions=dimensions,
        labelangle=-20,
        line={"color": score, "colorscale": look.SCALE, "showscale": True, "colorbar": {"thickness": 12}},
    )
    made = look.figure([trace], height=460)
    return made.update_layout(margin={"l": 80, "r": 40, "t": 110, "b": 24})


def slice(trials: pd.DataFrame, params: Sequence[str], *, target: str = SCORE) -> go.Figure:
    """The score over each parameter, a panel each; the later a trial, the more orange it is.

    `trials` has the columns trial, a column for each parameter, and `target`, with scores at one milestone.
    """
    shown = trials[np.isfinite(trials[target].astype(float))]
    if shown.empty or not params:
        return look.empty("no trial with a score and a varied parameter")
    rows = -(-len(params) // COLUMNS)
    panels = make_subplots(
        rows=rows, cols=COLUMNS, shared_yaxes=True, horizontal_spacing=0.03,
        vertical_spacing=0.4 / rows, subplot_titles=[safe(name) for name in params],
    )  # fmt: skip
    latest = int(shown["trial"].max())
    for place, name in enumerate(params):
        part = shown[shown[name].notna()]
        numbers = _numbers(part[name])
        values = part[name].map(safe) if numbers is None else numbers
        row, column = place // COLUMNS + 1, place % COLUMNS + 1
        marker = {"color": part["trial"], "colorscale": look.SCALE, "cmin": 0, "cmax": max(1, latest), "size": 7}
        panels.add_trace(
            go.Scatter(x=values, y=part[target], mode="markers", marker=marker, customdata=part["trial"],
                       hovertemplate="trial %{customdata}: %{y:.4f} with %{x}<extra></extra>"), row, column,
        )  # fmt: skip
        panels.update_xaxes(**_panel_axis(numbers), row=row, col=column)
    made = look.figure([], height=90 + 200 * rows, showlegend=False)
    panels.update_layout(made.layout, margin_t=40)
    panels.update_xaxes(made.layout.xaxis, overwrite=False)
    panels.update_yaxes(made.layout.yaxis, overwrite=False)
    panels.update_yaxes(title={"text": safe(target), "font": {"size": 13}}, col=1)
    return panels.update_annotations(font={"size": 12})


def _panel_axis(numbers: NDArray[np.float64] | None) -> dict[str, Any]:
    """The axis of a narrow panel: few ticks, and on a logarithmic axis at even distances."""
    if numbers is None:
        return {"type": "category"}
    if not _is_long(numbers):
        return {"nticks": 5, "exponentformat": "e"}
    ticks = np.geomspace(numbers.min(), numbers.max(), 4)
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:.2g}" for tick in ticks]}


def param_importances(importances: pd.DataFrame) -> go.Figure:
    """The importance of each parameter: a bar for the first target, a mark for each other. A pale bar may be chance.

    `importances` has the columns parameter, target, importance (share in [0, 1]) and chance (probability of as much by
    chance; missing where it is not known), the most important parameter first.
    """
    if importances.empty:
        return look.empty("no parameter was assessed")
    first, *others = importances["target"].unique()
    names = [safe(name) for name in importances["parameter"].unique()]
    bars = importances[importances["target"] == first]
    sure = (bars["chance"].fillna(0.0) <= SURE).to_numpy()
    traces: list[Any] = [
        go.Bar(
            y=bars["parameter"].map(safe), x=bars["importance"], orientation="h", name=safe(first), width=0.6,
            marker={"color": look.BLUE, "opacity": np.where(sure, 1.0, 0.4), "line": {"color": look.BLUE, "width": 1}},
            customdata=bars["chance"],
            hovertemplate="%{y}: %{x:.2f}, as much by chance with probability %{customdata:.2f}<extra></extra>",
        )
    ]  # fmt: skip
    symbols = ("circle", "diamond", "square", "cross", "triangle-up")
    for place, target in enumerate(others):
        rows = importances[importances["target"] == target]
        marker = {"color": look.COLOURS[1 + place % 4], "symbol": symbols[place % len(symbols)], "size": 9}
        traces.append(
            go.Scatter(y=rows["parameter"].map(safe), x=rows["importance"], mode="markers", name=safe(target),
                       marker=marker, hovertemplate="%{y}: %{x:.2f}")
        )  # fmt: skip
    made = look.figure(traces, x="importance (share)", height=120 + 26 * len(names))
    return made.update_yaxes(categoryorder="array", categoryarray=names[::-1], type="category")


def pareto_front(trials: pd.DataFrame, cost: Objective, *, target: str = SCORE) -> go.Figure:
    """The score of complete trials over a cost, and the trials that no other beats in both.

    `trials` has the columns trial, state, origin, `target` and that of `cost`. Repeats are left out.
    """
    shown = trials[(trials["state"] == "complete") & (trials["origin"] != REPEAT).fillna(True)]
    values = gains(shown, (Objective(target), cost))
    known = np.isfinite(values).all(axis=1)
    shown, values = shown[known], values[known]
    if shown.empty:
        return look.empty("no trial is complete yet")
    front = undominated(values)
    unit, title = unit_of(cost.column)
    best = shown[front].sort_values(cost.column)
    traces = []
    for name, rows, colour, size in (("other trials", shown[~front], look.GREY, 7), ("front", best, look.ORANGE, 10)):
        traces.append(
            go.Scatter(
                x=rows[cost.column].astype(float) / unit, y=rows[target], name=name, customdata=rows["trial"],
                mode="lines+markers" if name == "front" else "markers",
                line={"shape": "hv", "width": 1, "color": colour}, marker={"color": colour, "size": size},
                hovertemplate="trial %{customdata}: %{y:.4f} at %{x:,.4g}<extra></extra>",
            )
        )  # fmt: skip
    made = look.figure(traces, x=title, y=f"{safe(target)} on search")
    costs = shown[cost.column].to_numpy(dtype=float) / unit
    return made.update_xaxes(**_log_axis(costs)) if _is_long(costs) else made


def unit_of(column: str) -> tuple[float, str]:
    """The unit in which a cost is drawn, and its name with the unit."""
    return UNITS.get(column, (1.0, column.replace("_", " ")))


def timeline(attempts: pd.DataFrame, quarantines: pd.DataFrame | None = None) -> go.Figure:
    """Which worker trained which trial when, and how each attempt ended. Attempts without a known worker are drawn in
    slots below the workers. A quarantine is drawn behind the attempts of every worker of its place; a place without
    workers gets a lane.

    `attempts` has the columns trial, attempt, worker, slot, begin and end (seconds since the sweep began), state and
    reason; `quarantines` place, reason, begin and end.
    """
    if attempts.empty:
        return look.empty("no trial has started yet")
    quarantines = pd.DataFrame(columns=["place", "reason", "begin", "end"]) if quarantines is None else quarantines
    scale, unit = look.clock(float(max(attempts["end"].max(), *quarantines["end"], 0.0)))
    known = attempts["worker"] != ""
    slots = sorted(attempts.loc[~known, "slot"].unique())
    workers = [str(worker) for worker in attempts.loc[known, "worker"].unique()]
    closed = [(place, _workers_at(place, workers) or [place]) for place in quarantines["place"]]
    lanes = list(dict.fromkeys([*workers, *(lane for _, there in closed for lane in there), *map(_slot, slots)]))
    attempts = attempts.assign(lane=attempts["worker"].where(known, attempts["slot"].map(_slot)))
    traces = [_closed(quarantines, [there for _, there in closed], scale)] if closed else []
    for state, rows in attempts.groupby("state", sort=False):
        hover = [
            f"trial {row.trial}, attempt {row.attempt}: {safe(state)}{f', {safe(row.reason)}' if row.reason else ''}"
            for row in rows.itertuples()
        ]
        traces.append(
            go.Bar(
                y=rows["lane"].map(safe), x=(rows["end"] - rows["begin"]) / scale, base=rows["begin"] / scale,
                orientation="h",
                name=safe(state), text=rows["trial"].astype(str), textposition="inside", insidetextanchor="middle",
                textangle=0, textfont={"color": look.ON_BARS}, hovertext=hover, hoverinfo="text",
                marker={"color": look.STATES.get(str(state), look.GREY),
                        "pattern": {"shape": "/" if state in ("lost", "failed", "diverged") else ""},
                        "line": {"width": 1, "color": "rgba(127, 127, 127, 0.4)"}},
            )
        )  # fmt: skip
    height = 150 + 34 * len(lanes)
    made = look.figure(traces, x=f"{unit} since the sweep began", y="worker", height=height, barmode="overlay")
    made.update_layout(uniformtext={"minsize": 9, "mode": "hide"})
    return made.update_yaxes(type="category", categoryorder="array", categoryarray=[*map(safe, reversed(lanes))])


def _workers_at(place: str, workers: Sequence[str]) -> list[str]:
    """The workers, named `PLACE, process PID`, of a place."""
    return [worker for worker in workers if worker.rpartition(", process ")[0] == place]


def _closed(quarantines: pd.DataFrame, lanes: Sequence[Sequence[str]], scale: float) -> go.Bar:
    """Each quarantine in its lanes."""
    bars = [(row, lane) for row, there in zip(quarantines.itertuples(), lanes, strict=True) for lane in there]
    return go.Bar(
        y=[safe(lane) for _, lane in bars], x=[(row.end - row.begin) / scale for row, _ in bars],
        base=[row.begin / scale for row, _ in bars], orientation="h", name=QUARANTINE, width=0.95,
        hovertext=[f"{safe(row.place)} in quarantine: {safe(row.reason)}" for row, _ in bars], hoverinfo="text",
        marker={"color": look.RED, "pattern": {"shape": "x", "fillmode": "replace", "size": 6},
                "line": {"width": 1, "color": look.RED}},
    )  # fmt: skip


def _slot(number: int) -> str:
    """Name of a slot whose worker is not known."""
    return f"slot {number}"


def replicates(trials: pd.DataFrame, *, most: int = 30) -> go.Figure:
    """The spread over seeds: every run at full budget of the configurations that ran more than once, and their means;
    the highest mean first.

    `trials` has the columns trial, state, config_id and overall.
    """
    complete = trials[(trials["state"] == "complete") & np.isfinite(trials[SCORE].astype(float))]
    groups = [rows for _, rows in complete[complete.duplicated("config_id", keep=False)].groupby("config_id")]
    repeated = sorted(groups, key=lambda rows: -float(rows[SCORE].mean()))[:most]
    if not repeated:
        return look.empty("no configuration has run twice at the full budget")
    names = [_name_of(rows) for rows in repeated]
    every = pd.concat(repeated)
    runs = go.Scatter(
        x=every[SCORE], y=[name for name, rows in zip(names, repeated, strict=True) for _ in range(len(rows))],
        mode="markers", name="one run", marker={"color": look.BLUE, "size": 9, "opacity": 0.8},
        customdata=every["trial"], hovertemplate="trial %{customdata}: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    means = go.Scatter(
        x=[float(rows[SCORE].mean()) for rows in repeated], y=names, mode="markers", name="mean",
        marker={"color": look.ORANGE, "symbol": "line-ns-open", "size": 22, "line": {"width": 3}},
        hovertemplate="mean %{x:.4f}<extra></extra>",
    )  # fmt: skip
    made = look.figure([runs, means], x="overall on search", height=130 + 34 * len(names))
    return made.update_yaxes(categoryorder="array", categoryarray=names[::-1], type="category")


def _name_of(rows: pd.DataFrame) -> str:
    """A configuration, named by its first run."""
    first = int(rows["trial"].min())
    return "default (0)" if first == 0 else f"trial {first}"


def _searched(reports: pd.DataFrame, target: str) -> pd.DataFrame:
    """The reports of the search with a score."""
    return reports[(reports["origin"] != REPEAT).fillna(True) & np.isfinite(reports[target].astype(float))]


def _axis_of(reports: pd.DataFrame, by: str) -> tuple[float, str]:
    """Unit and title of the axis of a history."""
    if by == "used":
        return 1.0, "examples used by all trials"
    scale, unit = look.clock(float(reports[by].max()))
    return scale, f"{unit} since the sweep began"


def _best_line(reports: pd.DataFrame, by: str, scale: float, target: str, name: str, colour: str) -> go.Scatter:
    ordered = reports.sort_values(by)
    best = ordered[target].cummax()
    return go.Scatter(
        x=ordered[by] / scale, y=best, mode="lines", name=name, line={"color": colour, "width": 2.5, "shape": "hv"},
        hovertemplate="best %{y:.4f}<extra></extra>",
    )  # fmt: skip


def _numbers(values: pd.Series) -> NDArray[np.float64] | None:
    """The values as numbers; None if some are texts or truth values."""
    present = values.dropna()
    if any(isinstance(value, bool | str) for value in present):
        return None
    return np.asarray(values.to_numpy(dtype=float, na_value=np.nan))


def _is_long(values: NDArray[np.float64]) -> bool:
    """Whether an axis of these values is logarithmic: all are positive, and the range is long."""
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() > 0 and known.max() / known.min() >= look.LONG)


def _log_axis(values: NDArray[np.float64]) -> dict[str, Any]:
    """A logarithmic axis of positive values with whole numbers at its ticks: 1, 2, 5, 10, 20, ..."""
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}


def _dimension(values: pd.Series) -> dict[str, Any]:
    """Positions and ticks of a parameter's axis. Missing values lie one step below the others."""
    numbers = _numbers(values)
    if numbers is None:
        kinds = sorted({safe(value) for value in values.dropna()})
        codes = np.array([math.nan if pd.isna(value) else kinds.index(safe(value)) for value in values])
        return _with_missing(codes, [float(code) for code in range(len(kinds))], kinds, 1.0)
    positions = np.log10(numbers) if (long := _is_long(numbers)) else numbers
    known = positions[np.isfinite(positions)]
    if not len(known):
        return _with_missing(positions, [], [], 1.0)
    ticks = np.linspace(known.min(), known.max(), 5) if known.max() > known.min() else known[:1]
    texts = [f"{10**tick if long else tick:.3g}" for tick in ticks]
    return _with_missing(positions, ticks.tolist(), texts, max(float(np.ptp(known)), 1e-9) / 4)


def _with_missing(
    positions: NDArray[np.float64], ticks: Sequence[float], texts: Sequence[str], step: float
) -> dict[str, Any]:
    missing = ~np.isfinite(positions)
    if not missing.any():
        return {"values": positions, "tickvals": list(ticks), "ticktext": list(texts)}
    below = (min(ticks) if ticks else 0.0) - step
    return {"values": np.where(missing, below, positions), "tickvals": [below, *ticks], "ticktext": ["-", *texts]}
