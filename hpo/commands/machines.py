"""Check machines and free their disks: `hpo doctor`, `hpo gc`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from hpo.commands.common import BAD_INPUT, JsonOption, StoreOption, console, open_store, print_json
from hpo.display.messages import busy, tell, warn

Address = Annotated[
    str | None,
    typer.Option("--address", help="Address of a running Ray cluster. Default: RAY_ADDRESS, else this machine."),
]
Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help="Folder with the files of the tasks.")]
Base = Annotated[
    str | None, typer.Option("--base", metavar="MODEL", help="Pretrained encoder. Default: the packaged MiniLM.")
]
GpusPerTrial = Annotated[
    float | None, typer.Option("--gpus-per-trial", min=0, help="GPUs of one trial. Default: 1 where there are GPUs.")
]


def _bytes(text: str) -> int:
    from minbert.disk import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def doctor(
    address: Address = None,
    data: Data = None,
    base: Base = None,
    gpus_per_trial: GpusPerTrial = None,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Check that every machine of a cluster, or this one, can run sweeps, before any compute is spent.

    Each machine reads the data and the encoder, writes into the store, and compares its packages with this one's.

    Also shown: GPUs, clocks, free disks. `hpo run --address` makes the same checks, and keeps trials away from machines
    with a problem.

    Exit codes: 0 sweeps can run, 2 they cannot.

    Example: hpo doctor --address auto --data /shared/data --store /shared/runs
    """
    from hpo.cluster.address import cluster_address
    from hpo.cluster.connection import connect
    from hpo.cluster.resources import ResourceRequest
    from hpo.cluster.survey import diagnosis
    from hpo.display import nodes
    from hpo.launch.prepare import check_writable

    check_writable(store)
    address = cluster_address(address)
    asked = ResourceRequest(gpus_per_trial=gpus_per_trial)
    with busy("asking every machine"), connect(address) as cluster:
        judged, free = diagnosis(store, data, base, asked.gpus_per_trial, tell, driver=not cluster.own)
    if json:
        print_json(nodes.to_json(judged, free))
    else:
        nodes.show(judged, free, console())
    if not nodes.ready(judged):
        raise typer.Exit(BAD_INPUT)


def gc(
    sweeps: Annotated[
        list[str] | None, typer.Argument(metavar="[SWEEP ...]", help="Sweeps. Default: all of the store.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=0, metavar="K", help="Of finished sweeps, delete weights beyond the best K too."),
    ] = None,
    caches: Annotated[
        int | None,
        typer.Option(
            "--caches", parser=_bytes, metavar="SIZE", help="Shrink this machine's caches to SIZE, such as 20G, or 0."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Free disk: delete what no sweep needs any longer. Rows, logs and predictions always stay.

    Always deleted: checkpoints that no row names, files of killed processes, replaced Parquet files.

    With --keep also weights of finished sweeps, except the best K, the default, the answer and ensembles.

    With --caches also tokenised data, features, stages and copies of weights that were not used for longest.

    Without it these stay below MINBERT_CACHE_SIZE, such as 20G; by default a quarter of their disk.

    A sweep on which a driver works is left alone.

    Example: hpo gc --keep 5 --caches 20G --dry-run
    """
    from hpo.display import waste
    from hpo.driver.upkeep import free_all, free_caches

    stored = open_store(store)
    freed = free_all(stored, sweeps, keep, dry_run=dry_run)
    warn(stored.warnings)
    if caches is not None:
        freed.append(free_caches(caches, dry_run=dry_run))
    if json:
        print_json(waste.to_json(freed, dry_run))
    else:
        waste.show(freed, dry_run, console())


COMMANDS: Mapping[str, Callable[..., Any]] = {"doctor": doctor, "gc": gc}
