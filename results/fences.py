"""Generations of writers, and their fences: once a new generation has begun, late rows of older ones do not count.

A generation is the writer of one run or resume of a sweep. It begins in three steps, each durable before the next:

    1. claim   create `generations/000002.json`; the file must be new, so only one of several drivers gets the number
    2. look    find s, the highest seq that counts
    3. fence   write s to `fences/000002.json`; readers drop rows of older generations with a higher seq

A driver that finds its number taken tries the next one. So a listing only tells where to begin, and a listing from a
client's memory (NFS) does no harm. Numbers follow each other, so a writer is superseded as soon as the next number is
taken. It looks for that file after each write, before it acknowledges the rows. So an acknowledged row was written
before the claim; step 2 sees it, and it counts. A row written after the claim is never acknowledged. A generation that
died between claim and fence has written no rows.

The content of a claim belongs to the driver: `hpo` records its process there, and its heartbeat is the file's age.
Sweeps of earlier versions claimed a second number, `fences/000002.claim`; such a file still takes its number.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from results.files import Folder, StoreError, explained

CLAIMS = "generations"
"""Folder of the claims."""
FENCES = "fences"
"""Folder of the fences."""


class Superseded(StoreError):  # noqa: N818 - names what happened, as FileExistsError does
    """The writer is superseded: a newer generation of the sweep has begun, so this writer may add no more rows."""


def claim_name(number: int) -> str:
    """File name of a generation's claim, and of its fence."""
    return f"{number:06d}.json"


def generation(sweep: Folder) -> int:
    """Number of the newest generation that has begun; 0 if none has."""
    names = (name for folder in (CLAIMS, FENCES) for name in sweep.child(folder).names())
    stems = (name.split(".")[0] for name in names if name.endswith((".json", ".claim")))
    return max((int(stem) for stem in stems if stem.isdigit()), default=0)


def claim(
    sweep: Folder,
    content: Callable[[int], bytes] = lambda number: b"{}",
    allow: Callable[[int], None] = lambda number: None,
) -> int:
    """Claim the next generation (step 1) and return its number: no row that an older writer writes from now on is
    acknowledged.

    `content`: what the claim with a number holds; `{}`: its writer has no heartbeat. `allow`: called with the number of
    the generation before, and again with each one that another driver takes meanwhile; its error ends the claim.
    """
    folder = sweep.child(CLAIMS)
    with explained("write to", folder.path):
        folder.make()  # a sweep may have been restored without it
        number = generation(sweep)
        while True:
            allow(number)
            number += 1
            with suppress(FileExistsError):
                folder.write(claim_name(number), content(number), new=True)
                return number


def claimed(sweep: Folder, number: int) -> bool:
    """Whether the generation `number` has begun."""
    folder = sweep.child(CLAIMS)
    folder.refresh()  # a client of NFS may remember that the file was not there
    return folder.exists(claim_name(number))


def superseded(sweep: Folder, number: int) -> bool:
    """Whether a newer generation than `number` has begun."""
    return claimed(sweep, number + 1)


def fence(sweep: Folder, number: int, continued_from: int) -> None:
    """Write a generation's fence (step 3): rows of older generations with a seq above `continued_from` do not count."""
    content = json.dumps({"generation": number, "continued_from": continued_from})
    folder = sweep.child(FENCES)
    with explained("write to", folder.path):
        folder.make()
        folder.write(claim_name(number), content.encode())


def fences(sweep: Folder) -> tuple[dict[int, int], list[str]]:
    """Fences (generation -> the seq that it continued from), and warnings about files that are not fences."""
    folder = sweep.child(FENCES)
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
