"""An ensemble of a stored sweep: chosen on `search`, estimated on `held` and saved, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpo.driver.finalise import finalise_here
from hpo.driver.ledger import Ledger
from hpo.driver.selection import METHOD, Choice, Needed, conclude, select, settle
from hpo.driver.soup import with_soup

if TYPE_CHECKING:
    from results.store import SweepFolder


def ensemble_here(
    folder: SweepFolder, tell: Callable[[str], None], choice: Choice, name: str | None = None
) -> dict[str, Any]:
    """Choose an ensemble or a soup, estimate its score and save its record, which is returned
    (`results.selection.conclude`).

    Predictions that are missing, as after a stop, are made in this process. Trials that cannot predict are left out;
    `tell` gets a message about each. Raises ValueError for an unknown method and a size below 1.
    """
    from results.choice import SOUP
    from results.ensembles import check

    check(choice.method, choice.size, (SOUP,))
    is_soup = choice.method == SOUP
    ledger = Ledger.of(folder)

    def predict(needs: Needed) -> Mapping[int, str]:
        problems = finalise_here(folder, needs.pending, tell)
        for problem in problems.values():
            tell(problem)
        return problems

    single = replace(choice, method="top-k", size=1)
    chosen = settle(folder, ledger, predict, single if is_soup else choice)
    assert chosen is not None, "predictions in this process never stop early"
    selection = chosen.selection
    if is_soup:
        selection = with_soup(folder, ledger, selection, choice, tell)
        if choice.compare:
            others = select(folder, ledger, replace(choice, method=METHOD), chosen.failed)
            selection = replace(selection, tried=others.tried)
    return conclude(folder, ledger, selection, name)


def saved_soups(folder: SweepFolder, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Records of the saved soups of a sweep, by name. `tell` gets a message about a record that cannot be read."""
    from results.choice import SOUP
    from results.files import StoreError
    from results.selection import load, saved

    records = []
    for name in saved(folder):
        try:
            records.append(load(folder, name))
        except StoreError as error:
            tell(str(error))
    return [record for record in records if record["combination"] == SOUP]
