"""Preparation of another launch of a sweep: from its record and a request to a plan.

The plan takes over what a launch may change. Anything else that differs from the record raises MismatchError.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpo.cluster.address import cluster_address
from hpo.launch.inputs import inputs
from hpo.launch.plan import Plan
from hpo.launch.record import (
    BaseRecord,
    SweepRecord,
    TaskRecord,
    WarmStart,
    changed_versions,
    check_same,
    check_trainer,
)
from hpo.launch.request import LaunchError, Relaunch
from hpo.search.searchers import searcher_from
from hpo.space.space import Space


def total_of(before: int, relaunch: Relaunch, record: SweepRecord) -> int:
    """Total number of trials from this launch on. Raises LaunchError if it is lower than `before`, or higher than the
    number after which the searcher has nothing more to try."""
    total = relaunch.trials
    if total is None:
        return before
    if total < before:
        raise LaunchError(
            f"`trials`: sweep {record.name!r} has {before} trials, a total of {total} would be fewer. Give at least "
            f"{before}."
        )
    space = Space.from_json(record.space, record.pinned)
    searcher = searcher_from(record.searcher)
    if searcher.most(space.leaves) is not None:
        most = Plan("", record, space, total, resources=None).sweep(workers=1).trials
        if total > most:
            raise LaunchError(
                f"`trials`: the searcher `{searcher.name}` of sweep {record.name!r} tries each configuration once, "
                f"{most} trials in all; a total of {total} would be more. Give at most {most}."
            )
    return total


def plan_again(store: str, recorded: SweepRecord, trials: int, relaunch: Relaunch) -> Plan:
    """The plan of another launch, with `trials` in all. Raises MismatchError if results could not be compared."""
    record = changed(recorded, relaunch)
    plan = Plan(
        store=store,
        record=record,
        space=Space.from_json(record.space, record.pinned),
        trials=trials,
        resources=None,
        recorded_cpus=relaunch.resources.cpus_per_trial is None,
        address=cluster_address(relaunch.address),
        time=relaunch.time,
        trial_timeout=relaunch.trial_timeout,
        pause_timeout=relaunch.pause_timeout,
        retry_failed=relaunch.retry_failed,
        trainer=relaunch.trainer,
        warnings=tuple(changed_versions(record)),
    )
    check_trainer(record, relaunch.trainer)
    check_same(record, present(plan))
    return plan


def changed(recorded: SweepRecord, relaunch: Relaunch) -> SweepRecord:
    """The record with the changes that this launch requests."""
    data = recorded.data
    if relaunch.data is not None:
        data = replace(data, folder=str(Path(relaunch.data).expanduser().absolute()))
    keep = recorded.keep if relaunch.keep is None else relaunch.keep
    return replace(recorded, data=data, keep=keep, resources=relaunch.resources.over(recorded.resources))


def present(plan: Plan) -> SweepRecord:
    """The plan's record as it would be written now: present space, data, base weights, tasks."""
    from minbert.data.files import read_corpus
    from minbert.encoder.base import find_base
    from minbert.migrations import CONFIG_VERSION
    from minbert.training.milestones import EVALUATION_VERSION

    record = plan.record
    corpus, base = read_corpus(record.data.folder, plan.declared()), find_base(record.base.asked)
    hashes = inputs(plan.space, record.start, corpus) if record.data.inputs else {}
    return replace(
        record,
        space_hash=plan.space.hash,
        warm_start=[WarmStart.of(each.sweep, each.trials, each.configs) for each in record.warm_start],
        data=replace(record.data, fingerprint=corpus.fingerprint, inputs=hashes),
        base=BaseRecord(record.base.asked, base.name, base.sha256, base.traits),
        tasks={name: TaskRecord.of(task) for name, task in corpus.tasks.items()},
        config_version=CONFIG_VERSION,
        evaluation_version=EVALUATION_VERSION,
    )
