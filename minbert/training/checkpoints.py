"""The files of a trial checkpoint: all that an interrupted trial needs to end as an unbroken one.

A checkpoint is a folder `<attempt>-<step>/`; the step is a report's milestone or, between reports, the true count of
examples. It holds `weights.safetensors` (trainable tensors, float32), `optimizer.safetensors` (AdamW's moments and
other state of training), `trial.json` (configuration, position, seed, base) and `done.json`, written last, with the
report of the checkpoint. Readers ignore a folder without `done.json`. Nothing random is saved: it is a function of seed
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

FORMAT = 3
"""Format of the checkpoints that are written."""

READABLE = (2, 3)
"""Formats that are read."""


class TrialCheckpointError(ValueError):
    """A trial checkpoint that is incomplete, damaged or of another trial."""


def path_of(directory: Path, attempt: int, step: int) -> Path:
    """Folder of the checkpoint of an attempt at a step."""
    return directory / f"{attempt}-{step}"


def _place(path: Path) -> tuple[int, int] | None:
    """(step, attempt) of a checkpoint's folder; None for any other path."""
    attempt, _, step = path.name.partition("-")
    return (int(step), int(attempt)) if attempt.isdecimal() and step.isdecimal() else None


def write(path: Path, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], trial: dict[str, Any]) -> None:
    """Write all files but `done.json`."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, path / "weights.safetensors")
    save_file({name: value.detach().contiguous() for name, value in moments.items()}, path / "optimizer.safetensors")
    (path / "trial.json").write_text(json.dumps({"format": FORMAT, **trial}))
    for name in ("weights.safetensors", "optimizer.safetensors", "trial.json"):
        sync(path / name)


def finish(path: Path, report: dict[str, Any] | None) -> None:
    """Write `done.json`: from now on the checkpoint exists for readers, also after a loss of power."""
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
    """Whether a checkpoint is complete."""
    return (path / "done.json").is_file()


def complete(directory: Path) -> list[Path]:
    """Complete checkpoints of a trial, oldest first: by step, then by attempt."""
    paths = directory.glob("*-*") if directory.is_dir() else ()
    placed = [(place, path) for path in paths if (place := _place(path)) and is_complete(path)]
    return [path for _, path in sorted(placed)]


def newest(directory: Path) -> Path | None:
    """The complete checkpoint with the highest step in a trial's folder; None if there is none."""
    paths = complete(directory)
    return paths[-1] if paths else None


def prune(directory: Path, keep: Path) -> None:
    """Delete a trial's other checkpoints, complete or not, of the same or earlier attempts.

    Other files stay, and so do the checkpoints of a later attempt, which may run while this one is thought lost.
    """
    own = _place(keep)
    assert own is not None
    for path in directory.glob("*-*"):
        place = _place(path)
        if path != keep and place and place[1] <= own[1]:
            shutil.rmtree(path, ignore_errors=True)


def drop_moments(path: Path) -> None:
    """Delete the state of training, two thirds of a checkpoint; its weights can still predict."""
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
    if trial["format"] not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise TrialCheckpointError(f"{path} has format {trial['format']}; this version reads formats {readable}.")
    return trial, report


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of `weights` or `optimizer`. Raises TrialCheckpointError."""
    file = path / f"{name}.safetensors"
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise TrialCheckpointError(f"{file} is missing or damaged: {error}") from error
