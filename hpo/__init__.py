"""The search: trains many configurations of one multitask BERT on a Ray cluster and stops weak ones early. Every result
is recorded, so that a sweep can be resumed.

    import hpo
    sweep = hpo.run("quickstart", trials=12, budget=2_000)
    sweep.top(5), sweep.best, sweep.study
    sweep = hpo.resume(sweep.name, trials=24)
    sweep = hpo.open("mine", store="runs")

Importing this package imports nothing heavy: each public name is loaded at its first use. No public name equals the
name of a subpackage: once that subpackage was imported, Python would put it in place of the function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.api.launching import compare as compare
    from hpo.api.launching import open as open
    from hpo.api.launching import resume as resume
    from hpo.api.launching import run as run
    from hpo.api.sweep import StoredSweep as StoredSweep
    from hpo.cluster.resources import ResourceRequest as ResourceRequest
    from hpo.driver.callbacks import Callback as Callback
    from hpo.launch.plan import Plan as Plan
    from hpo.launch.prepare import prepare as prepare
    from hpo.launch.request import Launch as Launch
    from hpo.launch.request import Relaunch as Relaunch

_MODULE_OF = {
    "Callback": "hpo.driver.callbacks",
    "Launch": "hpo.launch.request",
    "Plan": "hpo.launch.plan",
    "Relaunch": "hpo.launch.request",
    "ResourceRequest": "hpo.cluster.resources",
    "StoredSweep": "hpo.api.sweep",
    "compare": "hpo.api.launching",
    "open": "hpo.api.launching",
    "prepare": "hpo.launch.prepare",
    "resume": "hpo.api.launching",
    "run": "hpo.api.launching",
}
"""Public name -> the module that defines it."""

__all__ = [
    "Callback",
    "Launch",
    "Plan",
    "Relaunch",
    "ResourceRequest",
    "StoredSweep",
    "compare",
    "open",
    "prepare",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
