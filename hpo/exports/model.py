"""A trial or a soup as a directory that `transformers` loads (`minbert.training.exported`), with its model card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpo.driver.finalise import PredictError
from hpo.driver.kept import kept_checkpoint, kept_model, soup_checkpoints, soup_model
from hpo.exports.card import model_card, soup_scores, trial_scores

if TYPE_CHECKING:
    from minbert.encoder.base import Base
    from minbert.training.exported import Origin
    from minbert.training.model import MultitaskModel
    from results.store import SweepFolder


class Source(NamedTuple):
    """What is exported."""

    facts: dict[str, Any]
    """Its number or name, in the summary of the export."""
    title: str
    model: MultitaskModel
    base: Base
    origin: Origin
    scores: Iterator[str]
    """Lines of the model card."""


def export(folder: SweepFolder, name: str, directory: Path, *, form: str, overwrite: bool = False) -> dict[str, Any]:
    """Export a trial's kept weights, or a soup; returns the trial or the soup, the directory, the form of the adapter
    and the file names.

    `name`: number of the trial, or name of the soup. Raises PredictError for a trial without kept weights, for
    an unknown soup and for an ensemble of several models, ExportError, TrialCheckpointError, BaseEncoderError.
    """
    from minbert.training.exported import check_form, check_target, write

    check_target(directory, overwrite=overwrite)
    source = _trial(folder, int(name)) if name.isdecimal() else _soup(folder, name)
    check_form(source.model.config, form)
    card = model_card(folder, source.title, source.scores, source.model, source.origin, form)
    write(source.model, source.base, source.origin, directory, form=form, card=card, overwrite=overwrite)
    files = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    return {**source.facts, "directory": str(directory), "adapter": form, "files": files}


def _trial(folder: SweepFolder, trial: int) -> Source:
    from minbert.training.checkpoints import read_trial
    from minbert.training.exported import Origin

    checkpoint = kept_checkpoint(folder, trial)
    model, base = kept_model(folder, checkpoint)
    origin = Origin.of(read_trial(checkpoint)[0])
    return Source({"trial": trial}, f"trial {trial}", model, base, origin, trial_scores(folder, trial))


def _soup(folder: SweepFolder, name: str) -> Source:
    """A saved soup. Its origin is that of its first member, with the training rows of all."""
    from minbert.training.checkpoints import read_trial
    from minbert.training.exported import Origin
    from results.choice import SOUP
    from results.selection import load, saved

    if name not in (known := saved(folder)):
        raise PredictError(
            f"`TRIAL` must be the number of a trial or the name of a saved soup, not {name!r}. Ensembles of "
            f"{folder.name!r}: {', '.join(known) or 'none yet'}."
        )
    record = load(folder, name)
    if record["combination"] != SOUP:
        raise PredictError(
            f"ensemble `{name}` is {len(record['members'])} models, and an export holds one: name a trial, or a soup "
            f"(hpo ensemble {folder.name} --method soup)"
        )
    model, base = soup_model(folder, record)
    origins = [Origin.of(read_trial(path)[0]) for path in soup_checkpoints(folder, record)]
    examples = {task: sum(each.examples[task] for each in origins) for task in origins[0].examples}
    members = ", ".join(str(member["trial"]) for member in record["members"])
    title = f"{name}, the mean weights of trials {members}"
    origin = replace(origins[0], examples=examples)
    return Source({"ensemble": name}, title, model, base, origin, soup_scores(folder, record))
