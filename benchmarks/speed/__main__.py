"""The command: choose cases, measure them in rounds, print one Markdown table.

    python -m benchmarks.speed --data ../shared/data/cs224n
    python -m benchmarks.speed --only lora --only smart --rounds 1 --steps 2

With a GPU the cases of a GPU are measured, otherwise those of a CPU. What cannot be measured is named below the table
with its reason; a side that fails does not end the others, but the exit code is then 1.
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
    """What the rounds of one case gave, in the case's unit."""

    case: Case
    ours: list[float] = field(default_factory=list)
    rival: list[float] = field(default_factory=list)
    """Empty where there is no rival here."""

    def cells(self) -> list[str]:
        unit = self.case.unit
        ratios = [mine / theirs for mine, theirs in zip(self.ours, self.rival, strict=False)]
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios) or "-"
        median = f"{statistics.median(ratios):.2f}" if ratios else "-"
        theirs = f"{number(statistics.median(self.rival))} {unit}: {self.case.against}" if self.rival else "-"
        return [self.case.what, f"{number(statistics.median(self.ours))} {unit}", theirs, shown, median, self.case.goal]


def number(value: float) -> str:
    """Three significant digits, more for large values."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder in the class format; default: the sample corpus")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a case; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the cases, and what keeps one from being measured")
    parser.add_argument("--all", action="store_true", help="also what makes no sense here, such as slow bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="fewest steps inside the clock")
    parser.add_argument("--seconds", type=float, default=0.0, help="fewest seconds inside the clock")
    parser.add_argument("--processes", type=int, default=2, help="processes of a side at a time, one thread each")
    parser.add_argument("--out", type=Path, help="write the table there as well")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases of this machine that are asked for."""
    import torch

    from benchmarks.speed.cases import ON_A_CPU, ON_A_GPU, find

    here = ON_A_GPU if torch.cuda.is_available() else ON_A_CPU
    known = [case.name for case in here]
    for name in options.only:
        if name not in known:
            sys.exit(f"Unknown case `{name}` of --only. Expected some of: {', '.join(known)}.")
    return [find(name) for name in options.only or known]


def obstacle(case: Case, everything: bool) -> str | None:
    """Why a case cannot be measured here; None: it can."""
    from minbert.encoder.base import PACKAGE

    if case.minilm and importlib.util.find_spec(PACKAGE) is None:
        return f"the default encoder ({PACKAGE}) is not installed"
    return None if everything else case.why_not()


def without_rival(case: Case) -> str | None:
    """Why the rival's side cannot be measured here; None: it can."""
    return "transformers is not installed" if case.foreign and not importlib.util.find_spec("transformers") else None


def measure(case: Case, settings: Options, rounds: int, processes: int) -> Measured:
    """All rounds of a case, the sides in turn. Raises RuntimeError where a process fails."""
    found = Measured(case)
    sides = [("ours", case.processes[0], found.ours)]
    if without_rival(case) is None:
        sides.append(("rival", case.processes[1], found.rival))
    for place in range(rounds):
        for side, count, values in sides:
            results = together(case, side, settings, count or processes)
            values.append(combined(case, results))
            print(f"{case.name}, round {place + 1}, {side}: {told(results)}", file=sys.stderr, flush=True)
    return found


def combined(case: Case, results: list[dict[str, Any]]) -> float:
    """The value of several processes together."""
    values = [float(one["value"]) for one in results]
    return sum(values) if case.unit in TOTALS else statistics.mean(values)


def told(results: list[dict[str, Any]]) -> str:
    """What each process measured, in words."""
    def one(name: str, value: Any) -> str:
        text = number(value) if isinstance(value, int | float) else str(value)
        return text if name == "value" else f"{name} {text}"

    return " + ".join(", ".join(one(*item) for item in result.items()) for result in results)


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
    """Everything that several processes would otherwise make at the same time: tokenised data, the large checkpoint."""
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base

    data = str(Path(options.data).expanduser().absolute()) if options.data else None
    able = [case for case in cases if obstacle(case, options.all) is None]
    base_size = ""
    if any(case.base_size for case in able):
        from benchmarks.speed.base_size import write

        base_size = str(write(folder, data))
        open_data(data, find_base(base_size))
    if any(case.minilm for case in able):
        open_data(data, find_base())
    return Options(data, base_size, options.steps, options.seconds, process=0)


if __name__ == "__main__":
    sys.exit(main())
