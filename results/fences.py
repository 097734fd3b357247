"""Generations: each run or resume of a sweep draws a line behind which older ones no longer count.

A generation begins in three steps, each durable before the next:

    1. claim   `fences/000002.claim`, created only if it is new: of two drivers that begin at once, one gets it
    2. look    the highest seq that counts, s
    3. fence   `fences/000002.json` holds s: rows of older generations with a higher seq are dropped by every reader

An older writer looks for claims after each write and before it acknowledges. So a row that was acknowledged stood
before the claim, is seen in step 2, and stays; a row that came later is never acknowledged. A generation that died
between claim and fence wrote nothing.
"""

from __future__ import annotations

import json

from results.files import Folder, StoreError, explained

FOLDER = "fences"


class Superseded(StoreError):  # noqa: N818 - what happened, as FileExists says it
    """A newer generation of the sweep has begun; this writer may add nothing more."""


def generation(sweep: Folder) -> int:
    """The highest generation that has begun; 0 if none has."""
    names = sweep.child(FOLDER).names()
    numbers = [name.split(".")[0] for name in names if name.endswith((".claim", ".json"))]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def claim(sweep: Folder, number: int) -> None:
    """Step 1: from here on no older generation gets a row acknowledged."""
    newest = generation(sweep)
    if number <= newest:
        raise StoreError(f"`generation` must be above {newest}, the newest of `{sweep.path}`; found {number}.")
    with explained("write to", sweep.path):
        try:
            sweep.child(FOLDER).write(f"{number:06d}.claim", b"", new=True)
        except FileExistsError:
            raise StoreError(f"Generation {number} of `{sweep.path}` was begun by another process just now.") from None


def fence(sweep: Folder, number: int, continued_from: int) -> None:
    """Step 3: older rows beyond `continued_from` count no more."""
    content = json.dumps({"generation": number, "continued_from": continued_from})
    with explained("write to", sweep.path):
        sweep.child(FOLDER).write(f"{number:06d}.json", content.encode())


def fences(sweep: Folder) -> tuple[dict[int, int], list[str]]:
    """Each generation's line, and warnings about files that are none."""
    folder = sweep.child(FOLDER)
    lines: dict[int, int] = {}
    warnings = []
    for name in folder.names():
        if name.endswith(".claim"):
            continue
        try:
            content = json.loads(folder.read(name))
            lines[int(content["generation"])] = int(content["continued_from"])
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            warnings.append(f"{folder.path}/{name} is skipped: it is no fence ({type(error).__name__}: {error}).")
    return lines, warnings
