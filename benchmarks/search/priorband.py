"""PriorBand of `neural-pipeline-search` 0.17, in a process of its own: ask and tell as JSON lines.

This file runs in another environment (it needs pandas 2) and imports nothing of this project. A line that describes a
space begins a new sweep:

    {"leaves": [...], "defaults": {name: choice}, "fidelity": [least, most], "seed": 0,
     "flat": false}  ->  {}
    {"ask": true}                      ->  {"id": "7_rung_2", "fidelity": 2222, "params": {name: choice}}
    {"tell": "7_rung_2", "value": 0.7} ->  {}

The space keeps its branches, unless it is to be flat: a branch is an operation whose arguments are its parameters, as
NePS's users write conditional parameters. Every parameter has its default as prior, with medium confidence. The first
configuration is the priors' mode at the highest fidelity. Brackets are those of Hyperband with eta 3, PriorBand's own
default.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import neps
import numpy as np
import torch
from neps.space.neps_spaces.neps_space import NepsCompatConverter, resolve
from neps.space.neps_spaces.sampling import OnlyPredefinedValuesSampler

CONFIDENCE = "medium"

Leaf = dict[str, Any]
Conditions = tuple[tuple[str, str], ...]


class Branches:
    """A space's leaves as NePS parameters: those without conditions at the top, others inside their branch.

    NePS gets p0, p1, ... for names, and the number of a choice for its value: a choice of None would vanish, and texts
    would be taken for operators.
    """

    def __init__(self, leaves: list[Leaf], defaults: dict[str, Any]) -> None:
        self.leaves, self.defaults = leaves, defaults
        self.number = {leaf["name"]: index for index, leaf in enumerate(leaves)}
        self.groups: dict[Conditions, list[Leaf]] = {}
        for leaf in leaves:
            conditions = tuple((path, kind) for path, kind in leaf["conditions"])
            self.groups.setdefault(conditions, []).append(leaf)

    def parameters(self, conditions: Conditions = ()) -> dict[str, Any]:
        """NePS parameters of the leaves that exist under exactly these conditions."""
        return {f"p{self.number[leaf['name']]}": self.parameter(leaf, conditions)
                for leaf in self.groups.get(conditions, [])}

    def flat(self) -> dict[str, Any]:
        """NePS parameters of all leaves, side by side."""
        return {f"p{self.number[leaf['name']]}": self.parameter(leaf, None) for leaf in self.leaves}

    def parameter(self, leaf: Leaf, conditions: Conditions | None) -> Any:
        """The NePS parameter of a leaf; without `conditions` its branches are plain choices."""
        prior = {"prior": self.defaults[leaf["name"]], "prior_confidence": CONFIDENCE}
        if "choices" not in leaf:
            kind = neps.Float if leaf["type"] == "float" else neps.Integer
            return kind(leaf["low"], leaf["high"], log=leaf["log"], **prior)
        prior["prior"] = leaf["choices"].index(prior["prior"])
        options: list[Any] = []
        for index, choice in enumerate(leaf["choices"]):
            kind = conditions is not None and leaf["path"].endswith("/kind")
            below = self.parameters((*conditions, (leaf["path"], choice))) if kind else {}
            options.append(neps.Operation(f"b{index}", kwargs=below) if below else index)
        return neps.Categorical(tuple(options), **prior)

    def params(self, resolved: dict[str, Any]) -> dict[str, Any]:
        """The choices of a resolved configuration by our names."""
        found: dict[str, Any] = {}
        for key, value in resolved.items():
            if not key.startswith("p"):
                continue
            leaf = self.leaves[int(key[1:])]
            if isinstance(value, neps.Operation):
                found.update(self.params(dict(value.kwargs)))
                value = int(str(value.operator)[1:])
            found[leaf["name"]] = leaf["choices"][value] if "choices" in leaf else value
        return found


def begun(setting: dict[str, Any]) -> tuple[Branches, neps.AskAndTell]:
    """A space and its optimiser before its first trial."""
    random.seed(setting["seed"])
    np.random.seed(setting["seed"])  # noqa: NPY002  NePS draws from the global generators
    torch.manual_seed(setting["seed"])
    branches = Branches(setting["leaves"], setting["defaults"])
    parameters = branches.flat() if setting["flat"] else branches.parameters()
    fidelity = neps.IntegerFidelity(*setting["fidelity"])
    space = type("Space", (neps.PipelineSpace,), {**parameters, "fidelity": fidelity})()
    return branches, neps.AskAndTell(neps.algorithms.priorband(space, sample_prior_first="highest_fidelity"))


def asked(branches: Branches, optimizer: neps.AskAndTell) -> dict[str, Any]:
    """The next configuration. NePS gives that of a space with branches as its draws, to be resolved."""
    trial = optimizer.ask()
    found = dict(trial.config)
    if "fidelity" not in found:
        data = NepsCompatConverter.from_neps_config(trial.config)
        sampler = OnlyPredefinedValuesSampler(predefined_samplings=data.predefined_samplings)
        resolved, _ = resolve(optimizer.optimizer.space, domain_sampler=sampler,
                              environment_values=data.environment_values)  # fmt: skip
        found = dict(resolved.get_attrs())
    return {"id": trial.id, "fidelity": int(found["fidelity"]), "params": branches.params(found)}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict[str, Any] = {}
        if "leaves" in message:
            branches, optimizer = begun(message)
        elif "tell" in message:
            optimizer.tell(message["tell"], -message["value"])  # NePS minimises
        else:
            answer = asked(branches, optimizer)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
