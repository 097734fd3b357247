"""Input files of a sweep besides its tasks' data files: augmented sentences, synonyms, NLI pairs.

Their SHA-256 is recorded with the sweep: trials that read different files cannot be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.launch.plan import complete_for
from hpo.space.space import Space

if TYPE_CHECKING:
    from minbert.data.files import Corpus


def inputs(space: Space, start: Sequence[Mapping[str, Any]], corpus: Corpus) -> dict[str, str]:
    """File name -> SHA-256, for every file that a branch of the space or a configuration of `start` reads.

    Raises DataError if a file is missing.
    """
    from minbert import requirements
    from minbert.config import Config

    paths: dict[str, Path] = {}
    for config in (*space.branches(complete_for(corpus.tasks)), *start):
        paths |= {path.name: path for path in requirements.reads(Config.from_dict(config, corpus.tasks), corpus)}
    return {name: _sha256(path) for name, path in sorted(paths.items())}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
