"""What a sweep's trials read besides the tasks' files belongs to its fingerprint."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.session import check_unchanged
from hpo.launch.plan import MismatchError, Plan
from hpo.launch.prepare import prepare
from minbert.data.files import SAMPLE
from tests.hpo.conftest import launch
from tests.minbert.conftest import make_corpus

AUGMENTED, NLI, SYNONYMS = "ids-sst-train-augmented.csv", "nli-train.tsv", "synonyms.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus with everything that any space reads beside the tasks' files."""
    made = make_corpus(tmp_path / "corpus")
    shutil.copy(SAMPLE / NLI, made)
    shutil.copy(SAMPLE / SYNONYMS, made)
    shutil.copy(made / "ids-sst-train.csv", made / AUGMENTED)
    return made


def planned(folder: Path, *settings: str, **changes: Any) -> Plan:
    if changes.get("space") == "full":
        settings += ("adapter/layers/kind=all",)  # it asks for up to three layers, and the tiny encoder has two
    return prepare(launch(folder.parent / "store", data=str(folder), settings=settings, **changes))


def recorded(plan: Plan) -> dict[str, Any]:
    assert plan.resources is not None
    meta: dict[str, Any] = json.loads(json.dumps(plan.meta(plan.resources)))
    return meta


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
    assert recorded(plan)["data"]["inputs"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names
    }


def test_a_given_configuration_reads_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "start.json").write_text('{"augmentation": {"kind": "file"}}')
    assert list(planned(folder, start=(tmp_path / "start.json",)).inputs) == [AUGMENTED]


@pytest.mark.parametrize("name", [AUGMENTED, NLI])
def test_a_resume_with_another_file_is_refused_by_its_name(folder: Path, name: str) -> None:
    plan = planned(folder, "augmentation/kind=file", "stages/nli/kind=nli")
    meta = recorded(plan)
    again = Plan.from_meta(plan.store, meta)
    check_unchanged(again, meta)
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(MismatchError, match=rf"sweep 's' began with another {name} \(SHA-256\): .* bring the old file"):
        check_unchanged(again, meta)
    del meta["data"]["inputs"]
    check_unchanged(Plan.from_meta(plan.store, meta), meta)  # a store from before
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"needs {name}"):
        check_unchanged(again, recorded(plan))


def test_synonyms_that_are_found_elsewhere_are_others(folder: Path) -> None:
    plan = planned(folder, "augmentation/kind=edit")
    meta = recorded(plan)
    (folder / SYNONYMS).write_text('{"film": {"n": ["movie"]}}')
    with pytest.raises(MismatchError, match=f"began with another {SYNONYMS}"):
        check_unchanged(Plan.from_meta(plan.store, meta), meta)
