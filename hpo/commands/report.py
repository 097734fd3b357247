"""Report on sweeps: `hpo report` writes one page, or serves it while the sweeps run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hpo.commands.common import InputError, JsonOption, StoreOption, console, open_store, print_json, serve
from hpo.display.messages import busy, tell, warn

SweepsArgument = Annotated[list[str], typer.Argument(metavar="SWEEP", help="Names of sweeps (see `hpo list`).")]


def report(
    sweeps: SweepsArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File of the page. Default: SWEEP.html here.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve a page that follows the sweeps, on this machine alone, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, help="Port of --serve. Default: a free one.")] = 0,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Write a page about sweeps: scores on `held`, learning curves, parameters, costs, failures, errors.

    The page is one HTML file that loads nothing, so it can be mailed and read offline. It can be made while a sweep
    runs. Its table of errors shows sentences of the data.

    Example: hpo report quickstart-1 --out quickstart.html

    Example: hpo report quickstart-1 --serve
    """
    from hpo.report.write import write_page

    if serve and (out is not None or json):
        raise InputError("--serve writes no file; leave out --out and --json, or --serve.")
    if repeated := {name for name in sweeps if sweeps.count(name) > 1}:
        raise InputError(f"each sweep may be named once; named twice: {', '.join(sorted(repeated))}")
    if serve:
        _serve(store, sweeps, port)
        return
    folders = [open_store(store).open(name) for name in sweeps]
    with busy("reading the store"):
        path = write_page(folders, out or Path(f"{'-'.join(sweeps)}.html"))
    for folder in folders:
        warn(folder.warnings)
    if json:
        print_json({"file": path, "bytes": path.stat().st_size})
    else:
        console().print(str(path), soft_wrap=True)


def _serve(store: str, sweeps: list[str], port: int) -> None:
    """Serve the page of these sweeps until Ctrl-C."""
    from hpo.report.serve import HOST, Source, server

    source = Source(lambda: [open_store(store).open(name) for name in sweeps])
    source.newest()  # an unknown sweep is refused here, not in the browser
    try:
        running = server(source, port)
    except (OSError, OverflowError) as error:  # taken, not allowed, or no port at all
        reason = str(error).rstrip(".")
        raise InputError(f"`--port`: cannot listen on {HOST}:{port}: {reason}. Name another one.") from error
    tell(f"http://{HOST}:{running.server_port}/ follows {', '.join(sweeps)}; Ctrl-C ends it")
    serve(running)


COMMANDS: Mapping[str, Callable[..., Any]] = {"report": report}
