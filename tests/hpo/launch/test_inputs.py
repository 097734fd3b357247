"""Input files besides the tasks' data files: their SHA-256 is recorded and compared on a resume."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.launch.plan import Plan
from hpo.launch.prepare import prepare
from hpo.launch.record import MismatchError, SweepRecord
from hpo.launch.relaunch import plan_again
from minbert.data.files import SAMPLE
from tests.hpo.conftest import FAKES, launch, written
from tests.minbert.conftest import make_corpus

AUGMENTED, NLI, SYNONYMS = "ids-sst-train-augmented.csv", "nli-train.tsv", "synonyms.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus with every input file that some space reads."""
    corpus = make_corpus(tmp_path / "corpus")
    shutil.copy(SAMPLE / NLI, corpus)
    shutil.copy(SAMPLE / SYNONYMS, corpus)
    shutil.copy(corpus / "ids-sst-train.csv", corpus / AUGMENTED)
    return corpus


def planned(folder: Path, *settings: str, **changes: Any) -> Plan:
    if changes.get("space") == "full":
        settings += ("adapter/layers/kind=all",)  # the space draws up to three layers, and the tiny encoder has two
    return prepare(launch(folder.parent / "store", data=str(folder), settings=settings, **changes))


def again(plan: Plan, record: SweepRecord) -> Plan:
    return plan_again(plan.store, record, record.trials, FAKES)


@pytest.mark.parametrize(
    ("space", "settings", "names"),
    [
        ("mixing", (), []),
        ("full", (), [NLI, SYNONYMS]),
        ("full", ("stages/nli/kind=none",), [SYNONYMS]),
        ("full", ("augmentation/kind=file", "stages/nli/kind=none"), [AUGMENTED]),
        ("full", ("augmentation/kind=none", "stages/nli/kind=none"), []),
    ],
)
def test_a_record_names_what_the_space_can_read(
    folder: Path, space: str, settings: tuple[str, ...], names: list[str]
) -> None:
    plan = planned(folder, *settings, space=space)
    assert written(plan).data.inputs == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names
    }


def test_a_given_configuration_reads_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "start.json").write_text('{"augmentation": {"kind": "file"}}')
    assert list(planned(folder, start=(tmp_path / "start.json",)).record.data.inputs) == [AUGMENTED]


@pytest.mark.parametrize("name", [AUGMENTED, NLI])
def test_a_resume_with_another_file_is_refused_by_its_name(folder: Path, name: str) -> None:
    plan = planned(folder, "augmentation/kind=file", "stages/nli/kind=nli")
    record = written(plan)
    assert again(plan, record).record == record
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(MismatchError, match=rf"sweep 's' began with another {name} \(SHA-256\): .* bring the old one"):
        again(plan, record)
    again(plan, replace(record, data=replace(record.data, inputs={})))  # an older store recorded no inputs
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"needs {name}"):
        again(plan, record)


def test_synonyms_that_are_found_elsewhere_are_others(folder: Path) -> None:
    plan = planned(folder, "augmentation/kind=edit")
    record = written(plan)
    (folder / SYNONYMS).write_text('{"film": {"n": ["movie"]}}')
    with pytest.raises(MismatchError, match=f"began with another {SYNONYMS}"):
        again(plan, record)
