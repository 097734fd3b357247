"""Units: numbers as text (seconds, examples, scores, bytes), and durations read from text."""

from __future__ import annotations

import math

OVER = ("done", "stopped", "interrupted")
"""Phases of a sweep on which no driver works."""

TRAINING = ("searching", "repeating")
"""Phases of a sweep in which trials train."""


def duration(seconds: float | None) -> str:
    """Seconds as `8s`, `3m 12s`, `2h 05m`, `1d 03h`; a dash for unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, remainder = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {remainder:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}h"


def amount(number: float | None) -> str:
    """A count in four characters or so: `950`, `9,500`, `95.0k`, `1.25M`."""
    if number is None or not math.isfinite(number):
        return "-"
    if abs(number) < 10_000:
        return f"{number:,.0f}"
    if abs(number) < 999_950:
        return f"{number / 1e3:.1f}k"
    return f"{number / 1e6:.2f}M" if abs(number) < 999.995e6 else f"{number / 1e9:.2f}G"


def rate(per_second: float | None) -> str:
    """Examples per second, with one decimal below 10."""
    if per_second is None or not math.isfinite(per_second):
        return "-"
    return f"{per_second:.1f}" if 0 < per_second < 10 else amount(per_second)


def score(value: float | None) -> str:
    """A score with four decimals; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def signed(value: float | None) -> str:
    """A difference of scores with its sign and four decimals; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:+.4f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as `0.12 %`, `4.3 %`, `100 %`."""
    return "-" if share is None or not math.isfinite(share) else f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def digits(value: float | None) -> str:
    """A measured number with three digits: `0.0123`, `4.56`, `789`."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def size(count: float | None) -> str:
    """Bytes as `850 KiB`, `1.25 GiB`."""
    if count is None or not math.isfinite(count):
        return "-"
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 1000 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count / 2**10:.3g} KiB"


def interval(low: float | None, high: float | None) -> str:
    """A 95 % interval as `0.4810 .. 0.5230`."""
    return "-" if low is None or high is None else f"{score(low)} .. {score(high)}"


def plural(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def parse_duration(text: str) -> float:
    """Seconds in `90`, `90s`, `15m`, `2h` or `1d`; raises ValueError for any other text."""
    number, unit = (text[:-1], text[-1:]) if text[-1:].isalpha() else (text, "s")
    scale = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(unit.lower())
    try:
        seconds = float(number) * (scale or math.nan)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"a time must be a positive number, in seconds or such as 90s, 15m, 2h, 1d, not {text!r}")
    return seconds
