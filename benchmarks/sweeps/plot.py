"""Plot of the sweep benchmark: best held-out score over minutes, one stepped line for each side, as SVG.

The SVG is written without a library: Plotly needs a browser to write pictures, and few machines for sweeps have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 48, 48
COLOURS = {"ours": "#0b6e4f", "stock": "#b3541e"}
TICKS = 5

Lines = Mapping[str, Sequence[Mapping[str, Any]]]
"""Side -> the lines of `timeline.points`."""


def draw(sides: Lines, minutes: float, title: str) -> str:
    """The SVG. A side without a scored report has no line, only its summary."""
    scores = [line["best_held"] for lines in sides.values() for line in lines if line["best_held"] is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.01
    low, high = low - margin, high + margin

    def x(minute: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * minute / minutes

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (score - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 20, title, weight="bold"),
        text(WIDTH - RIGHT, HEIGHT - 8, "minutes since the command", anchor="end"),
        text(LEFT, 38, "best overall score on held-out rows, chosen on search rows"),
    ]
    for tick in range(TICKS + 1):
        minute, score = minutes * tick / TICKS, low + (high - low) * tick / TICKS
        parts += [
            f'<path d="M{LEFT} {y(score):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>',
            text(LEFT - 6, y(score) + 4, f"{score:.3f}", anchor="end"),
            text(x(minute), HEIGHT - BOTTOM + 18, f"{minute:g}", anchor="middle"),
        ]
    for place, (side, lines) in enumerate(sides.items()):
        colour = COLOURS[side]
        parts.append(text(WIDTH - RIGHT - 8, HEIGHT - BOTTOM - 14 - 16 * place, summary(side, lines), "end", colour))
        scored = [line for line in lines if line["best_held"] is not None]
        if scored:
            steps = "".join(f"H{x(line['minutes']):.1f}V{y(line['best_held']):.1f}" for line in scored)
            path = f"M{x(scored[0]['minutes']):.1f} {y(scored[0]['best_held']):.1f}{steps}H{x(minutes):.1f}"
            parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>", ""])


def summary(side: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """A side's name, final score, examples and finished trials in words."""
    if not lines:
        return f"{side}: no report"
    last = lines[-1]
    best = "no score" if last["best_held"] is None else f"{last['best_held']:.4f}"
    return f"{side}: {best}, {last['examples']:,} examples trained, {last['finished']} trials finished"


def text(
    x: float, y: float, content: str, anchor: str = "start", colour: str = "#222222", *, weight: str = "normal"
) -> str:
    """An SVG text element at (x, y)."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f"<text {place}>{escape(content)}</text>"
