"""Command of the speed benchmark: it measures cases in rounds and prints one Markdown table.

    python -m benchmarks.speed --data ../shared/data/cs224n
    python -m benchmarks.speed --only lora --only smart --rounds 1 --steps 2

With a GPU the GPU's cases are measured, otherwise the CPU's. Below the table stand the cases that cannot be measured,
with the reasons. If a case fails, the other cases are still measured, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import compile_bytecode, markdown
from benchmarks.speed.case import TOTALS, Case, Options
from benchmarks.speed.processes import together

COLUMNS = ("what", "ours", "rival", "ratio by round", "median", "goal")


@dataclass
class Measured:
    """Measurements of one case by round, in the case's unit."""

    case: Case
    ours: list[float] = field(default_factory=list)
    rival: list[float] = field(default_factory=list)
    """Empty if the rival cannot be measured here."""

    def cells(self) -> list[str]:
        """The case's row of the table."""
        unit = self.case.unit
        ratios = [ours / rival for ours, rival in zip(self.ours, self.rival, strict=False)]
        by_round = ", ".join(f"{ratio:.2f}" for ratio in ratios) or "-"
        median = f"{statistics.median(ratios):.2f}" if ratios else "-"
        rival = f"{number(statistics.median(self.rival))} {unit}: {self.case.against}" if self.rival else "-"
        ours = f"{number(statistics.median(self.ours))} {unit}"
        return [self.case.what, ours, rival, by_round, median, self.case.goal]


def number(value: float) -> str:
    """A number as text: three significant digits, from 100 on all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder in the class format; default: the sample corpus")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="measure this case; repeatable")
    parser.add_argument("--list", action="store_true", help="list the cases, and why some cannot be measured")
    parser.add_argument("--all", action="store_true", help="also measure what makes no sense here, such as slow bf16")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side is measured")
    parser.add_argument("--steps", type=int, default=20, help="smallest number of timed steps")
    parser.add_argument("--seconds", type=float, default=0.0, help="smallest number of timed seconds")
    parser.add_argument("--processes", type=int, default=2, help="processes of a side, run together, one thread each")
    parser.add_argument("--out", type=Path, help="file to which the table is written too")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Case]:
    """The selected cases for this machine: --only, or all."""
    import torch

    from benchmarks.speed.cases import ON_A_CPU, ON_A_GPU, find

    names = [case.name for case in (ON_A_GPU if torch.cuda.is_available() else ON_A_CPU)]
    for name in options.only:
        if name not in names:
            sys.exit(f"Unknown case `{name}` of --only. Expected some of: {', '.join(names)}.")
    return [find(name) for name in options.only or names]


def obstacle(case: Case, everything: bool) -> str | None:
    """The reason why a case cannot be measured here; None if it can. `everything`: --all."""
    from minbert.encoder.base import PACKAGE

    if case.minilm and importlib.util.find_spec(PACKAGE) is None:
        return f"the default encoder ({PACKAGE}) is not installed"
    return None if everything else case.why_not()


def without_rival(case: Case) -> str | None:
    """The reason why the rival of a case cannot be measured here; None if it can."""
    return "transformers is not installed" if case.foreign and not importlib.util.find_spec("transformers") else None


def measure(case: Case, settings: Options, rounds: int, processes: int) -> Measured:
    """Measure all rounds of a case, the sides in turn. Raises RuntimeError if a process fails."""
    measured = Measured(case)
    sides = [("ours", case.processes[0], measured.ours)]
    if without_rival(case) is None:
        sides.append(("rival", case.processes[1], measured.rival))
    for place in range(rounds):
        for side, count, values in sides:
            results = together(case, side, settings, count or processes)
            values.append(combined(case, results))
            print(f"{case.name}, round {place + 1}, {side}: {in_words(results)}", file=sys.stderr, flush=True)
    return measured


def combined(case: Case, results: list[dict[str, Any]]) -> float:
    """The value of processes that ran together: their sum for rates, otherwise their mean."""
    values = [float(result["value"]) for result in results]
    return sum(values) if case.unit in TOTALS else statistics.mean(values)


def in_words(results: list[dict[str, Any]]) -> str:
    """The measurements of each process in words."""

    def entry(name: str, value: Any) -> str:
        text = number(value) if isinstance(value, int | float) else str(value)
        return text if name == "value" else f"{name} {text}"

    return " + ".join(", ".join(entry(*item) for item in result.items()) for result in results)


def main() -> int:
    options = parse()
    cases, notes, rows, failed = chosen(options), [], [], False
    if options.list:
        for case in cases:
            print(f"{case.name:12} {case.what}; against {case.against}. {obstacle(case, options.all) or ''}".rstrip())
        return 0
    compile_bytecode()
    with tempfile.TemporaryDirectory(prefix="minbert-bench-") as folder:
        settings = prepared(options, cases, Path(folder))
        for case in cases:
            reason = obstacle(case, options.all)
            if reason is None:
                try:
                    rows.append(measure(case, settings, options.rounds, options.processes).cells())
                    reason = without_rival(case) and f"no rival: {without_rival(case)}"
                except RuntimeError as error:
                    failed, reason = True, f"failed: {error}"
            if reason is not None:
                notes.append(f"- {case.name} ({case.what}): {reason}")
                print(notes[-1], file=sys.stderr, flush=True)
    text = "\n".join([markdown(COLUMNS, rows), "", *notes]).rstrip()
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return int(failed)


def prepared(options: argparse.Namespace, cases: list[Case], folder: Path) -> Options:
    """The options of the processes. Prepares what they share: tokenised data and the encoder of BERT-base's size."""
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base

    data = str(Path(options.data).expanduser().absolute()) if options.data else None
    measurable = [case for case in cases if obstacle(case, options.all) is None]
    base_size = ""
    if any(case.base_size for case in measurable):
        from benchmarks.speed.base_size import write

        base_size = str(write(folder, data))
        open_data(data, find_base(base_size))
    if any(case.minilm for case in measurable):
        open_data(data, find_base())
    return Options(data, base_size, options.steps, options.seconds, process=0)


if __name__ == "__main__":
    sys.exit(main())
