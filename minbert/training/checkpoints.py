"""Trial checkpoints: the files from which an interrupted trial continues to the same end as an unbroken one.

A checkpoint is a folder `<attempt>-<step>/`; the step is a report's milestone or, between reports, the exact number of
examples. It holds `weights.safetensors` (trainable tensors, float32), `optimizer.safetensors` (AdamW's moments and
other state of training), `trial.json` (configuration, position, seed, base) and `done.json`, written last, with the
checkpoint's report. Readers ignore a folder without `done.json`. No random state is saved: randomness is a function of
seed and position (`minbert.randomness`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert.disk import make, sync

if TYPE_CHECKING:  # a process that handles names and files alone, as a driver, starts without torch
    from torch import Tensor

FORMAT = 4
"""Format of the checkpoints that this version writes, and from which a trial continues."""

READABLE = (2, 3, FORMAT)
"""Formats whose weights this version reads."""


DONE = "done.json"
"""File that makes a checkpoint complete; it holds the checkpoint's report."""
MOMENTS = "optimizer.safetensors"
"""File with the state of training, two thirds of a checkpoint's bytes; without it the weights still predict."""


class TrialCheckpointError(ValueError):
    """Error for a trial checkpoint that is incomplete, damaged or of another trial."""


def path_of(directory: Path, attempt: int, step: int) -> Path:
    """Folder of an attempt's checkpoint at a step."""
    return directory / f"{attempt}-{step}"


def step_of(name: str) -> int:
    """Examples at a checkpoint, from the name of its folder."""
    return int(name.partition("-")[2])


def order_of(name: str) -> tuple[int, int] | None:
    """(step, attempt) from the name of a checkpoint's folder: the greater, the newer; None for any other name."""
    attempt, _, step = name.partition("-")
    return (int(step), int(attempt)) if attempt.isdecimal() and step.isdecimal() else None


def write(path: Path, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], trial: dict[str, Any]) -> None:
    """Write all files of a checkpoint except `done.json`."""
    from safetensors.torch import save_file

    shutil.rmtree(path, ignore_errors=True)
    make(path)
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, path / "weights.safetensors")
    save_file({name: value.detach().contiguous() for name, value in moments.items()}, path / MOMENTS)
    (path / "trial.json").write_text(json.dumps({"format": FORMAT, **trial}))
    for name in ("weights.safetensors", MOMENTS, "trial.json"):
        sync(path / name)


def finish(path: Path, report: dict[str, Any] | None) -> None:
    """Write `done.json`: the checkpoint is then complete for readers, even after a power cut."""
    temporary = path / ".done.json"
    temporary.write_text(json.dumps({"report": report}))
    sync(temporary)
    temporary.rename(path / DONE)
    sync(path)


def digest(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a checkpoint's weights."""
    file = path / "weights.safetensors"
    with file.open("rb") as stream:
        return file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def is_complete(path: Path) -> bool:
    """Whether a checkpoint's folder holds `done.json`."""
    return (path / DONE).is_file()


def complete(directory: Path) -> list[Path]:
    """Complete checkpoints in a trial's folder, oldest first: by step, then by attempt."""
    paths = directory.glob("*-*") if directory.is_dir() else ()
    ordered = [(order, path) for path in paths if (order := order_of(path.name)) and is_complete(path)]
    return [path for _, path in sorted(ordered)]


def newest(directory: Path) -> Path | None:
    """Complete checkpoint with the highest step in a trial's folder; None if there is none."""
    paths = complete(directory)
    return paths[-1] if paths else None


def prune(directory: Path, keep: Path) -> None:
    """Delete all checkpoints of the same or earlier attempts, complete or not, except `keep`. Other files stay."""
    for name in replaced((path.name for path in directory.glob("*-*")), by=keep.name):
        shutil.rmtree(directory / name, ignore_errors=True)


def replaced(names: Iterable[str], by: str) -> list[str]:
    """The names of checkpoints of the same or earlier attempts than the checkpoint `by`, which replaces them.

    Those of later attempts stay: a later attempt may run while this one is thought lost.
    """
    last = order_of(by)
    assert last is not None
    return [name for name in names if name != by and (order := order_of(name)) and order[1] <= last[1]]


def read_trial(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Contents of a complete checkpoint's `trial.json`, and its report. Raises TrialCheckpointError."""
    if not is_complete(path):
        raise TrialCheckpointError(f"{path} is not a complete trial checkpoint: done.json is missing.")
    try:
        trial = json.loads((path / "trial.json").read_text())
        report = json.loads((path / DONE).read_text())["report"]
        written = trial["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrialCheckpointError(f"{path} cannot be read: {error}") from error
    if written not in READABLE:
        readable = ", ".join(map(str, READABLE))
        raise TrialCheckpointError(f"{path} has format {written}; this version reads the formats {readable}.")
    return trial, report


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint's file `name`, `weights` or `optimizer`. Raises TrialCheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / f"{name}.safetensors"
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise TrialCheckpointError(f"{file} is missing or damaged: {error}") from error
