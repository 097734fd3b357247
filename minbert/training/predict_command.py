"""The command `python -m minbert predict`: predictions of one trained model for a file, for lines, for a data folder.

Nothing heavy is imported at the top, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minbert.training.predict import Predictor

DESCRIPTION = """Predict texts with a trained model: an exported one, a checkpoint, or the --out folder of `train`.

Without --data the texts come from --input, or else from standard input, one row a line (for a pair of texts a tab
between them). Each row gives one line of CSV or JSON: its id, the predicted class with its probabilities, or the score.
With --data the dev and test files of all tasks are predicted, in the format of the class leaderboard.

Exit codes: 0 done, 2 bad input.
"""

EXAMPLE = """examples:
  echo "a good film" | python -m minbert predict trained/single --task sst
  python -m minbert predict exported --task sts --input pairs.csv --columns left,right --out scores.jsonl
  python -m minbert predict exported --data ../shared/data/cs224n --out predictions
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `predict` to the commands of `python -m minbert`."""
    summary = "predict texts or data files with a trained model"
    parser = commands.add_parser("predict", help=summary, description=DESCRIPTION, epilog=EXAMPLE, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="exported directory, checkpoint, or --out folder of `train`")
    add("--task", metavar="NAME", help="task whose head predicts (default: the only task of the model)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--input", type=Path, metavar="FILE", help="file of texts; - or none: standard input")
    source.add_argument("--data", type=Path, metavar="DIR", help="folder with dev and test files of all tasks")
    columns = "text columns of --input, in the order of the task's, such as left,right (default: named as the task's)"
    add("--columns", metavar="NAMES", help=columns)
    format_ = "format of the input: table, jsonl or text (default: by the suffix; standard input: text)"
    add("--format", metavar="NAME", help=format_)
    out = "file for the predictions, .csv or .jsonl (default: standard output); with --data their folder"
    add("--out", type=Path, metavar="PATH", help=out)
    add("--overwrite", action="store_true", help="replace existing files")
    base = "base encoder of a checkpoint, if it no longer lies where it lay in training"
    add("--base", metavar="MODEL", help=base)
    add("--threads", type=int, metavar="N", help="CPU threads (default: all CPUs that this process may use)")
    add("--json", action="store_true", help="print JSON lines instead of CSV")


def run(options: argparse.Namespace) -> None:
    """Predict and write. Raises ValueError for bad input."""
    from minbert.training.predict import open_predictor
    from minbert.training.texts import TextRequest

    if options.data is not None:
        _check_folder(options)
    predictor = open_predictor(options.model, options.base)
    if options.data is not None:
        _predict_folder(predictor, options)
        return
    asked = (options.input, options.task, options.columns, options.format, options.out, options.json)
    TextRequest(*asked, overwrite=options.overwrite).answer(predictor.model.tasks, predictor)


def _check_folder(options: argparse.Namespace) -> None:
    """Check the options of a prediction for a data folder. Raises ValueError."""
    for name in ("task", "columns", "format"):
        if getattr(options, name) is not None:
            raise ValueError(f"`--{name}` is for --input and standard input; --data predicts the files of all tasks.")
    if options.out is None:
        raise ValueError("`--data` needs `--out`, the folder for the predictions.")
    if not options.data.is_dir():
        raise ValueError(f"`--data` must be a folder with dev and test files; found {options.data}.")


def _predict_folder(predictor: Predictor, options: argparse.Namespace) -> None:
    """Write the predictions for every dev and test file that the folder has."""
    from minbert.data.files import read_file
    from minbert.data.leaderboard import FILES, file_name, file_text
    from minbert.training import outputs

    found = {
        options.out / file_name(task.leaderboard[0], file): (task, options.data / task.files[file])
        for task in predictor.model.tasks.values()
        for file in FILES
        if file in task.files and (options.data / task.files[file]).is_file()
    }
    if not found:
        raise ValueError(f"`--data` {options.data} has no dev or test file of {', '.join(predictor.model.tasks)}.")
    for out in found:
        outputs.check_out(out, overwrite=options.overwrite)
    rows = {out: read_file(path, task, labelled=False)[0] for out, (task, path) in found.items()}
    for out, (task, _) in found.items():
        prediction = predictor(task.name, rows[out].texts)
        text = file_text(task.leaderboard[1], task.kind, rows[out].ids, prediction.values.tolist())
        outputs.write(text, out)
        print(out)
