"""Fences of writers: once a new generation of writer has begun, late rows of older writers do not count.

A generation is the writer of one run or resume of a sweep. It begins in three steps, each durable before the next:

    1. claim   create `fences/000002.claim`; it must not exist, so only one of two simultaneous drivers succeeds
    2. look    find s, the highest seq that counts
    3. fence   write s to `fences/000002.json`; readers drop rows of older generations with a higher seq

An older writer looks for claims after each write, before it acknowledges the rows. So an acknowledged row was written
before the claim; step 2 sees it, and it counts. A row written after the claim is never acknowledged. A generation that
died between claim and fence has written no rows.
"""

from __future__ import annotations

import json

from results.files import Folder, StoreError, explained

FOLDER = "fences"


class Superseded(StoreError):  # noqa: N818 - names what happened, as FileExistsError does
    """The writer is superseded: a newer generation of the sweep has begun, so this writer may add no more rows."""


def generation(sweep: Folder) -> int:
    """Number of the newest generation that has begun; 0 if none has."""
    names = sweep.child(FOLDER).names()
    numbers = [name.split(".")[0] for name in names if name.endswith((".claim", ".json"))]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def claim(sweep: Folder, number: int) -> None:
    """Claim a generation (step 1): no row that an older writer writes from now on is acknowledged.

    Raises StoreError if this generation or a newer one has begun.
    """
    sweep.child(FOLDER).refresh()
    newest = generation(sweep)
    if number <= newest:
        raise StoreError(
            f"`generation` must be above {newest}, the newest generation of `{sweep.path}`; found {number}."
        )
    with explained("write to", sweep.path):
        try:
            sweep.child(FOLDER).write(f"{number:06d}.claim", b"", new=True)
        except FileExistsError:
            raise StoreError(f"Another process has just begun generation {number} of `{sweep.path}`.") from None


def fence(sweep: Folder, number: int, continued_from: int) -> None:
    """Write a generation's fence (step 3): rows of older generations with a seq above `continued_from` do not count."""
    content = json.dumps({"generation": number, "continued_from": continued_from})
    with explained("write to", sweep.path):
        sweep.child(FOLDER).write(f"{number:06d}.json", content.encode())


def fences(sweep: Folder) -> tuple[dict[int, int], list[str]]:
    """Fences (generation -> the seq that it continued from), and warnings about files that are not fences."""
    folder = sweep.child(FOLDER)
    continued: dict[int, int] = {}
    warnings = []
    for name in folder.names():
        if name.endswith(".claim"):
            continue
        try:
            content = json.loads(folder.read(name))
            continued[int(content["generation"])] = int(content["continued_from"])
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            warnings.append(f"{folder.path}/{name} is skipped: it is not a fence ({type(error).__name__}: {error}).")
    return continued, warnings
