"""Building a run's space: checks that need no configuration run without torch, Ray or data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpo.launch.plan import complete_for
from hpo.launch.prepare import prepare, unusual_values
from hpo.space.build import build
from minbert.tasks import choose_tasks
from search_spaces import names
from search_spaces.domains import Float, Kind, OneOf, SpaceError
from tests.hpo.conftest import launch

TASKS = ("sst", "qqp", "sts")
ROOT = Path(__file__).resolve().parents[3]

HEAVY = ("torch", "ray", "pandas", "duckdb", "pyarrow", "numpy")


def modules_after(code: str) -> set[str]:
    """The heavy modules that a new process has imported at the end of `code`."""
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_what_needs_no_configuration_is_refused_without_heavy_imports() -> None:
    code = """
from hpo.space.build import build
from search_spaces.domains import OneOf, SpaceError
for space, settings in (({3: OneOf(1)}, ()), ("full", ("adapter.lora/rank=8",)), ("ful", ())):
    try:
        build(space, ("sst",), settings)
    except SpaceError:
        continue
    raise SystemExit(f"not refused: {space} {settings}")
"""
    assert modules_after(code) == set()


CHANGES = {
    "numpy": ["trials=0", "settings=('adapter.lora/rank=8',)", "space={'x': 3}", "tasks='stss'"],
    "numpy torch": [
        "settings=('adapter/knd=lora',)", "space={'xx': OneOf(1, 2)}",
        "space={'optimizer': {'encoder_lr': OneOf(1.0, 7.0)}}",
    ],
}  # fmt: skip
"""Heavy modules that a refusal may import -> changes that are refused."""


@pytest.mark.parametrize("allowed", CHANGES)
def test_a_launch_is_refused_before_ray_and_pandas_are_imported_and_data_are_read(allowed: str) -> None:
    code = f"""
from hpo.launch.prepare import prepare
from hpo.launch.request import Launch
from search_spaces.domains import OneOf
for change in ({", ".join(f"dict({change})" for change in CHANGES[allowed])},):
    try:
        prepare(Launch(**{{"space": "mixing", "data": "/nowhere"}} | change))
    except ValueError as error:
        assert "nowhere" not in str(error), error
        continue
    raise SystemExit(f"not refused: {{change}}")
"""
    assert modules_after(code) <= set(allowed.split())


def test_a_space_of_one_task_is_built_without_what_mixes_tasks() -> None:
    built = build({"mixing": Kind(summed={}, alpha={}), "x": Float(0, 1)}, ("sst",))
    assert built.space.tree == {"x": Float(0, 1)}
    assert built.notes == ("mixing left out: with the one task sst there is nothing to mix",)
    with pytest.raises(SpaceError, match=r"only compares ways to mix several tasks \(mixing\), and this sweep has one"):
        build({"mixing": Kind(summed={}, alpha={})}, ("sst",))


def test_left_out_tasks_are_named() -> None:
    built = build({"batch_size": {"sst": OneOf(1, 2), "qqp": OneOf(3, 4)}}, ("sst", "sts"))
    assert built.space.tree == {"batch_size": {"sst": OneOf(1, 2)}}
    assert built.left_out == ("batch_size/qqp",)


@pytest.mark.parametrize("space", [{}, {"dropout": {"hidden": OneOf(0.2)}}], ids=["empty", "constant"])
def test_a_space_that_varies_nothing_runs_the_default_and_given_trials_alone(tmp_path: Path, space: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="`space` varies nothing, so 7 of 8 trials would repeat one configuration"):
        prepare(launch(tmp_path, space=space))
    assert prepare(launch(tmp_path, space=space, trials=1)).trials == 1
    (tmp_path / "start.json").write_text('{"dropout": {"head": 0.2}}')
    assert prepare(launch(tmp_path, space=space, trials=2, start=(tmp_path / "start.json",))).trials == 2
    pinned = prepare(launch(tmp_path, settings=("optimizer/encoder_lr=0.001",)))
    assert pinned.trials == 8, "a space that is pinned away compares seeds"


def test_legal_values_that_are_rarely_meant_are_notes_of_a_plan(tmp_path: Path) -> None:
    space = {"dropout": {"hidden": Float(0.0, 0.9)}}
    plan = prepare(launch(tmp_path, space=space, settings=("optimizer/encoder_lr=1.0", "dropout/head=0.2")))
    lr = "`optimizer/encoder_lr` = 1.0: rates above 1e-2 diverge as a rule; usual are 1e-06 to 0.001"
    assert lr in plan.preview.notes
    assert any(note.startswith("`dropout/hidden` = 0.9") for note in plan.preview.notes)
    assert len(plan.preview.notes) == 2


@pytest.mark.parametrize("name", names())
def test_no_space_of_the_package_holds_a_surprise(name: str) -> None:
    tasks = choose_tasks("sst,qqp,sts,cfimdb")
    assert unusual_values(build(name, list(tasks)).space.check(complete_for(tasks), list(tasks)), tasks) == []


def test_tasks_one_after_the_other_are_left_out_where_trials_are_stopped_early() -> None:
    raced = build("full", TASKS, raced=True)
    [kind] = [leaf for leaf in raced.space.leaves if leaf.path == "mixing/kind"]
    assert kind.domain.choices == ("summed", "round_robin", "alpha", "annealed")
    [note] = raced.notes
    assert note.startswith("mixing.sequential left out: ")
    assert "--scheduler none" in note
    whole = build("full", TASKS)
    assert whole.notes == ()
    assert any(leaf.name == "mixing.sequential/order" for leaf in whole.space.leaves)


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        ("full", ["mixing/kind=sequential"]),
        ({"dropout": {"hidden": Float(0.0, 0.3)}}, ["mixing/kind=sequential"]),
        ({"mixing": Kind(sequential={"alpha": Float(0.0, 1.0)})}, []),
        ({"mixing": {"kind": OneOf("summed", "sequential")}}, []),
    ],
)
def test_tasks_one_after_the_other_are_refused_where_trials_are_stopped_early(space: Any, settings: list[str]) -> None:
    with pytest.raises(SpaceError, match="`mixing/kind` = sequential: .* Give it `--scheduler none`"):
        build(space, TASKS, settings, raced=True)
    build(space, TASKS, settings)
