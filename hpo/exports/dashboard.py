"""optuna-dashboard on the Optuna study of a stored sweep, on this machine alone."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    import optuna

HOST = "127.0.0.1"


class DashboardError(ValueError):
    """The dashboard cannot be served."""


class Quiet(WSGIRequestHandler):
    """Answers without a line on the terminal for each."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def check_installed() -> None:
    """Raise DashboardError unless optuna-dashboard is installed."""
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise DashboardError("`hpo dashboard` needs optuna-dashboard: pip install 'minbert-hpo[dashboard]'")


def server(study: optuna.Study, port: int = 0) -> WSGIServer:
    """A server of the dashboard at `http://127.0.0.1:<server_port>/`; `port` 0: a free one. Raises DashboardError."""
    check_installed()
    from optuna_dashboard import wsgi

    try:
        return make_server(HOST, port, wsgi(study._storage), handler_class=Quiet)
    except (OSError, OverflowError) as error:  # taken, not allowed, or no port at all
        reason = error.strerror if isinstance(error, OSError) else "a port is at most 65535"
        raise DashboardError(f"`--port`: cannot listen on {HOST}:{port}: {reason}. Name another one.") from error
