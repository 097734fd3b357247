"""Use a trial or an ensemble outside its sweep: `hpo predict`, `hpo export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.commands.common import (
    InputError,
    JsonOption,
    StoreOption,
    SweepArgument,
    console,
    open_sweep,
    print_json,
    warned,
)
from hpo.display.messages import busy, tell
from hpo.driver.ledger import Ledger

if TYPE_CHECKING:
    from results.predictions import Prediction
    from results.store import SweepFolder


def predict(
    sweep: SweepArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Folder for the files; with --input a file (default: print)."),
    ] = None,
    trial: Annotated[
        int | None, typer.Option("--trial", min=0, help="A trial whose weights are kept. Default: the sweep's answer.")
    ] = None,
    ensemble: Annotated[str | None, typer.Option("--ensemble", metavar="NAME", help="A saved ensemble.")] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="File of texts to predict; -: standard input.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task of --input. Default: the only task of the sweep.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Text columns of --input. Default: named as the task's.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Format of --input: table, jsonl, text. Default: by the suffix.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Write predictions: of the dev and test files of every task, or of a file of your own.

    A trial or an ensemble predicts; without --trial and --ensemble the sweep's answer, before its end the best trial.

    Without --input they have the class leaderboard format. With --input each row gives its id, and the class with its
    probabilities or the score. Lines of text without a header are read with --format text, a tab within each pair.

    Example: hpo predict quickstart-1 --ensemble greedy-5 --out predictions

    Example: hpo predict quickstart-1 --trial 3 --task sts --input pairs.csv --columns left,right --out scores.csv
    """
    from hpo.driver.answer import predictor_of

    folder = open_sweep(store, sweep)
    with warned(folder):
        named = trial is not None or ensemble is not None
        trial, ensemble = predictor_of(folder, trial, ensemble)
        if not named:
            tell(f"trial {trial} predicts, the best of {sweep} (see: hpo best {sweep})")
        if input_ is not None:
            request = (input_, task, columns, format_, out, json, overwrite)
            _predict_texts(folder, trial, ensemble, request)
            return
        if out is None or any((task, columns, format_)):
            raise InputError("give --out DIR for files in the class format, or --input FILE (with --task, --columns)")
        paths = _predict_files(folder, trial, ensemble, out, overwrite)
    if json:
        print_json({"files": paths})
    else:
        for path in paths:
            console().print(str(path), soft_wrap=True)


def _predict_texts(folder: SweepFolder, trial: int | None, ensemble: str | None, request: tuple[Any, ...]) -> None:
    """Write the predictions for a file of texts; `request`: the fields of a `TextRequest`."""
    from hpo.exports.texts import predicted
    from hpo.launch.record import record_of
    from minbert.tasks import choose_tasks
    from minbert.training.texts import TextRequest

    def predict(task: str, texts: Sequence[tuple[str, ...]]) -> Prediction:
        return predicted(folder, trial, ensemble, task, texts, tell)

    TextRequest(*request).answer(choose_tasks(record_of(folder).tasks), predict)


def _predict_files(
    folder: SweepFolder, trial: int | None, ensemble: str | None, out: Path, overwrite: bool
) -> list[Path]:
    """Write the files in the class leaderboard format; returns their paths."""
    from hpo.exports.leaderboard import check_out, of_ensemble, of_soup, of_trial, write
    from results.choice import SOUP
    from results.selection import load

    check_out(folder, out, overwrite)
    if ensemble is not None:
        record = load(folder, ensemble)
        if record["combination"] == SOUP:
            tell(f"{ensemble} predicts the dev and test files now")
            return write(folder, of_soup(folder, record), out, f"ensemble {ensemble}")
        _predict(folder, [int(member["trial"]) for member in record["members"]])
        return write(folder, of_ensemble(folder, ensemble), out, f"ensemble {ensemble}")
    assert trial is not None
    _predict(folder, [trial])
    return write(folder, of_trial(folder, trial), out, f"trial {trial}")


def _predict(folder: SweepFolder, trials: list[int]) -> None:
    """Let each of these trials predict what is missing of its dev and test files."""
    from hpo.driver.finalise import PredictError, asked, finalise_here
    from results.predictions import PARTS

    if problems := finalise_here(folder, asked(folder, Ledger.of(folder), trials, PARTS), tell):
        raise PredictError("; ".join(problems.values()))


def export(
    sweep: SweepArgument,
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="Number of a trial with kept weights, or name of a saved soup.")
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to write; new, or empty.")],
    adapter: Annotated[
        str,
        typer.Option("--adapter", metavar="FORM", help="Form of what an adapter adds: merged, peft, own."),
    ] = "merged",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in DIR.")] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Export a trial with kept weights, or a soup, as a directory that `transformers` loads.

    It holds encoder, tokeniser, configuration, heads and a model card; `python -m minbert predict` predicts with it.
    LoRA and DoRA are merged into the encoder's weights; with --adapter peft they stay apart, as `peft` stores them.
    Branches of PAL fit no plain BERT: --adapter own keeps them for minbert alone.

    Example: hpo export quickstart-1 3 exported

    Example: hpo export quickstart-1 soup-5 exported
    """
    from hpo.exports.model import export as write

    folder = open_sweep(store, sweep)
    with warned(folder), busy("exporting"):
        summary = write(folder, trial, directory, form=adapter, overwrite=overwrite)
    if json:
        print_json(summary)
        return
    for name in summary["files"]:
        console().print(str(directory / name), soft_wrap=True)


COMMANDS: Mapping[str, Callable[..., Any]] = {"predict": predict, "export": export}
"""The commands of `hpo`, one file per group; each file ends with its table COMMANDS."""
