"""What `python -m minbert data augment` takes: its options, their defaults, its help."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """New training sentences from the old ones, each with the label of the old one.

For every batch of rows one technique is drawn: synonym (of a noun or verb), insert, delete, swap (of words), made here;
backtranslate and rewrite, made by a language model behind an endpoint that speaks the OpenAI chat protocol. Duplicates
of training rows and of each other are dropped. The file has the training file's columns, then `source` (id of the old
row) and `technique`. Dev and test files are not read.
"""

EXAMPLE = """examples:
  python -m minbert data augment
  python -m minbert data augment --data ../shared/data/cs224n --amount 0.5 --out augmented/half.csv
  python -m minbert data augment --techniques synonym=0.5 swap=0.5
  python -m minbert data augment --endpoint http://localhost:8000/v1 --model llama-3-8b --techniques rewrite=1
"""

USUAL_OUT = Path("augmented")
"""Not in `runs`: that is the search's store, which holds sweeps and nothing else."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `data augment` with the commands of `python -m minbert`."""
    data = commands.add_parser("data", help="make training data")
    raw = argparse.RawDescriptionHelpFormatter
    inner = data.add_subparsers(dest="data_command", required=True)
    augment = inner.add_parser(
        "augment", help="new training sentences from the old ones", description=DESCRIPTION, epilog=EXAMPLE
    )
    augment.formatter_class = raw
    add = augment.add_argument
    add("--data", help="folder in the class format (default: the sample corpus that the package carries)")
    add("--task", default="sst", help="a task that classifies single sentences (default sst)")
    add("--out", type=Path, default=USUAL_OUT, help=f"file, or folder for <train>-augmented.csv (default {USUAL_OUT})")
    add(
        "--amount",
        type=float,
        default=1.0,
        help="new rows for each training row, from 0 (exclusive) to 100 (default 1)",
    )
    add("--seed", type=int, default=0, help="of techniques, words and temperatures (default 0)")
    add(
        "--techniques",
        nargs="+",
        metavar="NAME=P",
        help="their probabilities, taken in proportion (default: the paper's, synonym=0.3 insert=0.2 delete=0.2 "
        "swap=0.2 backtranslate=0.1, the last with an endpoint only)",
    )
    add(
        "--synonyms",
        type=Path,
        metavar="FILE",
        help="JSON {lemma: {n,v,a,r: [...]}} (default: synonyms.json in the data "
        "folder, else ../wordnet/synonyms.json beside it, else a small one that the package carries)",
    )
    add("--batch", type=int, default=100, help="rows of one technique, and of one request, 1 to 1000 (default 100)")
    add("--resume", action="store_true", help="go on after an interruption; finished batches are not made again")
    add("--json", action="store_true", help="print the summary as JSON")
    add("--endpoint", metavar="URL", help="for example http://localhost:8000/v1")
    add("--model", metavar="NAME", help="name of the model behind the endpoint")
    add("--key-variable", metavar="NAME", help="environment variable with the key (default MINBERT_ENDPOINT_KEY)")
    add("--temperature-low", type=float, default=0.55, help="drawn for each batch from here (default 0.55) ...")
    add("--temperature-high", type=float, default=0.85, help="... to here (default 0.85)")
    add("--languages", nargs="+", default=["Spanish"], help="for back-translation, one drawn a batch (default Spanish)")
    add("--timeout", type=float, default=120.0, help="seconds to wait for an answer (default 120)")
    add("--tries", type=int, default=5, help="requests for one answer before stopping (default 5)")
