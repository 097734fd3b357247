"""Every figure by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from results.plots import predictions, trials

PLOTS: Mapping[str, Callable[..., go.Figure]] = {
    made.__name__: made
    for made in (
        trials.history,
        trials.sweeps_history,
        trials.intermediate_values,
        trials.parallel_coordinate,
        trials.slice,
        trials.param_importances,
        trials.pareto_front,
        trials.timeline,
        trials.replicates,
        predictions.confusion,
        predictions.precision_recall,
        predictions.agreement,
    )
}
"""Name -> function that makes the figure from a table."""
