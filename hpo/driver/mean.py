"""The mean of several trials' weights, as one model (Wortsman et al. 2022).

    w = (w_1 + ... + w_n) / n

for every tensor of the model, frozen ones included. LoRA and DoRA are merged into the encoder first, since the mean of
products B A is not the product of their means; the mean then has no adapter. Branches of PAL are averaged as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.encoder.base import Base
    from minbert.tasks import Task
    from minbert.training.model import MultitaskModel

READING = ("encoding", "max_length", "shared_head")
"""Groups of parameters that decide how a model reads texts, and the shapes of its heads."""


def architecture(config: Config) -> dict[str, Any]:
    """Parameters that trials must share so that their weights can be averaged, by path."""
    branches = ("adapter/kind", "adapter/rank") if config.adapter.per_task else ()
    flat = config.flat()
    return {path: value for path, value in flat.items() if path.partition("/")[0] in READING or path in branches}


def mean_model(checkpoints: Sequence[Path], base: Base, tasks: Mapping[str, Task]) -> MultitaskModel:
    """The model with the mean weights of checkpoints whose `architecture` is equal, on the CPU.

    Its configuration and its arithmetic are those of the first checkpoint. Raises TrialCheckpointError.
    """
    import torch

    from minbert.encoder.lowrank import merge
    from minbert.techniques.adapters import NoAdapter
    from minbert.training.model import MultitaskModel
    from minbert.training.predict import model_of

    members = []
    total: dict[str, torch.Tensor] = {}
    for checkpoint in checkpoints:
        member = model_of(checkpoint, base, dict(tasks))
        if not member.config.adapter.per_task:
            merge(member)
        own = {name: value.detach() for name, value in member.named_parameters()}
        assert not total or own.keys() == total.keys(), "equal architectures have equal tensors"
        # In float64 the mean of equal numbers is that number.
        total = {name: value.double() + total.get(name, 0.0) for name, value in own.items()}
        members.append((member.config, member.dtype))
    config, arithmetic = members[0]
    whole = config if config.adapter.per_task else replace(config, adapter=NoAdapter())
    model = MultitaskModel(whole, base, dict(tasks), seed=0)
    mismatch = model.load_state_dict({name: value / len(members) for name, value in total.items()}, strict=False)
    assert not mismatch.unexpected_keys and total.keys() == dict(model.named_parameters()).keys()
    model.dtype = arithmetic
    return model
