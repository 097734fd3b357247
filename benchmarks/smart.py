"""How much SMART's ascent step decides of the direction that it perturbs: `python -m benchmarks.smart`.

Packaged MiniLM, eight training rows of the sample corpus a task, fresh heads with weights times 5 in place of trained
ones, sigma 1e-5 and eta 1e-3 as in the papers, dropout as by default. Prints the ascent's share of the noise and the
divergence for the noise alone, the noise after one step, and the gradient alone, each scaled to max|delta| = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minbert.base import find_base
from minbert.batches import pack
from minbert.config import Config
from minbert.data import open_data
from minbert.model import Given, MultitaskModel
from minbert.randomness import torch_generator
from minbert.regularizers import DIVERGENCES

SIGMA, ETA = 1e-5, 1e-3


def main() -> None:
    torch.set_num_threads(1)
    data, cpu = open_data(None, find_base()), torch.device("cpu")
    model = MultitaskModel(Config(), data.base, data.tasks, 0)
    with torch.no_grad():
        for head in model.heads.values():
            head.linear.weight.mul_(5)
    for task in ("sst", "sts"):
        batch = model.batch(task, data.file(task, "train"), data.parts[task, "train"][:8].tolist())
        packed = pack(batch.sequences)
        given, divergence = Given(packed), DIVERGENCES[data.tasks[task].kind]

        def forward(offset: Tensor | None, given=given, batch=batch) -> Tensor:  # type: ignore[no-untyped-def]
            return model.outputs(given, [batch], model.noise(torch_generator(cpu, 0, "dropout", 0)), offset)[0]

        target = forward(None).detach()
        noise = torch.randn(len(packed.ids), 384, generator=torch_generator(cpu, 0, "noise", 0)) * SIGMA
        noise.requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(forward(noise), target), noise)
        noise = noise.detach()
        print(f"{task}: |eta g| / |noise| = {float(ETA * gradient.norm() / noise.norm()):.1e}")
        for name, delta in (("noise", noise), ("one step", noise + ETA * gradient), ("gradient", gradient)):
            scaled = delta / delta.abs().amax(-1, keepdim=True)
            print(f"  {name:<9} {float(divergence(forward(scaled), target).detach()):.4f}")


if __name__ == "__main__":
    main()
