"""What a configuration needs of the data that it shall be trained on: all that can be known before any compute."""

from __future__ import annotations

from pathlib import Path

from minbert.augmentation import rows
from minbert.config import Config
from minbert.data.files import Corpus
from minbert.encoder.base import Base
from minbert.fields import ConfigError
from minbert.stages import chain


def check(config: Config, corpus: Corpus, base: Base) -> None:
    """Refuse a configuration that cannot be trained on a corpus from a base. Raises ConfigError or DataError."""
    config.check(corpus.tasks)
    config.adapter.check(base.config.num_hidden_layers, base.name)
    positions = base.config.max_position_embeddings
    for name in corpus.tasks:
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
