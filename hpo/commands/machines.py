"""Check machines and free their disks: `hpo doctor`, `hpo gc`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from hpo.commands.common import BAD_INPUT, JsonOption, StoreOption, console, print_json
from hpo.display.messages import busy

Address = Annotated[
    str | None, typer.Option("--address", help="Address of a running Ray cluster. Default: this machine.")
]
Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help="Folder with the files of the tasks.")]
Base = Annotated[
    str | None, typer.Option("--base", metavar="MODEL", help="Pretrained encoder. Default: the packaged MiniLM.")
]
GpusPerTrial = Annotated[
    float | None, typer.Option("--gpus-per-trial", min=0, help="GPUs of one trial. Default: 1 where there are GPUs.")
]


def doctor(
    address: Address = None,
    data: Data = None,
    base: Base = None,
    gpus_per_trial: GpusPerTrial = None,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Check that every machine of a cluster, or this one, can run sweeps, before any compute is spent.

    Each machine reads the data and the encoder, writes into the store, and compares its packages with this one's. Also
    shown: GPUs, clocks, free disks. `hpo run --address` makes the same checks. Exit code 0: sweeps can run; 2: they
    cannot.

    Example: hpo doctor --address auto --data /shared/data --store /shared/runs
    """
    from hpo.cluster.connection import connect
    from hpo.cluster.resources import ResourceRequest
    from hpo.cluster.survey import diagnosis
    from hpo.display import nodes
    from hpo.launch.prepare import check_local, check_writable

    check_local(store)
    check_writable(store)
    asked = ResourceRequest(gpus_per_trial=gpus_per_trial)
    with busy("asking every machine"), connect(address) as cluster:
        judged, free = diagnosis(store, data, base, asked.gpus_per_trial, driver=not cluster.own)
    if json:
        print_json(nodes.to_json(judged, free))
    else:
        nodes.show(judged, free, console())
    if not nodes.ready(judged):
        raise typer.Exit(BAD_INPUT)


COMMANDS: Mapping[str, Callable[..., Any]] = {"doctor": doctor}
