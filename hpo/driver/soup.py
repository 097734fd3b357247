"""Greedy soup: whose weights are averaged to one model is chosen on `search` (Wortsman et al. 2022, recipe 1).

The best trial is the first member. Each further candidate, best first, joins if the mean of all members' weights and
its own scores no worse on `search`. Other ensembles are chosen from predictions that the store holds; here every
candidate takes an evaluation of a new model, so at most CANDIDATES are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.driver.finalise import PredictError
from hpo.driver.jury import scoring
from hpo.driver.kept import path_of
from hpo.driver.ledger import Ledger
from hpo.driver.mean import architecture, mean_model
from hpo.driver.selection import Choice
from hpo.launch.record import job_of, record_of

if TYPE_CHECKING:
    from minbert.data.tokens import Data
    from minbert.training.model import MultitaskModel
    from results.candidates import Rows
    from results.choice import Selection
    from results.ensembles import Problem
    from results.predictions import Member, Prediction
    from results.store import SweepFolder

CANDIDATES = 10
"""Number of trials that are tried at most, the best ones."""


def with_soup(
    folder: SweepFolder, ledger: Ledger, selection: Selection, choice: Choice, tell: Callable[[str], None]
) -> Selection:
    """A selection with a greedy soup of its candidates in place of its ensemble. The soup has predicted what estimates
    need.

    `tell` gets a message before each evaluation. Without candidates the selection stays as it is. Raises PredictError
    if no candidate has kept weights.
    """
    from results.choice import SOUP, Ensemble, Soup, problem_of

    pool = selection.candidates
    if not pool.members:
        return selection
    problem = problem_of(folder, scoring(folder), pool)
    paths, left_out = compatible(folder, ledger, [list(pool.members)[place] for place in problem.order])
    tried = list(paths)[:CANDIDATES]
    evaluations = Evaluations(data_here(folder), paths, problem, pool.rows, len(tried), tell)
    members = greedy(tried, choice.size, evaluations)
    tell(f"the soup of trials {named(members)} predicts {'all of dev' if choice.full_dev else '`held`'} now")
    parts = ("held", "dev") if choice.full_dev else ("held",)
    further = [(task, found) for task, _, found in predictions(evaluations.model(members), evaluations.data, parts)]
    values, searched = zip(*(evaluations.done[members[: number + 1]] for number in range(len(members))), strict=True)
    soup = Soup(
        checkpoints=tuple(ledger.kept[trial].name for trial in members),
        values=values,
        evaluations=len(evaluations.done),
        predictions=joined([*searched[-1].items(), *further]),
    )
    ensemble = replace(Ensemble.even(members, pool.rows, SOUP), soup=soup)
    pool = replace(pool, skipped=[*pool.skipped, *left_out])
    return replace(selection, method=SOUP, size=choice.size, ensemble=ensemble, candidates=pool)


def greedy(order: Sequence[int], size: int, value: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    """Members of a greedy soup, in the order in which they joined, at most `size`.

    `order`: candidates, the best first. `value`: score of the mean weights of some of them.
    """
    members: tuple[int, ...] = (order[0],)
    best = value(members)
    for candidate in order[1:]:
        if len(members) == size:
            break
        score = value((*members, candidate))
        if score >= best:
            members, best = (*members, candidate), score
    return members


def compatible(folder: SweepFolder, ledger: Ledger, ranked: Sequence[int]) -> tuple[dict[int, Path], list[str]]:
    """Checkpoints of the trials whose weights can be averaged with those of the first of them that has kept ones, and a
    message about each other trial. Raises PredictError if none has."""
    from minbert.config import Config
    from minbert.tasks import choose_tasks
    from minbert.training.checkpoints import TrialCheckpointError, read_trial

    tasks = choose_tasks(record_of(folder).tasks)
    first: dict[str, Any] = {}
    paths: dict[int, Path] = {}
    left_out = []
    for trial in ranked:
        if trial not in ledger.kept:
            left_out.append(f"trial {trial}: its weights are not kept")
            continue
        try:
            path = path_of(folder, ledger.kept[trial])
            own = architecture(Config.from_dict(read_trial(path)[0]["config"], tasks))
        except TrialCheckpointError as error:
            left_out.append(f"trial {trial}: {error}")
            continue
        first = first or own
        if own == first:
            paths[trial] = path
        else:
            left_out.append(f"trial {trial}: cannot be averaged with trial {next(iter(paths))}, {differs(own, first)}")
    if not paths:
        raise PredictError(f"no candidate of {folder.name!r} has weights to average: {'; '.join(left_out)}")
    return paths, left_out


def differs(own: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """The first parameter in which two architectures differ: "encoding/sts/kind is bi and not cross"."""
    path = next(path for path in {**first, **own} if own.get(path) != first.get(path))
    return f"{path} is {own.get(path, 'absent')} and not {first.get(path, 'absent')}"


@dataclass
class Evaluations:
    """Overall scores on `search` of the mean weights of some trials, with the predictions that they come from."""

    data: Data
    paths: Mapping[int, Path]
    """Trial -> its checkpoint."""
    problem: Problem
    rows: Rows
    """Rows of `search` that are scored."""
    most: int
    """Largest number of evaluations."""
    tell: Callable[[str], None]
    done: dict[tuple[int, ...], tuple[float, Member]] = field(default_factory=dict)
    """Trials -> score and predictions of their mean."""

    def __call__(self, trials: tuple[int, ...]) -> float:
        from hpo.worker.trainer import as_stored
        from minbert.training.evaluation import predict_rows

        what = f"the mean of trials {named(trials)}" if len(trials) > 1 else f"trial {trials[0]}"
        size = sum(map(len, self.rows.values()))
        self.tell(f"{what} predicts {size:,} rows of `search` ({len(self.done) + 1} of at most {self.most})")
        model = self.model(trials)
        member = {
            task: as_stored(predict_rows(model, self.data, task, "dev", rows.astype(np.int32)))
            for task, rows in self.rows.items()
        }
        score = self.problem.score({task: prediction.values for task, prediction in member.items()})
        self.done[trials] = score, member
        return score

    def model(self, trials: Sequence[int]) -> MultitaskModel:
        """The model with the mean weights of these trials, on the device that predicts."""
        from minbert.training.train import default_device

        model = mean_model([self.paths[trial] for trial in trials], self.data.base, self.data.tasks)
        return model.to(default_device())


def named(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials))


def data_here(folder: SweepFolder) -> Data:
    """The tokenised data of a sweep, for predictions in this process."""
    from hpo.worker.trainer import data_of, use_device

    record = record_of(folder)
    job = job_of(record, folder.folder, record.resources.here())
    use_device(job.resources)
    return data_of(job)


def predictions(model: MultitaskModel, data: Data, parts: Sequence[str]) -> Iterator[tuple[str, str, Prediction]]:
    """Task, split and predictions of a model for some of the parts of `results.predictions`, as the store takes
    them."""
    from hpo.worker.trainer import as_stored
    from minbert.training import predict as core

    for task, split, prediction in core.predictions(model, data, parts):
        yield task, split, as_stored(prediction)


def joined(parts: Iterable[tuple[str, Prediction]]) -> dict[str, Prediction]:
    """Predictions for rows of one file of each task, put together: rows ascending, each once."""
    from results.predictions import Prediction

    groups: dict[str, list[Prediction]] = {}
    for task, prediction in parts:
        groups.setdefault(task, []).append(prediction)
    whole = {}
    for task, group in groups.items():
        rows, places = np.unique(np.concatenate([each.rows for each in group]), return_index=True)
        values = np.concatenate([each.values for each in group])[places]
        known = [each.probabilities for each in group if each.probabilities is not None]
        whole[task] = Prediction(rows, values, np.concatenate(known)[places] if known else None)
    return whole
