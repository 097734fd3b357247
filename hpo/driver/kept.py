"""The kept weights of a stored trial as a model, or the mean of several trials' (a saved soup). Neither the data of the
sweep nor Ray is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.driver.finalise import PredictError, without_weights
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.driver.mean import mean_model
from hpo.launch.record import check_trainer, record_of
from hpo.worker.paths import checkpoint_folder

if TYPE_CHECKING:
    from minbert.encoder.base import Base
    from minbert.tasks import Task
    from minbert.training.model import MultitaskModel
    from results.store import SweepFolder


def path_of(folder: SweepFolder, kept: KeptWeights) -> Path:
    """Path of kept weights on this machine. Raises TrialCheckpointError if an object store does not have them."""
    from hpo.worker.checkpoints import local

    return local(checkpoint_folder(folder.folder, kept.trial), kept.name)


def kept_checkpoint(folder: SweepFolder, trial: int) -> Path:
    """Path of a trial's kept checkpoint. Raises PredictError for a trial without one."""
    return path_of(folder, _kept(folder, trial))


def kept_model(folder: SweepFolder, checkpoint: Path) -> tuple[MultitaskModel, Base]:
    """Model of a kept checkpoint on the CPU, and its base. Raises TrialCheckpointError, BaseEncoderError."""
    from minbert.training.predict import model_of

    base, tasks = _base_and_tasks(folder)
    return model_of(checkpoint, base, tasks), base


def soup_model(folder: SweepFolder, soup: Mapping[str, Any]) -> tuple[MultitaskModel, Base]:
    """Model of a saved soup on the CPU, from its record, and its base. Raises PredictError, TrialCheckpointError,
    BaseEncoderError."""
    base, tasks = _base_and_tasks(folder)
    return mean_model(soup_checkpoints(folder, soup), base, tasks), base


def soup_checkpoints(folder: SweepFolder, soup: Mapping[str, Any]) -> list[Path]:
    """Paths of the checkpoints of a saved soup's members, from its record. Raises PredictError for a member whose
    weights are gone or no longer those that were averaged."""
    paths = []
    for member in soup["members"]:
        kept = _kept(folder, int(member["trial"]))
        if kept.name != member["checkpoint"]:
            again = f"hpo ensemble {folder.name} --method soup --size {soup['size']} --name {soup['name']}"
            raise PredictError(
                f"soup `{soup['name']}` has checkpoint {member['checkpoint']} of trial {member['trial']}, and only "
                f"{kept.name} is kept now; choose it again: {again}"
            )
        paths.append(path_of(folder, kept))
    return paths


def _kept(folder: SweepFolder, trial: int) -> KeptWeights:
    kept = Ledger.of(folder).kept
    if trial not in kept:
        raise PredictError(without_weights(folder, trial, kept))
    return kept[trial]


def _base_and_tasks(folder: SweepFolder) -> tuple[Base, dict[str, Task]]:
    from minbert.encoder.base import find_base
    from minbert.tasks import choose_tasks

    record = record_of(folder)
    check_trainer(record, None)
    return find_base(record.base.asked), choose_tasks(record.tasks)
