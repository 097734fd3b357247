"""Trial checkpoints: what an interrupted trial needs to end as an unbroken one.

A checkpoint is a folder `<attempt>-<step>/`, the step being a report's milestone or, between reports, the true count of
examples. It holds `weights.safetensors` (trainable tensors, float32), `optimizer.safetensors` (AdamW moments),
`trial.json` (configuration, position, seed, base) and `done.json`, written last, with the report that the checkpoint
belongs to. A folder without `done.json` does not exist for a reader. Nothing random is saved: it is a function of seed
and position (`minbert.randomness`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minbert.disk import sync

FORMAT = 2


class TrialCheckpointError(ValueError):
    """A trial checkpoint that is incomplete, damaged or of another trial."""


def path_of(directory: Path, attempt: int, step: int) -> Path:
    """Where the checkpoint of an attempt at a step stands."""
    return directory / f"{attempt}-{step}"


def _place(path: Path) -> tuple[int, int] | None:
    """(step, attempt) of a checkpoint's folder; None for anything else."""
    attempt, _, step = path.name.partition("-")
    return (int(step), int(attempt)) if attempt.isdecimal() and step.isdecimal() else None


def write(path: Path, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], trial: dict[str, Any]) -> None:
    """Write everything but the mark of completion."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, path / "weights.safetensors")
    save_file({name: value.detach().contiguous() for name, value in moments.items()}, path / "optimizer.safetensors")
    (path / "trial.json").write_text(json.dumps({"format": FORMAT, **trial}))
    for name in ("weights.safetensors", "optimizer.safetensors", "trial.json"):
        sync(path / name)


def finish(path: Path, report: dict[str, Any] | None) -> None:
    """Write the mark of completion: from now on the checkpoint counts, also after a loss of power."""
    temporary = path / ".done.json"
    temporary.write_text(json.dumps({"report": report}))
    sync(temporary)
    temporary.rename(path / "done.json")
    for folder in (path, path.parent, path.parent.parent):
        sync(folder)


def digest(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a checkpoint's weights."""
    file = path / "weights.safetensors"
    with file.open("rb") as stream:
        return file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def is_complete(path: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    return (path / "done.json").is_file()


def complete(directory: Path) -> list[Path]:
    """Complete checkpoints of a trial, oldest first: by step, then by attempt."""
    paths = directory.glob("*-*") if directory.is_dir() else ()
    found = [(place, path) for path in paths if (place := _place(path)) and is_complete(path)]
    return [path for _, path in sorted(found)]


def newest(directory: Path) -> Path | None:
    """The complete checkpoint with the highest step below a trial's folder, if there is one."""
    found = complete(directory)
    return found[-1] if found else None


def prune(directory: Path, keep: Path) -> None:
    """Delete a trial's other checkpoints, complete or not, of the same or earlier attempts.

    Whatever else lies there stays, and so does what a later attempt writes while this one is thought lost.
    """
    kept = _place(keep)
    assert kept is not None
    for path in directory.glob("*-*"):
        place = _place(path)
        if path != keep and place and place[1] <= kept[1]:
            shutil.rmtree(path, ignore_errors=True)


def drop_moments(path: Path) -> None:
    """Give back the two thirds of a checkpoint that only further training needs; its weights still predict."""
    (path / "optimizer.safetensors").unlink(missing_ok=True)


def read_trial(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A complete checkpoint's `trial.json` and its report. Raises TrialCheckpointError."""
    if not is_complete(path):
        raise TrialCheckpointError(f"{path} is no complete trial checkpoint: done.json is missing.")
    try:
        trial = json.loads((path / "trial.json").read_text())
        report = json.loads((path / "done.json").read_text())["report"]
    except (OSError, ValueError, KeyError) as error:
        raise TrialCheckpointError(f"{path} cannot be read: {error}") from error
    if trial["format"] != FORMAT:
        raise TrialCheckpointError(f"{path} has format {trial['format']}, this version reads {FORMAT}.")
    return trial, report


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of `weights` or `optimizer`. Raises TrialCheckpointError."""
    file = path / f"{name}.safetensors"
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise TrialCheckpointError(f"{file} is missing or damaged: {error}") from error
