"""The model card of an exported trial or soup: how to use it, what it predicts, how well, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hpo.driver.jury import scoring
from hpo.driver.ledger import Ledger
from hpo.launch.record import record_of

if TYPE_CHECKING:
    from minbert.tasks import Task
    from minbert.training.exported import Origin
    from minbert.training.model import MultitaskModel
    from results.estimates import Estimate
    from results.predictions import Member
    from results.store import SweepFolder

LICENCES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2, Apache License 2.0"}
"""Base encoder -> where its weights come from, and their licence."""

ENCODERS = {
    "merged": "the trained encoder; what an adapter added is part of its weights",
    "peft": "the encoder without the adapter; `adapter/` holds what the adapter adds",
    "own": "the encoder that all tasks share; what the adapter adds is in `minbert.safetensors`, which only "
    "`python -m minbert predict` reads",
}
"""Form of an adapter -> what `transformers` loads."""

SCORES = (
    "On two parts of the dev sets, with 95 % intervals. Trials are chosen on `search`, so scores there are too high; "
    "`held` takes no part in any choice."
)


def model_card(
    folder: SweepFolder, title: str, scores: Iterable[str], model: MultitaskModel, origin: Origin, form: str
) -> str:
    """The card as Markdown, with the front matter that model hubs read.

    `title`: the trial or the soup. `scores`: lines of `trial_scores` or `soup_scores`.
    """
    lines = [
        *_front_matter(origin),
        f"# {folder.name}, {title}",
        "",
        f"One BERT encoder with a head for each of {', '.join(model.tasks)}, trained by minbert-hpo.",
        "",
        *_usage(form),
        *_tasks(model.tasks),
        *scores,
        *_training(folder, model, origin),
        *_licence(origin),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(origin: Origin) -> Iterator[str]:
    yield from ("---", "library_name: transformers", "pipeline_tag: feature-extraction", "license: other")
    if origin.base["name"] in LICENCES:
        yield f"base_model: {LICENCES[origin.base['name']].partition(',')[0]}"
    yield from ("---", "")


def _usage(form: str) -> Iterator[str]:
    yield from ("## Use", "", f"`transformers` loads {ENCODERS[form]}:", "", "```python")
    yield from ("from transformers import AutoModel, AutoTokenizer", "")
    yield 'encoder, tokenizer = AutoModel.from_pretrained("DIR"), AutoTokenizer.from_pretrained("DIR")'
    if form == "peft":
        yield from ("", "from peft import PeftModel", "")
        yield 'encoder = PeftModel.from_pretrained(encoder, "DIR/adapter")'
    yield from ("```", "", "Predictions of the tasks, with the heads:", "", "```sh")
    yield from ("python -m minbert predict DIR --task TASK --input FILE", "```", "")


def _tasks(tasks: Mapping[str, Task]) -> Iterator[str]:
    yield from ("## Tasks", "", "| task | texts | prediction |", "| --- | --- | --- |")
    for name, task in tasks.items():
        is_class = task.kind == "classification"
        what = f"a class from 0 to {task.classes - 1}" if is_class else f"a score from {task.low:g} to {task.high:g}"
        yield f"| {name} | {', '.join(task.columns)} | {what} |"
    yield ""


def _head(folder: SweepFolder) -> Iterator[str]:
    """The head of the table of scores."""
    yield from ("## Scores", "", SCORES, "")
    names = [f"{task} ({declared.metric})" for task, declared in folder.tasks.items()]
    yield f"| part | overall | {' | '.join(names)} |"
    yield f"| --- | --- |{' --- |' * len(names)}"


def soup_scores(folder: SweepFolder, record: Mapping[str, Any]) -> Iterator[str]:
    """Scores of a saved soup, from its record."""
    from results.estimates import Estimate

    yield from _head(folder)
    for part in ("search", "held"):
        found = record["estimates"]["ensemble"][part]
        cells = [found["overall"], *(found["tasks"][task] for task in folder.tasks)]
        yield f"| `{part}` | {' | '.join(_cell(Estimate(**cell)) for cell in cells)} |"
    yield ""


def trial_scores(folder: SweepFolder, trial: int) -> Iterator[str]:
    """Scores of a trial on both parts of the dev sets with 95 % intervals, as far as the store holds predictions."""
    from results.candidates import candidates
    from results.looks import look_at_runs
    from results.predictions import headline

    tasks = list(folder.tasks)
    parts = {"search": candidates(folder, [trial]).members.get(trial, {}), "held": headline(folder, trial)}
    yield from _head(folder)
    missing = []
    for part, member in parts.items():
        if member.keys() >= set(tasks):
            yield f"| `{part}` | {' | '.join(_estimates(folder, part, member))} |"
        else:
            missing.append(part)
    report = Ledger.of(folder).trials[trial].last_report
    if "search" in missing and report is not None:
        values = [report.overall, *(report.scores.get(task, float("nan")) for task in tasks)]
        yield f"| `search` | {' | '.join(f'{value:.4f}' for value in values)} |"
    if "held" in missing:
        command = f"hpo predict {folder.name} --trial {trial} --out DIR"
        yield f"| `held` | not estimated: first `{command}` |{' |' * len(tasks)}"
    else:
        look_at_runs(folder, [trial])
    yield ""


def _estimates(folder: SweepFolder, part: str, member: Member) -> Iterator[str]:
    """Overall and each task's score on a part, with interval and number of rows."""
    from results import estimates
    from results.choice import labels_of

    score = scoring(folder)
    labels = labels_of(folder, score, (part,), {task: member[task].rows for task in score.metrics})
    values = {task: member[task].values for task in score.metrics}
    yield _cell(estimates.of_overall(score, values, labels))
    yield from (_cell(estimates.of_task(score, task, values[task], labels[task])) for task in folder.tasks)


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f}), n = {estimate.n:,}"


def _training(folder: SweepFolder, model: MultitaskModel, origin: Origin) -> Iterator[str]:
    record = record_of(folder)
    used = ", ".join(f"{count:,} {task}" for task, count in origin.examples.items())
    parameters = "\n".join(f"{path} = {json.dumps(value)}" for path, value in model.config.flat().items())
    yield from ("## Training", "")
    yield f"- base encoder: {origin.base['name']}, SHA-256 of its weights {origin.base['sha256']}"
    yield f"- data: fingerprint (SHA-256 over the tasks' files) {origin.data}"
    yield f"- budget: at most {record.budget:,} training examples; used: {used}"
    yield f"- trials of the sweep, repeats not counted: {len(Ledger.of(folder).searched)}"
    yield f"- seed: {origin.seed}"
    yield f"- versions: {', '.join(f'{name} {version}' for name, version in record.versions.items())}"
    yield from ("", "Configuration:", "", "```", parameters, "```", "")


def _licence(origin: Origin) -> Iterator[str]:
    source = LICENCES.get(origin.base["name"], "look up its licence before you pass this model on")
    yield from ("## Licence", "", f"The weights derive from the base encoder, whose licence applies to them: {source}.")
    yield "The training data is not part of this directory. Its terms may limit what its models may be used for."
