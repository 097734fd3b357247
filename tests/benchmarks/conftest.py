"""The small corpus and the tiny encoder of the core's tests."""

from __future__ import annotations

from tests.minbert.conftest import corpus_folder, data, own_cache, tiny

__all__ = ["corpus_folder", "data", "own_cache", "tiny"]
