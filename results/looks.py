"""Looks at `held`: how many different predictors of a sweep have had their `held` score shown.

Each look makes the best of the scores that were seen less honest. A look is a small file in `<store>/<sweep>/looks/`,
named by what was looked at, so looking at the same predictor again is no further look.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping

from results.files import StoreError
from results.store import SweepFolder

FOLDER = "looks"


def look(folder: SweepFolder, members: Mapping[int, Mapping[str, float]], combination: str = "average") -> None:
    """Record that a predictor's `held` score is shown. `members`: trial -> its weight in each task. A store that cannot
    be written records nothing."""
    combined = combination if len(members) > 1 else None
    content = json.dumps({"members": members, "combination": combined}, sort_keys=True).encode()
    looks = folder.folder.child(FOLDER)
    with contextlib.suppress(FileExistsError, StoreError, OSError):
        looks.make()
        looks.write(f"{hashlib.sha256(content).hexdigest()[:16]}.json", content, new=True)


def looks(folder: SweepFolder) -> int:
    """Number of different predictors that were looked at."""
    return sum(name.endswith(".json") for name in folder.folder.child(FOLDER).names())
