"""The same trials on every device that is here: finite, and the same whether interrupted or not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from minbert.data.tokens import Data
from minbert.training import checkpoints
from minbert.training.report import State
from minbert.training.train import train
from tests.minbert.configs import configure

CONFIGS = {
    "bf16": ["precision=bf16"],
    "bf16 without attention dropout": ["precision=bf16", "dropout/attention=0.0"],
    "float32": ["precision=float32"],
    "cached features": ["adapter/kind=frozen"],
    "cached layers": ["adapter/kind=lora", "adapter/layers/kind=top", "adapter/layers/count=1"],
    "dora": ["adapter/kind=dora"],
    "gradnorm": ["mixing/balance/kind=gradnorm"],
    "uncertainty": ["mixing/balance/kind=uncertainty"],
    "pcgrad": ["mixing/combine/kind=pcgrad"],
    "smart": ["regularizer/sst/kind=smart", "regularizer/sts/kind=smart"],
    "rdrop": ["regularizer/sst/kind=rdrop"],
    "fgm": ["regularizer/sst/kind=fgm", "regularizer/sts/kind=fgm"],
    "bregman": ["proximal/kind=bregman"],
    "pairs read apart": ["encoding/qqp/kind=bi", "encoding/sts/kind=bi", "encoding/sts/pooling=mean"],
    "best report": ["selection=best"],
}

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def cases() -> list[Any]:
    """Every configuration on every device. In float32 on a CPU `test_train` compares interrupted trials, bit by bit."""
    cpu = [pytest.param("cpu", name, marks=[] if "bf16" in name else pytest.mark.slow) for name in CONFIGS]
    return cpu + [pytest.param("cuda", name, marks=NO_GPU) for name in CONFIGS]


@pytest.mark.parametrize(("device", "name"), cases())
def test_a_trial_trains_and_goes_on(device: str, name: str, data: Data, tmp_path: Path) -> None:
    config = configure(*CONFIGS[name])
    target, milestones = torch.device(device), (130, 320)

    def run(state: State, stop_after: int = 10**9) -> Path:
        steps = iter(range(stop_after))
        *_, last = train(config, data, state, lambda: next(steps, None) is None, device=target)
        assert last.paused == (stop_after < 10)
        assert all(math.isfinite(loss) for loss in last.losses.values())
        return Path(last.checkpoint)

    whole = run(State.fresh(1, milestones, tmp_path / "whole"))
    cut = run(State.fresh(1, milestones, tmp_path / "cut"), stop_after=2)
    continued = run(State.resume(cut, milestones, tmp_path / "cut", 1))
    expected, actual = (checkpoints.read_tensors(path, "weights") for path in (whole, continued))
    for key, value in expected.items():
        assert value.isfinite().all(), key
        torch.testing.assert_close(actual[key], value, rtol=0, atol=0 if device == "cpu" else 1e-3, msg=key)
