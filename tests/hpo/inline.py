"""A whole sweep in this process, without Ray: trials one after the other, then the predictions of its end."""

from __future__ import annotations

from hpo.cluster.resources import Resources
from hpo.driver import generations
from hpo.driver.jury import Jury
from hpo.driver.ledger import Ledger
from hpo.driver.monitor import monitor_of
from hpo.driver.placement import Placement
from hpo.driver.predictors import predict_part
from hpo.driver.recorder import Recorder
from hpo.driver.selection import Needed, record_choice, settle
from hpo.driver.weights import Shelf
from hpo.launch.prepare import prepare
from hpo.launch.record import job_of
from hpo.launch.request import Launch
from results.store import Store, SweepFolder
from tests.hpo.board import MemoryBoard


def run(launch: Launch) -> SweepFolder:
    """Run the launch with one worker, and return its sweep."""
    plan, resources = prepare(launch), Resources(1, 1, 0.0)
    folder = Store(plan.store).create(plan.name, plan.begun(resources).to_json())
    job = job_of(plan.record, folder.folder, resources, trainer=plan.trainer)
    trainer = job.module()
    trainer.ready(job, folder)
    generation = generations.claim(folder.folder, trials=plan.trials)
    writer = folder.writer(generation.number)
    shelf = Shelf(folder.folder, plan.record.keep, Jury(folder))
    placement = Placement(1, MemoryBoard(), lambda message: None)
    recorder = Recorder(plan.sweep(1), writer, shelf, monitor_of(plan.record, plan.trials), placement)
    while assignments := recorder.issue():
        for assignment in assignments:
            attempt = {"kind": "report", "place": "here", "trial": assignment.trial, "attempt": assignment.attempt}
            for report in trainer.train(job, assignment, lambda: False):
                if not recorder.result(assignment.id, [attempt | report.to_dict() | {"evidence": report.evidence}])[0]:
                    break
    writer.barrier()
    writer.close()
    ledger = Ledger(folder.events())

    def predict(needs: Needed) -> dict[int, str]:
        for pending in needs.pending:
            predict_part(job, folder, pending)
        return {}

    chosen = settle(folder, ledger, predict)
    assert chosen is not None
    record_choice(folder, ledger, Needed(chosen.trials, []), [])
    generation.end()
    return folder
