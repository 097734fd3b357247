"""A Slurm batch script for a sweep: a head and one worker a machine, then `hpo run` or `hpo resume` (see `slurm.sh`).

The text has two parts. The upper one holds what the user gave: `#SBATCH` lines, of words that sbatch reads as they
stand, and bash arrays of quoted words. The lower one, `slurm.sh`, is the same for every sweep and reads those arrays.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from hpo.cluster.connection import OBJECT_STORE_BYTES
from hpo.submission.command import (
    GRACE,
    SHORTEST,
    SubmissionError,
    SweepCommand,
    check_least,
    check_text,
    patience,
    script,
)

CPUS = 4
"""CPU cores for each GPU of a machine, or for a machine without GPUs, where none are asked for."""
WORD = re.compile(r"[A-Za-z0-9_.,:;/+%@=&|*()\[\]-]+")
"""What a value of an `#SBATCH` line may hold: sbatch would take a blank, a quote or a `#` for something else."""
TIME = re.compile(r"(?:(?P<d>\d+)-(?P<dh>\d+)(?::(?P<dm>\d+)(?::(?P<ds>\d+))?)?|(?P<h>\d+):(?P<m>\d+):(?P<s>\d+))")
MEMORY = re.compile(r"[1-9]\d*[KMGT]?")


@dataclass(frozen=True)
class SlurmJob:
    """What a batch job asks of Slurm. Raises SubmissionError for a value that no job could have."""

    name: str
    """Name of the job, as `squeue` shows it."""
    time: str
    """Time limit as Slurm writes it: hours:minutes:seconds, or days-hours[:minutes[:seconds]]."""
    nodes: int = 1
    """Number of machines."""
    gpus_per_node: int = 0
    """GPUs of each machine."""
    cpus_per_node: int | None = None
    """CPU cores of each machine; None: CPUS for each GPU."""
    memory: str | None = None
    """Memory of each machine, such as 64G; None: as the partition gives."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    output: str | None = None
    """File of the job's output, with Slurm's patterns such as %j; None: slurm-%j.out."""
    grace: int = GRACE
    """Seconds before its end at which Slurm asks the sweep to pause. Slurm may ask up to a minute earlier."""
    retries: int = 5
    """Most times that the job starts again by itself."""

    def __post_init__(self) -> None:
        for field, least in {"nodes": 1, "gpus_per_node": 0, "cpus_per_node": 1, "retries": 0}.items():
            check_least(field, getattr(self, field), least)
        check_least("grace", self.grace, SHORTEST)
        for field in ("name", "partition", "account", "qos", "constraint", "output"):
            text = getattr(self, field)
            if text is not None and (not WORD.fullmatch(text) or text.startswith("-")):
                raise SubmissionError(
                    f"`{field}` must be one word of letters, digits and any of _.,:;/+%@=&|*()[]- for Slurm, and begin "
                    f"with no dash, not {text!r}."
                )
        if self.memory is not None and not MEMORY.fullmatch(self.memory):
            raise SubmissionError(f"`memory` must be a number with K, M, G or T, such as 64G, not {self.memory!r}.")
        if self.seconds <= self.grace:
            raise SubmissionError(f"`time` must be longer than the grace period of {self.grace} s, not {self.time}.")

    @property
    def cpus(self) -> int:
        """CPU cores of each machine."""
        return self.cpus_per_node or CPUS * max(1, self.gpus_per_node)

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        match = TIME.fullmatch(self.time) if self.time.isascii() else None
        if match is None:
            raise SubmissionError(
                f"`time` must be hours:minutes:seconds or days-hours:minutes:seconds, such as 12:00:00 or 2-00:00:00, "
                f"not {self.time!r}."
            )
        parts = {name: int(value or 0) for name, value in match.groupdict().items()}
        hours, minutes = parts["dh"] + parts["h"], parts["dm"] + parts["m"]
        return ((parts["d"] * 24 + hours) * 60 + minutes) * 60 + parts["ds"] + parts["s"]

    def options(self) -> Mapping[str, str | int | None]:
        """Option of sbatch -> its value; None: it takes none. One task is one machine's worker."""
        chosen: dict[str, str | int | None] = {
            "job-name": self.name,
            "nodes": self.nodes,
            "ntasks-per-node": 1,
            "cpus-per-task": self.cpus,
            "time": self.time,
            "signal": f"B:TERM@{self.grace}",
            "requeue": None,
            "no-kill": None,
            "open-mode": "append",
        }
        if self.gpus_per_node:
            chosen["gpus-per-node"] = self.gpus_per_node
        named = {
            "mem": self.memory,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "output": self.output,
        }
        return chosen | {name: value for name, value in named.items() if value is not None}


def batch_script(job: SlurmJob, command: SweepCommand, folder: str, programs: str) -> str:
    """The text of a file for `sbatch`. `folder`: where the command runs, so that relative paths mean what they mean
    there. `programs`: the folder of `hpo`, `ray` and `python`, put first into PATH."""
    check_text("folder", folder)
    check_text("programs", programs)
    if ":" in programs:
        raise SubmissionError(f"`programs` must hold no colon, which separates the folders of PATH, not {programs!r}.")
    lines = [f"#SBATCH --{name}" + ("" if value is None else f"={value}") for name, value in job.options().items()]
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "",
            f"# The sweep {command.name} on Slurm, written by `hpo launch slurm`. Submit this file with sbatch.",
            f"# Pause it:  hpo stop {command.name}  (it does not start again by itself; sbatch goes on with it)",
            "",
            f"cd -- {shlex.quote(folder)} || exit 2",
            f"PATH={shlex.quote(programs)}:$PATH",
            command.shell() + f"retries={job.retries}",
            f"export object_store={OBJECT_STORE_BYTES}  # bytes; data and weights are mapped from files",
            f"export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S={patience(job.grace)}  # seconds for checkpoints",
            "",
            "# From here on the script is the same for every sweep.",
            "",
            script("begin.sh", "slurm.sh"),
        ]
    )
