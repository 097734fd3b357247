"""The look that all figures share: colours, fonts, axes, and texts from the store made safe.

Every colour has a contrast of at least 3:1 against both BACKGROUNDS (WCAG 2.2, 1.4.11), so one set serves light and
dark pages. Figures have no background of their own.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

BACKGROUNDS = ("#ffffff", "#14171c")
"""Backgrounds, light and dark, on which every colour can be told."""
BLUE, ORANGE, GREEN, RED = "#2f7ed8", "#d9730d", "#2a9d5c", "#d64550"
PURPLE, TEAL, GREY = "#8e63ce", "#178fa3", "#7a8391"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, TEAL, RED, GREY)
"""Colours of sweeps, tasks and other series, in this order."""
STATES = {
    "complete": BLUE,
    "pruned": GREY,
    "running": GREEN,
    "diverged": PURPLE,
    "failed": RED,
    "lost": ORANGE,
    "paused": TEAL,
}
"""State of a trial, or of an attempt -> its colour."""
ON_BARS = "#000000"
"""Colour of texts on bars: on every colour of STATES its contrast is at least 4.5:1."""
SYMBOLS = {"pruned": "x-thin-open", "failed": "x", "diverged": "triangle-down", "lost": "star-triangle-down"}
"""State -> the symbol that tells it where colours cannot be told; a circle for others."""
SCALE = ((0.0, GREY), (0.5, BLUE), (1.0, ORANGE))
"""Scale of scores, low to high."""
HEAT = ((0.0, "rgba(47, 126, 216, 0)"), (1.0, "rgba(47, 126, 216, 0.55)"))
"""Scale of shares in [0, 1]. Text stays readable on it, dark on light pages and light on dark ones."""
TALL = 380
"""Height of a figure in pixels."""
LONG = 10
"""Ratio of the largest to the smallest positive value from which on an axis is logarithmic."""


def figure(traces: Sequence[Any], *, x: str = "", y: str = "", height: int = TALL, **layout: Any) -> go.Figure:
    """A figure in the shared look, with titles of its axes."""
    made = go.Figure(list(traces))
    made.update_layout(
        template="none",
        height=height,
        colorway=list(COLOURS),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 64, "r": 16, "t": 24, "b": 56},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
        **layout,
    )
    axes = {"gridcolor": "rgba(122, 131, 145, 0.25)", "zeroline": False, "automargin": True, "ticks": ""}
    made.update_xaxes(title={"text": x, "standoff": 10, "font": {"size": 13}}, **axes)
    made.update_yaxes(title={"text": y, "standoff": 8, "font": {"size": 13}}, **axes)
    return made


def empty(reason: str) -> go.Figure:
    """A figure that says why there is nothing to show."""
    made = figure([], height=120)
    made.update_xaxes(visible=False)
    made.update_yaxes(visible=False)
    return made.add_annotation(text=safe(reason), showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")


def safe(value: Any) -> str:
    """A text from the store as text of a figure, in which plotly would read tags."""
    return html.escape(" ".join(str(value).split()), quote=False)


def clock(longest: float) -> tuple[float, str]:
    """Unit of a time axis that reaches `longest` seconds: its seconds and its name."""
    return (3600.0, "hours") if longest >= 3 * 3600 else (60.0, "minutes") if longest >= 180 else (1.0, "seconds")
