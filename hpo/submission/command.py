"""A sweep's command as a job runs it: `hpo run` where the sweep is not there yet, `hpo resume` where it is.

A job may start more than once: after a time limit, a preemption, the loss of its first machine. So the sweep's name is
fixed when the file is written, and every start asks the store whether the sweep exists (`hpo status`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE = 180
"""Seconds of the grace period, unless another is asked for."""
SHORTEST = 30
"""Seconds of the grace period that a sweep needs at least to write its checkpoints."""
RESERVE = 15
"""Seconds of the grace period that are left once trials have written their checkpoints: for the last rows, for Ray."""


def patience(grace: int) -> int:
    """Seconds of a grace period in which trials can write checkpoints."""
    return grace - RESERVE


class SubmissionError(ValueError):
    """A file for a cluster cannot be written as requested."""


@dataclass(frozen=True)
class SweepCommand:
    """The commands of one sweep, without the cluster's address, which only the running job knows."""

    name: str
    """Name of the sweep."""
    store: str
    """Folder that holds all sweeps, as the job's machines see it."""
    start: tuple[str, ...]
    """Words that begin the sweep, such as `hpo run full --trials 24`, and go on with one that exists in the case of
    `hpo resume` and `hpo extend`."""
    again: tuple[str, ...]
    """Words that go on with a sweep that exists."""

    def __post_init__(self) -> None:
        for words in (self.start, self.again):
            for word in words:
                check_text("command", word)

    @property
    def exists(self) -> tuple[str, ...]:
        """Words that succeed where the sweep exists, and print its phase."""
        return ("hpo", "status", self.name, "--store", self.store, "--json")

    @property
    def stop(self) -> tuple[str, ...]:
        """Words that ask the sweep's driver to pause."""
        return ("hpo", "stop", self.name, "--store", self.store)

    def shell(self) -> str:
        """Bash arrays `start`, `again`, `exists` and `stop`, which hold exactly these words."""
        words = {"start": self.start, "again": self.again, "exists": self.exists, "stop": self.stop}
        return "".join(f"{name}=({quoted(value)})\n" for name, value in words.items())


def script(*names: str) -> str:
    """The text of these scripts of this folder, one after the other."""
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)


def quoted(words: Sequence[str]) -> str:
    """The words as bash reads them back, whatever they hold. A word with a line break stays one word."""
    return " ".join(shlex.quote(word) for word in words)


def check_text(name: str, text: str) -> None:
    """Raise SubmissionError for text that no argument of a process can hold, or that is no Unicode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SubmissionError(f"`{name}`: {text!r} is no valid Unicode; give text in UTF-8.") from error
    if "\0" in text:
        raise SubmissionError(f"`{name}` must not hold a NUL character, as {text!r} does; leave it out.")


def check_least(name: str, value: int | None, least: int) -> None:
    """Raise SubmissionError for an integer below `least`; None passes."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise SubmissionError(f"`{name}` must be an integer of at least {least}, not {value!r}.")
