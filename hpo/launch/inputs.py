"""Inputs of a sweep that its record describes, besides its tasks' data files.

Of augmented sentences, synonyms and NLI pairs it holds the SHA-256: trials that read different files cannot be
compared. Of all training rows it holds the facts that costs depend on (`hpo.launch.costs`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.launch.plan import complete_for
from hpo.launch.record import WorkloadRecord
from hpo.space.space import Space

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.data.files import Corpus
    from minbert.tasks import Task


def inputs(space: Space, start: Sequence[Mapping[str, Any]], corpus: Corpus) -> dict[str, str]:
    """File name -> SHA-256, for every file that a branch of the space or a configuration of `start` reads.

    Raises DataError if a file is missing.
    """
    from minbert import requirements

    paths: dict[str, Path] = {}
    for config in reachable(space, start, corpus.tasks):
        paths |= {path.name: path for path in requirements.reads(config, corpus)}
    return {name: _sha256(path) for name, path in sorted(paths.items())}


def workload(space: Space, start: Sequence[Mapping[str, Any]], corpus: Corpus) -> WorkloadRecord:
    """The facts about training rows, those of stages that a trial may have included. Raises DataError."""
    from minbert.training.cost import Workload

    stages = (stage for config in reachable(space, start, corpus.tasks) for stage in config.stages.chain())
    return WorkloadRecord.of(Workload.of(corpus, stages=stages))


def reachable(space: Space, start: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]) -> Iterator[Config]:
    """Configurations that together take every branch of the space, and those of `start`."""
    from minbert.config import Config

    for config in (*space.branches(complete_for(tasks)), *start):
        yield Config.from_dict(config, tasks)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
