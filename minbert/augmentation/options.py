"""Options of `python -m minbert data augment`: defaults and help."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """Write a file of new training sentences. Each is made from an old one and keeps its label.

One technique is drawn for each batch of rows. synonym, insert, delete and swap edit words and need no language model.
backtranslate and rewrite need a language model behind an endpoint that speaks the OpenAI chat protocol. Duplicates of
training rows and of other new rows are dropped. The file has the columns of the training file, then `source` (id of the
old row) and `technique`. Dev and test files are not read.

Exit codes: 0 done, 2 bad input, 3 stopped; continue with the same command and --resume.
"""

EXAMPLE = """examples:
  python -m minbert data augment
  python -m minbert data augment --data ../shared/data/cs224n --amount 0.5 --out augmented/half.csv
  python -m minbert data augment --techniques synonym=0.5 swap=0.5
  python -m minbert data augment --endpoint http://localhost:8000/v1 --model llama-3-8b --techniques rewrite=1
"""

USUAL_OUT = Path("augmented")
"""Default of `--out`; not in `runs`, the store of sweeps."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data augment` to the commands of `python -m minbert`."""
    data = commands.add_parser("data", help="make training data")
    inner = data.add_subparsers(dest="data_command", required=True)
    summary = "write a file of new training sentences made from old ones"
    augment = inner.add_parser("augment", help=summary, description=DESCRIPTION, epilog=EXAMPLE, allow_abbrev=False)
    augment.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_options(augment)
    _add_endpoint_options(augment)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", metavar="DIR", help="data folder (default: the sample corpus of the package)")
    task = "task to augment; it must classify single sentences (default sst)"
    add("--task", default="sst", metavar="NAME", help=task)
    out = f"output file, or a folder for <training file>-augmented.csv (default {USUAL_OUT})"
    add("--out", type=Path, default=USUAL_OUT, metavar="PATH", help=out)
    amount = "new sentences for each training row, above 0, at most 100 (default 1)"
    add("--amount", type=float, default=1.0, metavar="A", help=amount)
    seed = "random seed of techniques, words and temperatures (default 0)"
    add("--seed", type=int, default=0, metavar="N", help=seed)
    techniques = (
        "techniques and their probabilities, scaled to sum to 1 (default, from the paper: synonym=0.3 insert=0.2 "
        "delete=0.2 swap=0.2 backtranslate=0.1; the last only with --endpoint)"
    )
    add("--techniques", nargs="+", metavar="NAME=P", help=techniques)
    synonyms = (
        "thesaurus as JSON {lemma: {n,v,a,r: [...]}} (default: synonyms.json in the data folder, else "
        "../wordnet/synonyms.json beside it, else a small one of the package)"
    )
    add("--synonyms", type=Path, metavar="FILE", help=synonyms)
    batch = "sentences per batch, which is also one request, 1 to 1000 (default 100)"
    add("--batch", type=int, default=100, metavar="N", help=batch)
    add("--resume", action="store_true", help="continue an interrupted run; finished batches are kept")
    add("--json", action="store_true", help="print the summary as JSON instead of a table")


def _add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    endpoint = parser.add_argument_group("language model, for backtranslate and rewrite")
    add = endpoint.add_argument
    add("--endpoint", metavar="URL", help="address of the chat endpoint, for example http://localhost:8000/v1")
    add("--model", metavar="NAME", help="name of the model behind the endpoint")
    key = "environment variable that holds the endpoint's key (default MINBERT_ENDPOINT_KEY)"
    add("--key-variable", metavar="NAME", help=key)
    low = "lowest sampling temperature, drawn for each batch (default 0.55)"
    add("--temperature-low", type=float, default=0.55, metavar="T", help=low)
    high = "highest sampling temperature, at most 2 (default 0.85)"
    add("--temperature-high", type=float, default=0.85, metavar="T", help=high)
    languages = "languages of back-translation; one is drawn for each batch (default Spanish)"
    add("--languages", nargs="+", default=["Spanish"], metavar="NAME", help=languages)
    timeout = "longest wait for an answer (default 120)"
    add("--timeout", type=float, default=120.0, metavar="SECONDS", help=timeout)
    tries = "requests for one answer before the run stops (default 5)"
    add("--tries", type=int, default=5, metavar="N", help=tries)
