"""The results of sweeps: a Parquet store, queries over it, and ensembles chosen from it.

Usable alone: nothing here knows how trials are trained or which search made them. Start with `results.store.Store`.
"""

from __future__ import annotations
