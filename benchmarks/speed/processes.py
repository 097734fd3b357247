"""Processes of one side of a case: all load and warm up, then start their clocks together.

The parent waits until each has said `ready`, then tells all to go, so that none measures while another still loads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from typing import Any

from benchmarks.common import ROOT, environment, python
from benchmarks.speed.case import Case, Options

READY, GO = "ready", "go"

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""For libraries that look before anybody can tell them."""


def together(case: Case, side: str, options: Options, count: int) -> list[dict[str, Any]]:
    """What `count` processes of a side measured at the same time. Raises RuntimeError where one fails."""
    more = dict(case.rival_environment) if side == "rival" else {}
    running, pipe = [], subprocess.PIPE
    with tempfile.TemporaryFile("w+") as errors:
        for number in range(count):
            told = json.dumps(asdict(replace(options, process=number)))
            command = python("benchmarks.speed.processes", case.name, side, told)
            variables = environment(**ONE_THREAD, **more)
            running.append(
                subprocess.Popen(command, cwd=ROOT, env=variables, stdin=pipe, stdout=pipe, stderr=errors, text=True)
            )
        try:
            if all(_is_ready(process) for process in running):
                for process in running:
                    assert process.stdin is not None
                    process.stdin.write(f"{GO}\n")
                    process.stdin.flush()
                outputs = [process.communicate()[0].splitlines() for process in running]
                if all(process.returncode == 0 for process in running):
                    return [json.loads(lines[-1]) for lines in outputs]
        finally:
            for process in running:
                process.kill()
                process.wait()
        errors.seek(0)
        raise RuntimeError(f"{case.name}, {side}: {errors.read()[-3000:]}")


def _is_ready(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return any(line.strip() == READY for line in iter(process.stdout.readline, ""))


def main() -> None:
    """One process: case, side and options as arguments."""
    import torch

    from benchmarks.speed.cases import find

    name, side, told = sys.argv[1:]
    torch.set_num_threads(1)
    measure = getattr(find(name), side)(Options(**json.loads(told)))
    print(READY, flush=True)
    if sys.stdin.readline().strip() == GO:
        print(json.dumps(dict(measure())))


if __name__ == "__main__":
    main()
