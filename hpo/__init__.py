"""The search: trains many configurations of one multitask BERT on a Ray cluster and stops weak ones early. Every result
is recorded, so that a sweep can be resumed.

    import hpo
    outcome = hpo.run(hpo.Launch("quickstart", trials=12, budget=2_000))
    outcome = hpo.resume("runs", outcome.name, hpo.Relaunch(trials=24))

Importing this package imports nothing heavy: each public name is loaded at its first use. No public name equals the
name of a subpackage: once that subpackage was imported, Python would put it in place of the function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.cluster.resources import ResourceRequest as ResourceRequest
    from hpo.driver.session import Outcome as Outcome
    from hpo.driver.session import resume as resume
    from hpo.driver.session import run as run
    from hpo.launch.plan import Plan as Plan
    from hpo.launch.prepare import prepare as prepare
    from hpo.launch.request import Launch as Launch
    from hpo.launch.request import Relaunch as Relaunch

_MODULE_OF = {
    "Launch": "hpo.launch.request",
    "Outcome": "hpo.driver.session",
    "Plan": "hpo.launch.plan",
    "Relaunch": "hpo.launch.request",
    "ResourceRequest": "hpo.cluster.resources",
    "prepare": "hpo.launch.prepare",
    "resume": "hpo.driver.session",
    "run": "hpo.driver.session",
}
"""Public name -> the module that defines it."""

__all__ = ["Launch", "Outcome", "Plan", "Relaunch", "ResourceRequest", "prepare", "resume", "run"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
