"""The files beside the tasks' own that some trial of a sweep reads: sentences made before, synonyms, inference pairs.

Their SHA-256 is recorded with the sweep, for with other ones new trials could not be compared with the earlier ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.launch.plan import MismatchError, complete
from hpo.space.space import Space

if TYPE_CHECKING:
    from minbert.data.files import Corpus


def inputs(space: Space, start: Sequence[Mapping[str, Any]], corpus: Corpus) -> dict[str, str]:
    """File name -> SHA-256, of every file that a branch of the space or a given configuration reads.

    Raises DataError where one is missing.
    """
    from minbert import requirements
    from minbert.config import Config

    found: dict[str, Path] = {}
    for config in (*space.branches(complete), *start):
        found |= {path.name: path for path in requirements.reads(Config.from_dict(dict(config)), corpus)}
    return {name: _sha256(path) for name, path in sorted(found.items())}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_inputs(meta: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """Refuse to go on where a file that trials read is another one now. Records of older sweeps name none."""
    for name, recorded in meta["data"].get("inputs", {}).items():
        if found.get(name) != recorded:
            raise MismatchError(
                f"sweep {meta['name']!r} began with another {name} (SHA-256): {recorded}, now "
                f"{found.get(name, 'it is not read')}. Its trials and new ones could not be compared: start a new "
                "sweep under another name, or bring the old file back"
            )
