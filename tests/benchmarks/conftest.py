"""Fixtures of the tests of minbert: the small corpus and the tiny encoder."""

from __future__ import annotations

from tests.minbert.conftest import corpus_folder, data, own_cache, tiny

__all__ = ["corpus_folder", "data", "own_cache", "tiny"]
