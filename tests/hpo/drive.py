"""A driver in its own process, which tests interrupt: `python -m tests.hpo.drive run|resume STORE [JSON options]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hpo.cluster import survey
from hpo.driver import session
from hpo.launch.request import Relaunch
from tests.hpo.conftest import launch


def main() -> int:
    action, store, options = sys.argv[1], Path(sys.argv[2]), json.loads((sys.argv[3:] or ["{}"])[0])
    survey.PATIENCE = options.pop("patience", survey.PATIENCE)
    if action == "run":
        outcome = session.run(launch(store, **options))
    else:
        outcome = session.resume(str(store), "s", Relaunch(trainer="tests.hpo.fakes", **options))
    for place, why in outcome.quarantined.items():
        print(place, why)
    print(outcome.state)
    return 0 if outcome.state == "done" else 3


if __name__ == "__main__":
    sys.exit(main())
