"""Processes of one side of a case: all load and warm up, then they start their clocks together.

The parent waits until every process has printed `ready`, then sends `go` to all. So no process measures while another
still loads.
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
"""Environment variables for one thread: some libraries read them at import."""


def together(case: Case, side: str, options: Options, count: int) -> list[dict[str, Any]]:
    """Measurements of `count` processes of a side that run together. Raises RuntimeError if one fails."""
    more = dict(case.rival_environment) if side == "rival" else {}
    running, pipe = [], subprocess.PIPE
    with tempfile.TemporaryFile("w+") as errors:
        for number in range(count):
            settings = json.dumps(asdict(replace(options, process=number)))
            command = python("benchmarks.speed.processes", case.name, side, settings)
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
    """Run one process. Arguments: case, side, and options as JSON."""
    import torch

    from benchmarks.speed.cases import find

    name, side, settings = sys.argv[1:]
    torch.set_num_threads(1)
    measure = getattr(find(name), side)(Options(**json.loads(settings)))
    print(READY, flush=True)
    if sys.stdin.readline().strip() == GO:
        print(json.dumps(dict(measure())))


if __name__ == "__main__":
    main()
