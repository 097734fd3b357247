"""Soups of real checkpoints of the tiny encoder: the mean weights, the greedy choice, and the use of the one model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hpo.cluster.resources import Resources
from hpo.driver.jury import scoring
from hpo.driver.kept import soup_model
from hpo.driver.mean import architecture, mean_model
from hpo.driver.soup import greedy
from hpo.launch.record import BaseRecord, DataRecord, job_of
from hpo.report.facts import facts_of
from hpo.worker.trainer import ready
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import find_base
from minbert.techniques.adapters import ADAPTERS
from minbert.training.evaluation import predict_dev
from minbert.training.model import MultitaskModel
from minbert.training.predict import model_of, open_predictor
from minbert.training.train import State, train
from results.ensembles import METHODS
from results.store import Store, SweepFolder
from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo, refused
from tests.minbert.configs import configure
from tests.minbert.conftest import make_corpus

STEP = stored.MILESTONES[-1]
CONFIGS = {
    0: configure(),
    1: configure("adapter/kind=lora", "adapter/heads=lora"),
    2: configure("encoding/sts/kind=bi"),
    3: configure("adapter/kind=dora", "optimizer/head_lr=0.01"),
}
TEXTS = [("a dog runs", "a dog sat"), ("", "one, two"), ("a good film", "a good film")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(make_corpus(tmp_path_factory.mktemp("corpus") / "corpus"), find_base("tiny"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Data) -> SweepFolder:
    """A sweep of four trials, trained; each has kept weights and evidence, and nobody has predicted."""
    store, base = tmp_path_factory.mktemp("store"), data.base
    record = replace(
        stored.record(SWEEP, len(CONFIGS)),
        milestones=(STEP,),
        report_rows=({task: len(data.parts[task, "search"]) for task in data.tasks},),
        data=DataRecord(str(data.folder), data.fingerprint),
        base=BaseRecord("tiny", base.name, base.sha256),
    )
    folder = Store(store).create(SWEEP, record.to_json())
    job = job_of(record, folder.folder, Resources(cpus_per_trial=1))
    ready(job, folder)
    writer = folder.writer()
    for trial, config in CONFIGS.items():
        (report,) = train(config, data, State.fresh(trial, (STEP,), Path(job.checkpoints(trial).path), 0))
        common = {"trial": trial, "attempt": 0, "time": 0.0}
        text = json.dumps(config.to_dict())
        writer.append("trials", {**common, "event": "start", "config": text, "params": "{}", "seed": trial})
        fields = ("step", "examples", "overall", "scores", "losses", "diverged", "seconds", "evaluation_seconds")
        row = {name: value for name, value in report.to_dict().items() if name in fields}
        writer.append("reports", {**common, **row, "verdict": "stop"}, report.evidence)
        writer.append("trials", {**common, "event": "end", "state": "complete", "checkpoint": report.checkpoint})
    writer.barrier()
    writer.close()
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: SweepFolder) -> Callable[[int], Path]:
    return lambda trial: folder.path / "checkpoints" / str(trial) / f"0-{STEP}"


@pytest.fixture(scope="module")
def soup(folder: SweepFolder) -> dict[str, Any]:
    """The record of a soup of up to three trials."""
    record: dict[str, Any] = answer(
        "ensemble", SWEEP, "--method", "soup", "--size", "3", store=Path(folder.folder.path).parent
    )
    return record


def values(model: MultitaskModel, data: Data) -> dict[str, Any]:
    """Probabilities or scores on `search` by task."""
    found = predict_dev(model, data)
    return {task: each.values if each.probabilities is None else each.probabilities for task, each in found.items()}


def test_mean_weights_equal_the_sum_of_state_dicts_by_hand(
    data: Data, checkpoint: Callable[[int], Path], tmp_path: Path
) -> None:
    other = tmp_path / "0-1"
    (report,) = train(CONFIGS[0], data, State.fresh(9, (STEP,), other, 0))
    first, second = (load_file(path / "weights.safetensors") for path in (checkpoint(0), Path(report.checkpoint)))
    by_hand = model_of(checkpoint(0), data.base, data.tasks)
    by_hand.load_state_dict({name: (first[name] + second[name]) / 2 for name in first}, strict=False)
    mean = mean_model([checkpoint(0), Path(report.checkpoint)], data.base, data.tasks)
    expected, found, alone = (
        values(each, data) for each in (by_hand, mean, model_of(checkpoint(0), data.base, data.tasks))
    )
    for task in data.tasks:
        np.testing.assert_allclose(found[task], expected[task], atol=1e-5)
        assert np.abs(found[task] - alone[task]).max() > 1e-4, "the mean is another model than its first member"


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_mean_of_one_is_that_trial_and_a_mean_of_two_that_of_its_effective_weights(
    kind: str, data: Data, tmp_path: Path
) -> None:
    paths = []
    for seed in (1, 2):
        pair = [f"adapter/kind={kind}"] + (["adapter/heads=lora"] if kind == "lora" else [])
        (report,) = train(configure(*pair), data, State.fresh(seed, (64,), tmp_path / str(seed), 0))
        paths.append(Path(report.checkpoint))
    alone = [model_of(path, data.base, data.tasks) for path in paths]
    one, two = mean_model(paths[:1], data.base, data.tasks), mean_model(paths, data.base, data.tasks)
    for task, expected in values(alone[0], data).items():
        np.testing.assert_allclose(values(one, data)[task], expected, atol=1e-5)
    layers = [model.encoder.layers[0].query for model in alone]
    weights = [layer.merged() if hasattr(layer, "merged") else layer.weight for layer in layers]
    torch.testing.assert_close(two.encoder.layers[0].query.weight, (weights[0] + weights[1]) / 2)


def test_greedy_equals_the_naive_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        order, size = list(rng.permutation(5)), int(rng.integers(1, 6))
        table = {
            frozenset(some): float(rng.integers(0, 4)) for n in range(1, 6) for some in itertools.combinations(order, n)
        }
        asked: list[tuple[int, ...]] = []

        def value(trials: tuple[int, ...]) -> float:
            asked.append(trials)  # noqa: B023  called within this turn
            return table[frozenset(trials)]  # noqa: B023  called within this turn

        found = greedy(order, size, value)
        naive = [order[0]]
        for candidate in order[1:]:
            if len(naive) < size and table[frozenset([*naive, candidate])] >= table[frozenset(naive)]:
                naive.append(candidate)
        assert list(found) == naive
        assert len(asked) == len(set(asked)) <= len(order), "one evaluation a candidate"


def test_the_soup_of_a_sweep_is_that_of_the_naive_loop_over_models(
    folder: SweepFolder, data: Data, soup: dict[str, Any], checkpoint: Callable[[int], Path]
) -> None:
    labels = {task: data.file(task, "dev").labels[data.parts[task, "search"]].astype(float) for task in data.tasks}
    judge = scoring(folder).judge(labels)

    def value(*trials: int) -> float:
        model = mean_model([checkpoint(trial) for trial in trials], data.base, data.tasks)
        return judge({task: each.values for task, each in predict_dev(model, data).items()})

    first = architecture(CONFIGS[soup["best_single"]])
    fitting = [trial for trial, config in CONFIGS.items() if architecture(config) == first]
    order = sorted(fitting, key=lambda trial: -round(value(trial), 12))
    members = order[:1]
    for trial in order[1:]:
        if len(members) < 3 and value(*members, trial) >= value(*members):
            members.append(trial)
    assert [member["trial"] for member in soup["members"]] == members
    assert soup["estimates"]["ensemble"]["search"]["overall"]["value"] == pytest.approx(value(*members))
    assert soup["estimates"]["ensemble"].keys() == soup["estimates"]["best_single"].keys() == {"held", "search"}
    assert [line.split(":")[0] for line in soup["skipped"]] == [f"trial {n}" for n in CONFIGS if n not in fitting]
    assert all("encoding/sts/kind is " in line for line in soup["skipped"])
    assert 1 <= soup["evaluations"] <= len(fitting)


def test_a_soup_predicts_and_is_exported_as_one_model(
    folder: SweepFolder, data: Data, soup: dict[str, Any], tmp_path: Path
) -> None:
    store = Path(folder.folder.path).parent
    assert answer("export", SWEEP, "soup-3", tmp_path / "e", store=store)["ensemble"] == "soup-3"
    texts = tmp_path / "pairs.tsv"
    texts.write_text("left\tright\n" + "".join(f"{one}\t{two}\n" for one, two in TEXTS))
    asked = ("--task", "qqp", "--input", texts, "--columns", "left,right", "--json")
    done = hpo("predict", SWEEP, "--ensemble", "soup-3", *asked, store=store)
    assert done.exit_code == 0, done.output
    found = np.array([json.loads(line)["probabilities"] for line in done.stdout.splitlines()])
    expected = open_predictor(tmp_path / "e")("qqp", TEXTS).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-5)
    card = (tmp_path / "e" / "README.md").read_text()
    assert f"the mean weights of trials {soup['members'][0]['trial']}" in card
    assert f"| `held` | {soup['estimates']['ensemble']['held']['overall']['value']:.4f} " in card
    done = hpo("predict", SWEEP, "--ensemble", "soup-3", "--out", tmp_path / "p", store=store)
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "p" / "sts-dev-output.csv").read_text().splitlines()[1:]
    model, _ = soup_model(folder, soup)
    scores = {
        str(row): value
        for split in ("search", "held")
        for row, value in zip(data.parts["sts", split], predict_dev(model, data, split)["sts"].values, strict=True)
    }
    written = [float(line.split(" , ")[1]) for line in lines]
    assert written == pytest.approx([scores[str(row)] for row in range(len(written))], abs=1e-5)


def test_a_soup_keeps_its_predictions_and_a_page_shows_them(
    folder: SweepFolder, data: Data, soup: dict[str, Any]
) -> None:
    model, _ = soup_model(folder, soup)
    [*_, predictor] = facts_of(folder).predictors
    assert predictor.name == "ensemble soup-3"
    for part in ("held", "search"):
        expected = predict_dev(model, data, part)
        for task in data.tasks:
            rows = predictor.parts[part][task]
            order = np.argsort(data.parts[task, part])
            assert rows["row"].tolist() == data.parts[task, part][order].tolist()
            np.testing.assert_allclose(rows["prediction"], expected[task].values[order], atol=1e-5)
    held = soup["estimates"]["ensemble"]["held"]["tasks"]
    assert {task: len(predictor.parts["held"][task]) for task in data.tasks} == {t: held[t]["n"] for t in data.tasks}


def test_a_saved_soup_stands_beside_the_other_methods(folder: SweepFolder, soup: dict[str, Any]) -> None:
    store = Path(folder.folder.path).parent
    done = hpo("ensemble", SWEEP, "--compare", "--method", "top-k", "--size", "2", store=store)
    assert done.exit_code == 0, done.output
    [row] = [line.split() for line in done.stdout.splitlines() if line.startswith("soup-3 ")]
    search, held = (soup["estimates"]["ensemble"][part]["overall"] for part in ("search", "held"))
    ends = f"{held['low']:.4f}", f"{held['high']:.4f}"
    assert row[1:4] == [str(len(soup["members"])), f"{search['value']:.4f}", f"{held['value']:.4f}"]
    assert all(end in " ".join(row) for end in ends) and row[-1] != "chosen"
    assert "on `search`, which chose it" in done.stdout and "A soup is not cross-validated" in done.stdout
    record = answer("ensemble", SWEEP, "--compare", "--method", "soup", "--size", "3", store=store)
    assert [each["name"] for each in record["soups"]] == ["soup-3"]
    assert record["soups"][0]["members"] == record["members"] == soup["members"]
    assert {line["method"] for line in record["compared"]} == METHODS.keys()


def test_a_soup_of_one_is_that_trial(folder: SweepFolder) -> None:
    record = answer("ensemble", SWEEP, "--method", "soup", "--size", "1", store=Path(folder.folder.path).parent)
    assert [member["trial"] for member in record["members"]] == [record["best_single"]]
    soup, single = (record["estimates"][role]["held"] for role in ("ensemble", "best_single"))
    assert soup["overall"] == pytest.approx(single["overall"], abs=1e-5)
    assert record["gain"]["value"] == pytest.approx(0.0, abs=1e-5), "merging an adapter rounds"
    assert record["evaluations"] == 1


def test_what_a_soup_refuses(
    folder: SweepFolder, soup: dict[str, Any], checkpoint: Callable[[int], Path], tmp_path: Path
) -> None:
    store = Path(folder.folder.path).parent
    assert (
        "auto, top-k" in (wrong := refused(hpo("ensemble", SWEEP, "--method", "sup", store=store))) and "soup" in wrong
    )
    answer("ensemble", SWEEP, "--method", "top-k", "--size", "2", store=store)
    told = refused(hpo("export", SWEEP, "many", tmp_path / "e", store=store))
    assert "`TRIAL` must be the number of a trial or the name of a saved soup, not 'many'" in told
    assert "is 2 models" in refused(hpo("export", SWEEP, "top-k-2", tmp_path / "e", store=store))
    changed = {**soup, "name": "changed", "members": [{**soup["members"][0], "checkpoint": "0-1"}]}
    (Path(folder.folder.path) / "ensembles" / "changed.json").write_text(json.dumps(changed))
    assert f"only 0-{STEP} is kept now" in refused(hpo("export", SWEEP, "changed", tmp_path / "e", store=store))
