"""A trial as a directory that `transformers` loads (`minbert.training.exported`), with its model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.exports.card import model_card
from hpo.exports.kept import kept_checkpoint, kept_model

if TYPE_CHECKING:
    from results.store import SweepFolder


def export(folder: SweepFolder, trial: int, directory: Path, *, form: str, overwrite: bool = False) -> dict[str, Any]:
    """Export a trial's kept weights; returns the trial, the directory, the form of the adapter and the file names.

    Raises PredictError for a trial without kept weights, ExportError, TrialCheckpointError, BaseEncoderError.
    """
    from minbert.training.checkpoints import read_trial
    from minbert.training.exported import Origin, check_form, check_target, write

    checkpoint = kept_checkpoint(folder, trial)
    check_target(directory, overwrite=overwrite)
    model, base = kept_model(folder, checkpoint)
    check_form(model.config, form)
    origin = Origin.of(read_trial(checkpoint)[0])
    card = model_card(folder, trial, model, origin, form)
    write(model, base, origin, directory, form=form, card=card, overwrite=overwrite)
    files = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    return {"trial": trial, "directory": str(directory), "adapter": form, "files": files}
