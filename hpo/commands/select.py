"""Build ensembles of kept trials: `hpo ensemble`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from hpo.commands.common import (
    JsonOption,
    StoreOption,
    SweepArgument,
    console,
    open_sweep,
    print_json,
    warned,
)
from hpo.display.messages import busy, tell
from hpo.driver.selection import METHOD, SIZE, Choice


def ensemble(
    sweep: SweepArgument,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="top-k, average, greedy, greedy-per-task, greedy-bagged, stack; auto: the best of them, with its "
            "size, by cross-validation on `search`; soup: one model with the mean of the members' weights.",
        ),
    ] = METHOD,
    size: Annotated[int, typer.Option("--size", min=1, help="Members at most; auto tries fewer too.")] = SIZE,
    name: Annotated[str | None, typer.Option("--name", help="Name of the ensemble. Default: METHOD-SIZE.")] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Show every method by cross-validation on `search`, the saved soups, and an ensemble of the best "
            "configuration's seeds if it ran several times.",
        ),
    ] = False,
    full_dev: Annotated[
        bool, typer.Option("--full-dev", help="Estimate the score on the full dev set too, as papers do; takes longer.")
    ] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Choose an ensemble of kept trials on `search`, estimate its score on `held`, and save it.

    `search` and `held` are two parts of the dev files. `held` and the test files choose nothing. The best single trial
    is estimated beside the ensemble. Chosen trials that have not predicted `held` yet do so now.

    A soup is greedy (Wortsman et al. 2022): it begins with the best trial, and each of the next nine whose weights fit
    joins if the mean scores no worse on `search`. That takes up to ten evaluations, here and now; other methods take
    none, and a soup is not cross-validated. `hpo predict` and `hpo export` take it by its name.

    Example: hpo ensemble quickstart-1 --size 5 --compare

    Example: hpo ensemble quickstart-1 --method soup
    """
    from hpo.display.summary import show_ensemble
    from hpo.driver.ensemble import ensemble_here, saved_soups

    folder = open_sweep(store, sweep)
    with warned(folder), busy("choosing members and estimating their score"):
        record = ensemble_here(folder, tell, Choice(method, size, full_dev, compare), name)
        soups = saved_soups(folder, tell) if compare else None
    if json:
        print_json(record if soups is None else {**record, "soups": soups})
    else:
        show_ensemble(record, console(), soups)


COMMANDS: Mapping[str, Callable[..., Any]] = {"ensemble": ensemble}
