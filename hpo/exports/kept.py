"""The kept weights of a stored trial as a model. Neither its data nor Ray is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hpo.driver.finalise import PredictError, without_weights
from hpo.driver.ledger import Ledger
from hpo.launch.record import check_trainer, record_of
from hpo.worker.paths import checkpoint_folder

if TYPE_CHECKING:
    from minbert.encoder.base import Base
    from minbert.training.model import MultitaskModel
    from results.store import SweepFolder


def kept_checkpoint(folder: SweepFolder, trial: int) -> Path:
    """Path of a trial's kept checkpoint. Raises PredictError for a trial without one, StoreError in an object store."""
    kept = Ledger.of(folder).kept
    if trial not in kept:
        raise PredictError(without_weights(folder, trial, kept))
    # Only the last part of the recorded path counts: the store may have moved since.
    return checkpoint_folder(folder.path, trial) / Path(kept[trial].checkpoint).name


def kept_model(folder: SweepFolder, checkpoint: Path) -> tuple[MultitaskModel, Base]:
    """Model of a kept checkpoint on the CPU, and its base. Raises TrialCheckpointError, BaseEncoderError."""
    from minbert.encoder.base import find_base
    from minbert.tasks import choose_tasks
    from minbert.training.predict import model_of

    record = record_of(folder)
    check_trainer(record, None)
    base = find_base(record.base.asked)
    return model_of(checkpoint, base, choose_tasks(record.tasks)), base
