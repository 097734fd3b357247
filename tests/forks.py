"""Commands of the project as forks of one process that has imported most of what they need.

A short command spends most of its time on imports of Ray, torch and SciPy. A fork has its own arguments, folder, output
and exit code.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

PARENT = """
import json, os, runpy, sys
from hpo.cluster.connection import quiet
quiet()
import hpo.driver.finalise, hpo.driver.session, hpo.driver.tune, hpo.launch.prepare  # and with them Ray
import minbert.training.train, results.query, scipy.stats
for line in sys.stdin:
    module, arguments, folder = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.chdir(folder)
    for stream, name in enumerate((os.devnull, "stdout.txt", "stderr.txt")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()
"""


@contextlib.contextmanager
def forks(environment: dict[str, str]) -> Iterator[Callable[[list[str], Path], subprocess.CompletedProcess[str]]]:
    """A function that runs a command, `hpo ...` or `python -m minbert ...`, in a folder. The folder gets files
    `stdout.txt` and `stderr.txt`."""
    command = [sys.executable, "-P", "-c", PARENT]  # without -P Python would look for packages in this folder first
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as parent:  # its end closes standard input

        def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
            assert parent.stdin is not None
            assert parent.stdout is not None
            module, arguments = ("hpo", words[1:]) if words[0] == "hpo" else (words[2], words[3:])
            parent.stdin.write(json.dumps([module, arguments, str(folder)]) + "\n")
            parent.stdin.flush()
            code = int(parent.stdout.readline())
            stdout, stderr = ((folder / f"{name}.txt").read_text() for name in ("stdout", "stderr"))
            return subprocess.CompletedProcess(words, code, stdout, stderr)

        yield run
