"""Figures of predictions against labels, by a task's kind: classes, two classes, or scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from results.plots import look


def confusion(counts: pd.DataFrame) -> go.Figure:
    """Confusion matrix: rows are labels, columns predictions; colour and second line are shares of the label's rows.

    `counts` [C, C]: number of rows; index and columns are the classes.
    """
    numbers = counts.to_numpy(dtype=float)
    if not numbers.sum():
        return look.empty("no row was predicted")
    shares = numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1)
    text = [
        [f"{number:,.0f}<br>{share:.0%}" for number, share in zip(*row, strict=True)]
        for row in zip(numbers, shares, strict=True)
    ]
    names = [look.safe(name) for name in counts.columns]
    trace = go.Heatmap(
        z=shares, x=names, y=[look.safe(name) for name in counts.index], text=text, texttemplate="%{text}",
        colorscale=look.HEAT, zmin=0, zmax=1, showscale=False, xgap=2, ygap=2,
        hovertemplate="label %{y}, predicted %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    made = look.figure([trace], x="predicted class", y="label", height=150 + 56 * len(names))
    made.update_xaxes(type="category", showgrid=False)
    return made.update_yaxes(type="category", showgrid=False, autorange="reversed")


def precision_recall(curve: pd.DataFrame) -> go.Figure:
    """Precision over recall of class 1 for every threshold of its probability; a mark at the threshold in use, 1/2.

    `curve` has the columns threshold, precision and recall, by descending threshold.
    """
    if curve.empty:
        return look.empty("no probabilities are stored")
    line = go.Scatter(
        x=curve["recall"], y=curve["precision"], mode="lines", name="all thresholds", customdata=curve["threshold"],
        line={"color": look.BLUE, "width": 2},
        hovertemplate="threshold %{customdata:.2f}: precision %{y:.3f}, recall %{x:.3f}<extra></extra>",
    )  # fmt: skip
    used = curve[curve["threshold"] > 0.5].tail(1)
    mark = go.Scatter(
        x=used["recall"], y=used["precision"], mode="markers", name="threshold 1/2",
        marker={"color": look.ORANGE, "size": 11, "symbol": "diamond"},
    )  # fmt: skip
    made = look.figure([line, mark], x="recall", y="precision")
    return made.update_xaxes(range=[0, 1.02]).update_yaxes(rangemode="tozero", range=[None, 1.02])


def agreement(rows: pd.DataFrame) -> go.Figure:
    """Predicted scores over labels, with the outliers marked.

    `rows` has the columns id, label, prediction and outlier (bool).
    """
    if rows.empty:
        return look.empty("no row was predicted")
    traces = [
        go.Scatter(
            x=part["label"], y=part["prediction"], mode="markers", name=name, customdata=part["id"].map(look.safe),
            marker={"color": colour, "size": size, "symbol": symbol, "opacity": opacity},
            hovertemplate="%{customdata}: label %{x:.2f}, predicted %{y:.2f}<extra></extra>",
        )
        for name, part, colour, size, symbol, opacity in (
            ("within 4 standard deviations", rows[~rows["outlier"]], look.BLUE, 6, "circle", 0.6),
            ("outliers", rows[rows["outlier"]], look.ORANGE, 10, "diamond", 1.0),
        )
    ]  # fmt: skip
    low, high = float(rows["label"].min()), float(rows["label"].max())
    line = {"color": look.GREY, "dash": "dot"}
    equal = go.Scatter(x=[low, high], y=[low, high], mode="lines", name="equal", line=line)
    return look.figure([*traces, equal], x="label", y="predicted score")
