"""Texts that break out of careless quoting, for property tests."""

from __future__ import annotations

import random

PIECES = (
    "'", '"', "\\", "$(touch /tmp/broken)", "`id`", "${HOME}", "$((1))", "$(POD)", "\n", "\r", "\t", " ", ";", "&", "|",
    "#", "!", "*", "?", "[", "]", "{", "}", "(", ")", "<", ">", "~", "=", "-", "--", ":", ": ", "- ", "---", "...", "%",
    "&a", "*a", "@", "|-", ">", "NO", "1e3", "0o17", "null", "12:00:00", "\u2028", "\x85", "\x07", "\x1b", "\x7f",
    "\ufeff", "é", "漢", "\U0001f600", "EOF", "PYTHON", "a", "",
)  # fmt: skip


def texts(generator: random.Random, number: int) -> list[str]:
    """Texts of up to eight pieces each."""
    return ["".join(generator.choices(PIECES, k=generator.randint(0, 8))) for _ in range(number)]
