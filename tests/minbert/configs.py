"""Configurations for tests: the default one with settings laid over it."""

from __future__ import annotations

from collections.abc import Mapping

from minbert.config import Config
from minbert.tasks import Task, choose_tasks


def configure(*pairs: str, tasks: Mapping[str, Task] | None = None) -> Config:
    """The default configuration with `path=value` settings, over `tasks` (None: the default ones)."""
    chosen = choose_tasks() if tasks is None else tasks
    return Config.from_dict({}, chosen).changed(pairs, chosen)
