"""What a configuration needs of the data that it shall be trained on: all that can be known before any compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from minbert.augmentation import rows
from minbert.config import Config, flatten
from minbert.data.files import Corpus
from minbert.encoder.base import Base
from minbert.fields import ConfigError
from minbert.stages import chain
from minbert.tasks import TASKS
from minbert.techniques.mixings import Mix


def check(config: Config, corpus: Corpus, base: Base) -> None:
    """Refuse a configuration that cannot be trained on a corpus from a base. Raises ConfigError or DataError."""
    sizes = {task.name: corpus.size(task.name, "train") for task in corpus.tasks}
    config.mixing.build(Mix(sizes, 0, {name: config.batch_size[name] for name in sizes}))
    config.check({task.name: task for task in corpus.tasks})
    config.adapter.check(base.config.num_hidden_layers, base.name)
    positions = base.config.max_position_embeddings
    for name in sizes:
        if config.max_length[name] > positions:
            raise ConfigError(
                f"`max_length/{name}` must be at most {positions}, the positions of {base.name}, "
                f"found {config.max_length[name]}."
            )
    chain.needs(config.stages, corpus)
    rows.needs(config.augmentation, corpus)


def reads(config: Config, corpus: Corpus) -> list[Path]:
    """The files beside the tasks' own that a configuration's result depends on. Raises DataError."""
    return [*chain.reads(config.stages, corpus), *rows.reads(config.augmentation, corpus)]


def check_tasks(settings: Mapping[str, Any], tasks: Collection[str]) -> None:
    """Refuse settings, as a nested dictionary, of declared tasks that a run does not have: they would change nothing.

    Raises ConfigError.
    """
    for path in flatten(settings):
        for name in set(path.split("/")) & (TASKS.keys() - set(tasks)):
            raise ConfigError(
                f"`{path}` is a setting of the task {name}, and this run has {', '.join(tasks)}. Leave it out, or "
                f"train {name} as well: `--tasks {','.join((*tasks, name))}`."
            )
