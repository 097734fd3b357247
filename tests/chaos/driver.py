"""A driver in a process of its own: `python -m tests.chaos.driver run|resume OPTIONS`, with options in JSON.

It notes every row that the store acknowledges. Exit code 0: the sweep is done; 3: stopped and resumable; 4: another
driver works on it, or the cluster cannot run it now.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from hpo.cluster.resources import ResourceError
from hpo.driver import session
from hpo.driver.generations import BusyError
from hpo.launch.request import Launch, Relaunch
from results import store
from results.evidence import Evidence
from results.writer import Writer
from tests.chaos import control

NAME = "chaos"
"""Name of the sweep."""
TRAINER = "tests.chaos.trainer"
SPACE = "quickstart"
REFUSED = 4
TIMEOUT = 40.0
"""Seconds of silence after which a worker is killed."""


class NotingWriter(Writer):
    """A writer that notes what it appends, and what it acknowledges."""

    _noted = 0

    def append(self, table: str, row: Mapping[str, Any], evidence: Evidence | None = None) -> int:
        seq = super().append(table, row, evidence)
        what = {name: row.get(name) for name in ("trial", "attempt", "event", "state", "step")}
        control.note("appended", generation=self.generation, seq=seq, table=table, **what)
        return seq

    @property
    def durable_seq(self) -> int:
        durable = super().durable_seq
        if durable > self._noted:
            self._noted = durable
            control.note("acknowledged", generation=self.generation, seq=durable)
        return durable


def main() -> int:
    action, options = sys.argv[1], json.loads(sys.argv[2])
    control.slow_down_fsync()
    control.follow_clock()
    setattr(store, "Writer", NotingWriter)  # noqa: B010
    try:
        if action == "run":
            launch = Launch(
                SPACE, base="tiny", store=options["store"], name=NAME, trials=options["trials"],
                seed=options["seed"], budget=576, grace=64, keep=5, repeats=1, address=options["address"],
                trial_timeout=TIMEOUT, trainer=TRAINER,
            )  # fmt: skip
            outcome = session.run(launch)
        else:
            relaunch = Relaunch(
                address=options["address"], takeover=options["takeover"], trial_timeout=TIMEOUT, trainer=TRAINER
            )
            outcome = session.resume(options["store"], NAME, relaunch)
    except (BusyError, ResourceError) as error:
        print(f"{type(error).__name__}: {error}")
        return REFUSED
    print(json.dumps({"state": outcome.state, "messages": outcome.snapshot.messages}))
    return 0 if outcome.state == "done" else 3


if __name__ == "__main__":
    sys.exit(main())
