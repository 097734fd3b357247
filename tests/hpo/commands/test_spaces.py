"""`hpo spaces FILE`: a file with a search space is checked, and all its mistakes are listed at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hpo.cli import hpo, refused

GOOD = """from search_spaces import Float, Kind, OneOf, PerTask

RATE = Float(1e-5, 3e-4, log=True)
SPACE = {
    "adapter": Kind(none={"/optimizer/encoder_lr": RATE}, lora={"rank": OneOf(4, 8), "/optimizer/encoder_lr": RATE}),
    "batch_size": PerTask(OneOf(8, 16), qqp=OneOf(16, 32)),
}
"""
WRONG = """from search_spaces import Float, Kind, OneOf

RATE = Float(1e-5, 3e-4, log=True)
SPACE = {
    "adapter": Kind(none={"optimizer": {"encoder_lr": RATE}}, lora={"rnak": OneOf(4, 8)}),
    "adaptr": Kind(none={}, lora={}),
    "batch_size": OneOf(8, 16),
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my_space.py"


def test_a_file_without_mistakes_is_listed_and_says_so(path: Path) -> None:
    path.write_text(GOOD)
    done = hpo("spaces", path)
    assert done.exit_code == 0, done.output
    assert "adapter/rank" in done.stdout
    assert "6 parameters over the tasks sst, qqp, sts, no mistake found" in done.stdout
    single_task = hpo("spaces", path, "--tasks", "sst")
    assert "4 parameters over the tasks sst, no mistake found" in single_task.stdout
    assert "batch_size/qqp" not in single_task.stdout


def test_all_mistakes_of_a_file_are_listed_with_exit_code_2(path: Path) -> None:
    path.write_text(WRONG)
    message = refused(hpo("spaces", path))
    assert message.startswith("hpo: 4 mistakes: 1. ")
    for cure in ('"/optimizer/encoder_lr"', "Did you mean `adapter/rank`?", "Did you mean `adapter`?", "PerTask("):
        assert message.count(cure) == 1
    assert message == refused(hpo("run", path, "--checkpoint", "tiny", "--data", "/nowhere"))


def test_mistakes_of_the_tree_and_of_python_are_listed_too(path: Path) -> None:
    path.write_text("SPACE = {3: 4, 'a': [1]}")
    assert "2 mistakes" in refused(hpo("spaces", path))
    path.write_text("SPACE = {}\nSPACE['optimizer'] = SPACE")
    assert "SPACE/optimizer is the same object as SPACE" in refused(hpo("spaces", path))
    assert "SPACE/optimizer is the same object as SPACE" in refused(hpo("run", path))
    path.write_text("SPACE = 1 / 0")
    assert "my_space.py:1: ZeroDivisionError" in refused(hpo("spaces", path))
    assert "Unknown task `stss`" in refused(hpo("spaces", "full", "--tasks", "stss"))


def test_what_is_legal_and_rarely_meant_is_a_note(path: Path) -> None:
    path.write_text(GOOD.replace("3e-4", "1.0"))
    done = hpo("spaces", path)
    assert done.exit_code == 0, done.output
    assert "note: `optimizer/encoder_lr` = 1.0: rates above 1e-2 diverge as a rule" in done.stdout
    path.write_text("SPACE = {}")
    assert "note: the space varies nothing: `hpo run` accepts it with --trials 1 only" in hpo("spaces", path).stdout
