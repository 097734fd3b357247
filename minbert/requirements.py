"""Checks of a configuration against its data and base encoder, made before any compute."""

from __future__ import annotations

from pathlib import Path

from minbert.augmentation import rows
from minbert.config import Config
from minbert.data.files import Corpus
from minbert.encoder.base import Base
from minbert.fields import ConfigError
from minbert.stages import chain


def check(config: Config, corpus: Corpus, base: Base) -> None:
    """Check that a configuration can be trained on a corpus from a base. Raises ConfigError or DataError."""
    config.check(corpus.tasks)
    config.adapter.check(base.config.num_hidden_layers, base.name)
    positions = base.config.max_position_embeddings
    for name in corpus.tasks:
        if config.max_length[name] > positions:
            raise ConfigError(
                f"`max_length/{name}` must be at most {positions}, the number of positions of the base {base.name}, "
                f"found {config.max_length[name]}."
            )
    chain.check(config.stages, corpus)
    rows.check(config.augmentation, corpus)


def reads(config: Config, corpus: Corpus) -> list[Path]:
    """Files, other than those of the tasks, that the stages and the augmentation read. Raises DataError."""
    return [*chain.reads(config.stages, corpus), *rows.reads(config.augmentation, corpus)]
