"""One question in a process of its own: prints a line of JSON with seconds, memory and, if sides are compared, answer.

    python -m benchmarks.store.questions SIDE QUESTION STORE

Imports are timed apart from the question. `seconds` are CPU seconds of all threads, `wall` those on the clock;
`memory` is the peak of the whole process in bytes, imports included.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.store import tracking

NAME = "large"
"""Name of the sweep, or study."""
Question = Callable[[Path], Callable[[], Any]]
"""Imports what a question needs; returns the question."""


MODULES = (
    "hpo.commands.ask", "hpo.commands.watch", "hpo.display.answer", "hpo.display.live", "hpo.display.status",
    "hpo.display.importance", "hpo.display.summary", "hpo.display.trials", "hpo.driver.answer", "hpo.driver.importance",
    "minbert.metrics", "minbert.migrations",
    "results.choice", "results.query", "results.views", "scipy.special", "rich.console", "rich.table",
    "typer._adapters",
)  # fmt: skip
"""What the commands import once they run."""


def command(*arguments: str) -> Question:
    """A command of `hpo`, with its output to nowhere."""

    def prepare(store: Path) -> Callable[[], Any]:
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as `hpo` does, before Arrow is imported
        for module in MODULES:
            importlib.import_module(module)
        from hpo.__main__ import main

        def ask() -> None:
            sys.argv = ["hpo", *arguments, "--store", str(store)]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                main()

        return ask

    return prepare


def look(store: Path) -> Callable[[], Any]:
    """A later look of `status --watch` at a sweep that a driver works on, after ten more reports; on a copy."""
    import shutil
    import tempfile

    from hpo.display.status import Watch
    from hpo.driver import generations
    from results.store import Store

    copy = Path(tempfile.mkdtemp(dir=store.parent))
    shutil.copytree(store / NAME, copy / NAME, copy_function=os.link)
    folder = Store(copy).open(NAME)
    more = len(folder.read("trials", columns=())) + 100
    generations.claim(folder.folder, trials=more)
    writer = folder.writer()
    watch = Watch(folder)
    watch.look()
    writer.append("trials", {"trial": more, "attempt": 0, "event": "start", "config": "{}", "params": "{}"})
    for step in range(10):
        report = {"trial": more, "attempt": 0, "step": step, "examples": step, "overall": 0.5, "diverged": False}
        writer.append("reports", {**report, "scores": {"sst": 0.5}})
    writer.barrier()

    def ask() -> None:
        watch.look()
        shutil.rmtree(copy)

    return ask


def predictions(store: Path) -> Callable[[], Any]:
    """The last predictions on `search` of every fiftieth trial: those of 200 in a sweep of 10,000."""
    import pandas  # noqa: F401  imported by the question

    from results.candidates import last_evidence
    from results.store import Store

    def ask() -> None:
        folder = Store(store).open(NAME)
        trials = folder.read("trials", columns=())["trial"].unique().to_pylist()
        last_evidence(folder, sorted(trials)[::50])

    return ask


def importance_of_study(study: Any) -> Any:
    """Importance of the parameters of a study of Optuna by PED-ANOVA, as ours is."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def trials_frame(store: Path) -> Callable[[], Any]:
    """Every trial with every parameter as a frame of pandas."""
    from results.store import Store
    from results.views import trials_frame as frame

    return lambda: frame(Store(store).open(NAME))


def optuna_study(address: Callable[[Path], Any], ask: Callable[[Any], Any]) -> Question:
    """A question to a study of Optuna, loaded as users do."""

    def prepare(store: Path) -> Callable[[], Any]:
        import optuna
        import pandas  # noqa: F401  imported by trials_dataframe

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return lambda: ask(optuna.load_study(study_name=NAME, storage=address(store)))

    return prepare


def journal(store: Path) -> Any:
    """Optuna's journal file beside the store."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(store / "optuna.log")))


def sqlite(store: Path) -> str:
    """Optuna's SQLite database beside the store."""
    return f"sqlite:///{store / 'optuna.db'}"


def tracked(ask: Callable[[Any, str], Any]) -> Question:
    """A question to the experiment of MLflow, found by its name."""

    def prepare(store: Path) -> Callable[[], Any]:
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported by the client's first call

        def answer() -> Any:
            client = tracking.connected(store)
            return ask(client, client.get_experiment_by_name(NAME).experiment_id)

        return answer

    return prepare


def complete(study: Any) -> list[Any]:
    """The trials of a study of Optuna that have a value, in order."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]


OPTUNA: Mapping[str, Callable[[Any], Any]] = {
    "top": lambda study: [trial.number for trial in sorted(complete(study), key=lambda trial: -trial.value)[:10]],
    "best": lambda study: list(itertools.accumulate((trial.value for trial in complete(study)), max)),
    "curve": lambda study: list(study.trials[7].intermediate_values.values()),
    "status": lambda study: (len(study.get_trials(deepcopy=False)), study.best_trials),
    "show": lambda study: study.trials[7],
    "query": lambda study: study.trials_dataframe().groupby("state")["value"].max(),
    "frame": lambda study: study.trials_dataframe(),
    "importance": importance_of_study,
}
QUERY = "SELECT state, max(overall), avg(adapter/rank) FROM trials GROUP BY state"
BEST = "SELECT max(overall) OVER (ORDER BY trial) AS best FROM trials WHERE state = 'complete' ORDER BY trial"
CURVE = "SELECT overall FROM reports WHERE trial = 7 ORDER BY step"
COMPARED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "top": (("top", NAME), "trial"),
    "best": (("query", BEST), "best"),
    "curve": (("query", CURVE), "overall"),
}
"""Questions that every side answers with the same list -> command of `hpo`, column of its JSON."""
SIDES: Mapping[str, Mapping[str, Question]] = {
    "hpo": {
        "top": command("top", NAME),
        "best": command("query", BEST, "--json"),
        "curve": command("query", CURVE, "--json"),
        "where": command("top", NAME, "--where", "adapter/rank > 4 and overall > 0.5"),
        "status": command("status", NAME),
        "look": look,
        "show": command("show", NAME, "7"),
        "list": command("list"),
        "query": command("query", QUERY),
        "count": command("query", "SELECT count(*) FROM reports"),
        "frame": trials_frame,
        "importance": command("importance", NAME),
        "predictions": predictions,
    },
    "journal": {name: optuna_study(journal, ask) for name, ask in OPTUNA.items()},
    "sqlite": {name: optuna_study(sqlite, ask) for name, ask in OPTUNA.items()},
    "mlflow": {ask.__name__: tracked(ask) for ask in (tracking.top, tracking.best, tracking.curve)},
}


def peak() -> int:
    """Peak memory of this process in bytes. `getrusage` would begin with the memory of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    side, question, store = sys.argv[1:]
    wall, cpu = time.perf_counter(), time.process_time()
    ask = SIDES[side][question](Path(store))
    imports = time.process_time() - cpu
    wall, cpu = time.perf_counter(), time.process_time()
    answer = ask()
    found = {"seconds": time.process_time() - cpu, "wall": time.perf_counter() - wall, "imports": imports}
    if question in COMPARED:
        found["answer"] = answer
    print(json.dumps(found | {"memory": peak()}))


if __name__ == "__main__":
    main()
