"""Cases of techniques: each differs from what it is compared with, and none of the space `full` is forgotten."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.common import configuration
from benchmarks.techniques import BASE, WITHOUT_CASE, cases
from hpo.launch.plan import complete_for
from hpo.space.build import build
from minbert.tasks import choose_tasks
from search_spaces.domains import OneOf

TASKS = choose_tasks(None)
CONFIGS = {case.name: configuration(*BASE, *case.settings).to_dict() for case in cases()}


def at(config: Any, path: str) -> str | None:
    """The value at a path as JSON; None if this configuration has none."""
    for part in path.split("/"):
        if not isinstance(config, dict) or part not in config:
            return None
        config = config[part]
    return json.dumps(config)


def test_no_two_cases_are_one_configuration() -> None:
    assert len(CONFIGS) == len(cases())
    assert len({json.dumps(config, sort_keys=True) for config in CONFIGS.values()}) == len(CONFIGS)
    assert all(case.against in CONFIGS for case in cases())


def test_every_technique_of_full_has_a_case_or_a_reason() -> None:
    """Each named choice of a parameter, of whatever task, and another value of each parameter that the default has."""
    complete = complete_for(TASKS)
    space = build("full", list(TASKS)).space.resolved(complete)
    default = space.parameters(space.apply({}, complete), complete)
    assert default is not None
    held: dict[str, set[str | None]] = {}
    needed: dict[str, set[str | None]] = {}
    unchanged: set[str] = set()
    for leaf in (leaf for leaf in space.leaves if not leaf.constant):
        kind = "/".join("*" if part in TASKS else part for part in leaf.path.split("/"))
        held.setdefault(kind, set()).update(at(config, leaf.path) for config in CONFIGS.values())
        if isinstance(leaf.domain, OneOf) and all(isinstance(value, str | list) for value in leaf.domain.values):
            needed.setdefault(kind, set()).update(map(json.dumps, leaf.domain.values))
        elif leaf.name in default:
            unchanged.add(kind)
    unchanged = {kind for kind in unchanged if len(held[kind] - {None}) < 2}
    assert unchanged | {kind for kind in needed if needed[kind] - held[kind]} == WITHOUT_CASE.keys()
