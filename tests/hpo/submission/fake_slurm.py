"""A Slurm of this machine alone: `srun`, `squeue` and `scontrol` as small programs, and a way to start a batch job.

Each task of `srun` is a process here, so all "machines" share one network address. Programs of the job (`ray`, `hpo`,
`python`) are either the real ones or those of `stand_ins`, which only record how they were called.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SRUN = """#!{python} -IS
import os, signal, subprocess, sys
options = [word for word in sys.argv[1:] if word.startswith("--")]
command = sys.argv[1 + len(options):]
with open({log!r}, "a") as file:
    file.write("srun " + " ".join(options) + "\\n")
number = int(next(word for word in options if word.startswith("--ntasks=")).partition("=")[2])
tasks = [subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(n)}}) for n in range(number)]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SQUEUE = "#!/bin/bash\ncat {quoted_state}\n"
SCONTROL = '#!/bin/bash\necho "scontrol $*" >>{quoted_log}\n'

RAY = """#!{python} -IS
import json, os, signal, socket, sys, time
options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[2:])
names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "SLURM_PROCID")
with open({log!r}, "a") as file:
    file.write("ray " + json.dumps(options | {{name: os.environ.get(name) for name in names}}) + "\\n")
def end(*_):
    time.sleep(0 if "head" in options else 0.1)
    with open({log!r}, "a") as file:
        file.write("ended " + ("head" if "head" in options else "worker") + "\\n")
    os._exit(1)
signal.signal(signal.SIGTERM, end)
if "head" in options and not os.path.exists({no_head!r}):
    listening = socket.create_server((options["node-ip-address"], int(options["port"])))
elif "head" in options:
    sys.exit("no head today")
print("Ray runtime started.", flush=True)
time.sleep(60)
"""
HPO = """#!{python} -IS
import json, os, signal, sys, time
sys.stdout.flush()
if sys.argv[1] == "status":
    if not os.path.exists({exists!r}):
        sys.exit(2)
    print(open({exists!r}).read())
    sys.exit(0)
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
with open({log!r}, "a") as file:
    file.write("hpo " + json.dumps(sys.argv[1:]) + "\\n")
if os.path.exists({slow!r}):
    time.sleep(60)
os._exit(int(open({code!r}).read()))
"""
PYTHON = """#!/bin/bash
[ "$1" = - ] || exit 1
until [ "$(grep -c "\\"address\\".*$RAY_AUTH_TOKEN" {quoted_log})" -ge "$3" ]; do sleep 0.05; done
"""


@dataclass(frozen=True)
class FakeSlurm:
    """Programs and notes of a Slurm in this folder."""

    folder: Path

    @property
    def log(self) -> Path:
        """A line for each call of a program that changes something."""
        return self.folder / "log"

    def calls(self, program: str) -> list[Any]:
        """The calls of a program in order: JSON values for `ray` and `hpo`, text for others."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        rest = [line.partition(" ")[2] for line in lines if line.split(" ")[0] == program]
        return [json.loads(line) for line in rest] if program in ("ray", "hpo") else rest

    def install(self) -> FakeSlurm:
        """Write the programs of Slurm."""
        self.folder.mkdir(parents=True)
        (self.folder / "state").write_text("RUNNING\n")
        (self.folder / "code").write_text("0")
        names = {name: str(self.folder / name) for name in ("log", "state", "code", "exists", "slow", "no_head")}
        names |= {f"quoted_{name}": shlex.quote(names[name]) for name in ("log", "state")}
        programs = {"srun": SRUN, "squeue": SQUEUE, "scontrol": SCONTROL}
        self._write(self.folder / "slurm", programs, names)
        self._write(self.folder / "stand_ins", {"ray": RAY, "hpo": HPO, "python": PYTHON}, names)
        return self

    @property
    def stand_ins(self) -> str:
        """Folder of programs that take the place of `ray`, `hpo` and `python`."""
        return str(self.folder / "stand_ins")

    def start(self, script: str, job: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a batch script as job number `job`, with the variables that Slurm sets from its `#SBATCH` lines."""
        options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, flags=re.MULTILINE))
        path = self.folder / "job.sh"
        path.write_text(script)
        variables = {
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NUM_NODES": options["nodes"],
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
            **({"SLURM_GPUS_ON_NODE": options["gpus-per-node"]} if "gpus-per-node" in options else {}),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RAY_", "CUDA_"))}
        search = f"{self.folder / 'slurm'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(path)],
            env={**kept, "PATH": search, **variables, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _write(self, folder: Path, programs: Mapping[str, str], names: Mapping[str, str]) -> None:
        folder.mkdir()
        for name, text in programs.items():
            (folder / name).write_text(text.format(python=sys.executable, **names))
            (folder / name).chmod(0o755)
