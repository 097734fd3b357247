"""Address of the Ray cluster that a command or a Python program uses: checked here, before anything else is done.

`ray job submit` sets RAY_ADDRESS for the program that it starts, so that a sweep in a job runs on the job's cluster.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from hpo.cluster.resources import ResourceError

VARIABLE = "RAY_ADDRESS"
LOCAL = "local"
"""The address of a cluster of our own, where RAY_ADDRESS names another one."""
AUTO = "auto"
"""The address of the cluster of this machine: Ray looks for it, first in RAY_ADDRESS."""


def cluster_address(asked: str | None) -> str | None:
    """The address of a running cluster: the one that was asked for, else that of RAY_ADDRESS; None: a cluster of our
    own on this machine. Raises ResourceError for an address at which no search can run."""
    set_here = os.environ.get(VARIABLE) or None
    for name, address in (("address", asked), (VARIABLE, set_here if asked in (None, AUTO) else None)):
        if address is not None:
            _check(name, address)
    address = set_here if asked is None else asked
    return None if address == LOCAL else address


def _check(name: str, address: str) -> None:
    """Raise ResourceError for an address of Ray Client, through which neither Tune nor the key-value store works, and
    for that of a dashboard, which takes jobs alone."""
    scheme, _, rest = address.rpartition("://")
    if scheme == "ray":
        reason = "Ray Client cannot run a search. From outside the cluster: ray job submit -- hpo run ..."
    elif scheme in ("http", "https"):
        head = urlsplit(f"//{rest}").hostname or "HEAD"
        reason = (
            f"this is the dashboard, which takes jobs alone. On a machine of the cluster: --address {head}:6379; from "
            "outside it: ray job submit -- hpo run ..."
        )
    else:
        return
    raise ResourceError(
        f"`{name}` must be host:port of a cluster's head node (port 6379, if none was chosen), {AUTO} or {LOCAL}, not "
        f"{address!r}: {reason}"
    )
