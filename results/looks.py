"""Looks at `held`: how many different predictors of a sweep have had their `held` score shown.

Each look makes the best of the scores that were seen less honest. A look is a small file in `<store>/<sweep>/looks/`,
named by what was looked at, so looking at the same predictor again is no further look.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping

from results.files import StoreError
from results.store import SweepFolder

FOLDER = "looks"


def look(folder: SweepFolder, members: Mapping[int, Mapping[str, float]], combination: str = "average") -> None:
    """Record that a predictor's `held` score is shown. `members`: trial -> its weight in each task. A store that cannot
    be written records nothing; it can be read all the same."""
    combined = combination if len(members) > 1 else None
    content = json.dumps({"members": members, "combination": combined}, sort_keys=True).encode()
    looks = folder.folder.child(FOLDER)
    with contextlib.suppress(FileExistsError, StoreError, OSError):
        looks.make()
        looks.write(f"{hashlib.sha256(content).hexdigest()[:16]}.json", content, new=True)


def look_at_runs(folder: SweepFolder, runs: Iterable[int]) -> None:
    """Record that the `held` score of a configuration is shown: the mean score of its runs, or that of its only one."""
    look(folder, {run: dict.fromkeys(folder.tasks, 1.0) for run in runs}, "mean of scores")


def looks(folder: SweepFolder) -> int:
    """Number of different predictors that were looked at."""
    return sum(name.endswith(".json") for name in folder.folder.child(FOLDER).names())
