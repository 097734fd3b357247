"""What a configuration needs of the data that it shall be trained on: all that can be known before any compute."""

from __future__ import annotations

from minbert import extra, staging
from minbert.config import Config
from minbert.files import Corpus
from minbert.samplers import Mix


def check(config: Config, corpus: Corpus) -> None:
    """Refuse a configuration that cannot be trained on a corpus. Raises ConfigError or DataError."""
    sizes = {task.name: corpus.size(task.name, "train") for task in corpus.tasks}
    config.check({task.name: task for task in corpus.tasks})
    config.mixing.build(Mix(sizes, 0, {name: config.batch_size[name] for name in sizes}))
    staging.needs(config.stages, corpus.folder)
    extra.needs(config.augmentation, corpus.folder, corpus.tasks)
