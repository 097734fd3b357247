"""`hpo launch slurm`, `hpo launch kuberay`: files that start a sweep on a cluster. Nothing is started here."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from hpo.commands.common import InputError, StoreOption
from hpo.commands.options import TIMES
from hpo.commands.run import COMMANDS as SWEEPS
from hpo.display.messages import tell
from hpo.driver.stopping import PATIENCE
from hpo.submission.command import GRACE, SHORTEST, SweepCommand, patience

Words = Annotated[
    list[str],
    typer.Argument(metavar="-- hpo run ...", help="After `--`: the command, `hpo run`, `resume` or `extend`."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="File to write. Default: standard output.")]
JobName = Annotated[str | None, typer.Option("--job-name", help="Name of the job. Default: hpo- and the sweep's name.")]
Grace = Annotated[
    int, typer.Option("--grace-period", min=SHORTEST, help="Seconds between the request to pause and the job's end.")
]
Retries = Annotated[int, typer.Option("--retries", min=0, help="Most times that the job starts again by itself.")]


def _several(least: int, flag: str, text: str) -> Any:
    return typer.Option(flag, min=least, help=text)


def slurm(
    words: Words,
    limit: Annotated[str, typer.Option("--time", metavar="H:MM:SS", help="Time limit of the job, or D-HH:MM:SS.")],
    nodes: Annotated[int, _several(1, "--nodes", "Number of machines.")] = 1,
    gpus_per_node: Annotated[int, _several(0, "--gpus-per-node", "GPUs of each machine.")] = 0,
    cpus_per_node: Annotated[
        int | None, _several(1, "--cpus-per-node", "CPU cores of each machine. Default: 4 for each GPU.")
    ] = None,
    memory: Annotated[str | None, typer.Option("--mem", metavar="64G", help="Memory of each machine.")] = None,
    partition: Annotated[str | None, typer.Option("--partition")] = None,
    account: Annotated[str | None, typer.Option("--account")] = None,
    qos: Annotated[str | None, typer.Option("--qos")] = None,
    constraint: Annotated[str | None, typer.Option("--constraint", help="Features that the machines need.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="File of the job's output, with %j for its id.")
    ] = None,
    job_name: JobName = None,
    grace_period: Grace = GRACE,
    retries: Retries = 5,
    store: StoreOption = "runs",
    out: Out = None,
) -> None:
    """Write a file for sbatch: Ray on all machines of the job, with a token, then the sweep. It pauses before the job's
    end and goes on when the job starts again, or when the file is submitted again.

    Example: hpo launch slurm --nodes 2 --gpus-per-node 4 --time 12:00:00 --out job.sh -- hpo run full --data data
    """
    from hpo.submission.slurm import SlurmJob, batch_script

    command, _ = sweep_command(words, str(Path(store).absolute()) if "://" not in store else store, grace_period)
    job = SlurmJob(
        name=job_name or f"hpo-{command.name}",
        time=limit,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        memory=memory,
        partition=partition,
        account=account,
        qos=qos,
        constraint=constraint,
        output=output,
        grace=grace_period,
        retries=retries,
    )
    _write(batch_script(job, command, folder=str(Path.cwd()), programs=str(Path(sys.executable).parent)), out)
    if (Path(command.store) / command.name).exists():
        tell(f"note: the sweep {command.name} exists already: the job goes on with it")
    tell(f"sweep {command.name} in {command.store}; submit with: sbatch {out or 'FILE'}")


def kuberay(
    words: Words,
    image: Annotated[str, typer.Option("--image", help="Image of head and workers (see Dockerfile).")],
    store_claim: Annotated[
        str | None,
        typer.Option("--store-claim", metavar="PVC", help="Volume claim (ReadWriteMany) of a store that is a folder."),
    ] = None,
    store_secret: Annotated[
        str | None, typer.Option("--store-secret", help="Secret with the AWS_... variables of a store on S3.")
    ] = None,
    data_claim: Annotated[
        str | None, typer.Option("--data-claim", metavar="PVC", help="Volume claim mounted read-only at --data.")
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace")] = None,
    workers: Annotated[int, _several(1, "--workers", "Number of worker pods.")] = 1,
    max_workers: Annotated[
        int | None, _several(1, "--max-workers", "Autoscale from --workers to this many. Default: no autoscaling.")
    ] = None,
    gpus_per_worker: Annotated[int, _several(0, "--gpus-per-worker", "GPUs of a worker pod.")] = 0,
    cpus_per_worker: Annotated[int, _several(1, "--cpus-per-worker", "CPU cores of a worker pod.")] = 4,
    memory_per_worker: Annotated[str, typer.Option("--memory-per-worker", metavar="16Gi")] = "16Gi",
    head_cpus: Annotated[int, _several(1, "--head-cpus", "CPU cores of the head pod; trials get none of them.")] = 2,
    head_memory: Annotated[str, typer.Option("--head-memory", metavar="8Gi")] = "8Gi",
    submission_mode: Annotated[
        str, typer.Option("--submission-mode", help="K8sJobMode, SidecarMode, HTTPMode, or RayCluster: no job.")
    ] = "K8sJobMode",
    token_secret: Annotated[
        str | None, typer.Option("--token-secret", help="Secret with the key auth_token. Default: KubeRay makes one.")
    ] = None,
    job_name: JobName = None,
    grace_period: Grace = GRACE,
    retries: Retries = 5,
    store: Annotated[str, typer.Option("--store", metavar="DIR", help="Folder of all sweeps, in the pods.")] = "/store",
    out: Out = None,
) -> None:
    """Write a manifest for KubeRay: a cluster with a token, its volumes, and a job that runs the sweep, or resumes it
    when it starts again. Paths are those in the pods.

    Example: hpo launch kuberay --image IMAGE --store-claim store --workers 4 --gpus-per-worker 1 -- hpo run full
    """
    from hpo.submission.kuberay import KubeRayJob, manifest

    command, values = sweep_command(words, store, grace_period)
    files = [*values.get("start", ()), *values.get("start_full", ())]
    space = str(values.get("space", ""))
    named = [*files, *([space] if space.endswith(".py") else []), values.get("data"), values.get("config")]
    named = [str(path) for path in named if path]
    if outside := [path for path in named if not os.path.isabs(path)]:
        raise InputError(f"{outside[0]} must be an absolute path in the pods: in the image or on a volume.")
    job = KubeRayJob(
        name=job_name or re.sub(r"[^a-z0-9]+", "-", f"hpo-{command.name}".lower()).strip("-"),
        image=image,
        store_claim=store_claim,
        store_secret=store_secret,
        data_claim=data_claim,
        namespace=namespace,
        workers=workers,
        max_workers=max_workers,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        memory_per_worker=memory_per_worker,
        head_cpus=head_cpus,
        head_memory=head_memory,
        submission_mode=submission_mode,
        token_secret=token_secret,
        grace=grace_period,
        retries=retries,
    )
    _write(manifest(job, command, values.get("data")), out)
    tell(f"sweep {command.name} in {command.store}; submit with: kubectl apply -f {out or 'FILE'}")


def sweep_command(
    words: list[str], store: str, grace: int = GRACE
) -> tuple[SweepCommand, Mapping[str, Any]]:
    """The sweep that `hpo run ...` begins, or `hpo resume ...` and `hpo extend ...` go on with, and the values of its
    options. Raises an error where that command would refuse its words, or where a job could not run it.

    `store`: the store where the words name none. `grace`: seconds of the job's grace period, which shortens the time
    that a stop waits for checkpoints, unless the words name one.
    """
    if len(words) < 2 or words[0] != "hpo" or words[1] not in SWEEPS:
        expected = ", ".join(f"hpo {verb}" for verb in SWEEPS)
        raise InputError(
            f"After `--` must stand the sweep's command ({expected} ...), not {' '.join(words) or 'nothing'}."
        )
    verb, options = words[1], words[2:]
    context = _context(verb, options)
    values: dict[str, Any] = context.params
    if context.get_parameter_source("address").name == "COMMANDLINE":  # the job's comes before that of a --config file
        raise InputError("The command after `--` must not give `--address`: the job's own cluster is used.")
    if values.get("dry_run"):
        raise InputError("The command after `--` must not give `--dry-run`: a job would end at once.")
    where = str(values["store"])
    if context.get_parameter_source("store").name not in ("COMMANDLINE", "DEFAULT_MAP"):  # DEFAULT_MAP: --config
        options, where = ["--store", store, *options], store
    if values["pause_timeout"] is None and patience(grace) < PATIENCE:
        values["pause_timeout"] = patience(grace)
        options = ["--pause-timeout", f"{patience(grace)}", *options]
    elif (values["pause_timeout"] or 0) >= grace:
        raise InputError(
            f"`--pause-timeout` must be shorter than `--grace-period` ({grace} s), at whose end the job is killed, "
            f"not {values['pause_timeout']:g} s."
        )
    if verb != "run":
        name = str(values["sweep"])
        again = ("hpo", verb, *options)
        return SweepCommand(name, where, again, again), values
    name = values["name"]
    if name is None:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(values["space"]).stem).strip("-") or "sweep"
        name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        options = ["--name", name, *options]
    from results.files import safe_name

    safe_name(name, "Sweep name")
    times = {f"--{name.replace('_', '-')}": values[name] for name in TIMES if values[name] is not None}
    limits = [word for option, value in times.items() for word in (option, f"{value:g}")]
    resume = ("hpo", "resume", "--store", where, *limits, name)
    return SweepCommand(name, where, ("hpo", "run", *options), resume), values


def _context(verb: str, options: list[str]) -> Any:
    """The words of `hpo VERB`, read as that command reads them; nothing runs."""
    app = typer.Typer(add_completion=False)
    for name, command in SWEEPS.items():
        app.command(name)(command)
    group: Any = get_command(app)
    return group.commands[verb].make_context(verb, list(options), parent=group.context_class(group, info_name="hpo"))


def _write(text: str, out: Path | None) -> None:
    """Write the file whole or not at all, or print it."""
    if out is None:
        sys.stdout.write(text)
        return
    if out.exists():
        raise InputError(f"`--out`: {out} exists already. Remove it, or name another file.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


COMMANDS: Mapping[str, Callable[..., Any]] = {"slurm": slurm, "kuberay": kuberay}
