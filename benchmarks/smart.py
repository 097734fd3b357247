"""SMART: how far its ascent step decides the direction of the perturbation, and how training changes its penalty.

    python -m benchmarks.smart
    python -m benchmarks.smart --data ../shared/data/cs224n        # some minutes

Without --data the ascent step is measured: packaged MiniLM, eight training rows of the sample corpus for each task,
untrained heads with weights times 5 instead of trained heads, sigma 1e-5 and eta 1e-3 as in the papers, default
dropout. Printed are the size of the ascent step relative to the noise, and the divergence for the noise alone, for the
noise after one step, and for the gradient alone, each scaled to max|delta| = 1.

With --data MiniLM is trained on SST with and without SMART, three seeds each. The penalty (the papers' settings,
without its weight) is then measured without dropout on rows of `held`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import configuration, markdown
from minbert.config import Config
from minbert.data.batches import pack
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import find_base
from minbert.encoder.noise import SILENT
from minbert.randomness import torch_generator
from minbert.tasks import choose_tasks
from minbert.techniques.penalty import DIVERGENCES, STEP_MASKS, Pass
from minbert.techniques.regularizers import Smart
from minbert.training.model import MultitaskModel, PassInput
from minbert.training.predict import load_model
from minbert.training.train import State, train

SIGMA, ETA = 1e-5, 1e-3
BUDGET, SEEDS, ROWS, WEIGHT = 1000, 3, 256, 5

PAPERS = ("regularizer/sst/kind=smart", "regularizer/sst/radius=0", f"regularizer/sst/weight={WEIGHT}")
"""SMART with the papers' perturbation."""


def ascent() -> None:
    """Print the effect of the ascent step on its random start."""
    data, cpu = open_data(None, find_base()), torch.device("cpu")
    model = MultitaskModel(Config.from_dict({}, data.tasks), data.base, data.tasks, 0)
    with torch.no_grad():
        for head in model.heads.values():
            head.linear.weight.mul_(5)
    for task in ("sst", "sts"):
        batch = model.batch(task, data.file(task, "train"), data.parts[task, "train"][:8].tolist())
        packed = pack(batch.sequences)
        inputs, divergence = PassInput(packed), DIVERGENCES[data.tasks[task].kind]

        def forward(offset: Tensor | None, inputs=inputs, batch=batch) -> Tensor:  # type: ignore[no-untyped-def]
            return model.outputs(inputs, [batch], model.noise(torch_generator(cpu, 0, "dropout", 0)), offset)[0]

        target = forward(None).detach()
        noise = torch.randn(len(packed.ids), 384, generator=torch_generator(cpu, 0, "noise", 0)) * SIGMA
        noise.requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(forward(noise), target), noise)
        noise = noise.detach()
        print(f"{task}: |eta g| / |noise| = {float(ETA * gradient.norm() / noise.norm()):.1e}")
        for name, delta in (("noise", noise), ("one step", noise + ETA * gradient), ("gradient", gradient)):
            scaled = delta / delta.abs().amax(-1, keepdim=True)
            print(f"  {name:<9} {float(divergence(forward(scaled), target).detach()):.4f}")


def penalties(folder: str) -> None:
    """Print penalty and accuracy after training with and without SMART."""
    from minbert.metrics import score
    from minbert.training.evaluation import predict_rows

    data, rows = open_data(folder, find_base(), tasks=choose_tasks("sst")), []
    held = data.parts["sst", "held"]
    for seed in range(SEEDS):
        for settings in ((), PAPERS):
            config = configuration("mixing/kind=single", "mixing/task=sst", *settings, tasks=data.tasks)
            with tempfile.TemporaryDirectory() as work:
                state = State.fresh(seed, (BUDGET,), Path(work), report_rows=[{"sst": 100}])
                *_, last = train(config, data, state)
                model = load_model(Path(last.checkpoint), data)
            values = predict_rows(model, data, "sst", "dev", held).values
            accuracy = score("accuracy", values, data.file("sst", "dev").labels[held])
            arm = "with" if settings else "without"
            rows.append([str(seed), arm, f"{penalty(model, data):.5f}", f"{accuracy:.4f}"])
    print(markdown(("seed", "SMART", "penalty on `held`", "accuracy on `held`"), rows))


def penalty(model: MultitaskModel, data: Data) -> float:
    """Mean of SMART's penalty over the first ROWS rows of `held`."""
    batch = model.batch("sst", data.file("sst", "dev"), data.parts["sst", "held"][:ROWS].tolist())
    inputs = PassInput(pack(batch.sequences))

    def forward(offset: Tensor | None = None, masks: str = STEP_MASKS) -> Tensor:
        return model.outputs(inputs, [batch], SILENT, offset)[0]

    pass_ = Pass(
        task=data.tasks["sst"],
        outputs=forward(),
        labels=batch.labels,
        loss=lambda outputs: model.loss("sst", outputs, batch.labels),
        forward=forward,
        generator=lambda stream: torch_generator(torch.device("cpu"), 0, stream, 0),
        packed=inputs.packed,
        width=model.encoder.config.hidden_size,
        embed=model.encoder.embeddings.word,
    )
    return float(Smart(radius=0.0).penalty(pass_).penalty.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder in the class format")
    options = parser.parse_args()
    torch.set_num_threads(1)
    penalties(options.data) if options.data else ascent()


if __name__ == "__main__":
    main()
