"""Results of sweeps: a Parquet store, SQL and tables over it, and ensembles of its trials.

The package works alone: it does not know how trials are trained or which search made them. Start with
`results.store.Store`.
"""

from __future__ import annotations
