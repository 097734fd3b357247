"""The options of a launch in a file: written and read they are the same launch, and the command line wins."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from hpo.launch import file, prepare
from hpo.launch.request import Launch, LaunchError, from_options
from tests.hpo.cli import hpo, refused
from tests.hpo.conftest import SPACE


def test_a_launch_is_read_as_it_was_written(tmp_path: Path) -> None:
    launch = from_options(
        Launch,
        {
            "space": 'odd "name"\\\n\x7fé😀.py', "data": "../data", "trials": 7, "time": 900.5, "seed": 3, "keep": 2,
            "settings": ("adapter/kind=lora", 'a/b="x"'), "start": (Path("one.json"), Path("two.json")),
            "warm_start": ("before",), "cpus_per_trial": 2, "gpus_per_trial": 0.25, "store": "elsewhere",
        },
    )  # fmt: skip
    path = tmp_path / "launch.toml"
    path.write_text(file.text_of(launch), encoding="utf-8")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in file.read(path).items()}
    values["start"] = tuple(Path(each) for each in values["start"])
    assert from_options(Launch, values) == launch
    with pytest.raises(LaunchError, match="only a space with a name"):
        file.text_of(Launch(SPACE))


def capture(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches that commands prepare from now on; none runs."""
    found: list[Launch] = []

    def stop(launch: Launch, **options: Any) -> None:
        found.append(launch)
        raise LaunchError("captured")

    monkeypatch.setattr(prepare, "prepare", stop)
    return found


def test_the_command_line_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = capture(monkeypatch)
    path = tmp_path / "launch.toml"
    path.write_text(
        'space = "heads"\ntrials = 9\ntime = "2h"\nsettings = ["precision=float32"]\nstart = ["a.json"]\n'
        'workers = 3\nstore = "of-the-file"\n'
    )
    monkeypatch.delenv("HPO_STORE", raising=False)
    expected = {"space": "heads", "trials": 9, "time": 7200.0, "settings": ("precision=float32",), "workers": 3,
                "start": (Path("a.json"),), "store": "of-the-file"}  # fmt: skip
    hpo("run", "--config", path)
    assert launched[-1] == from_options(Launch, expected)
    hpo("run", "full", "--trials", "4", "--config", path, "--set", "adapter/kind=lora", "--time", "90s")
    changed = {"space": "full", "trials": 4, "settings": ("adapter/kind=lora",), "time": 90.0}
    assert launched[-1] == from_options(Launch, expected | changed)


def test_a_file_with_mistakes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "launch.toml"
    for content, message in (
        ("trialz = 3", "Unknown option `trialz`. Did you mean `trials`? Accepted: address, base, budget,"),
        ('trainer = "mine"', "Unknown option `trainer`"),
        ("trials = ", "is no TOML file"),
        ('space = "full"\ntrials = "many"', "`--trials` must be an integer of at least 1, not 'many'"),
        ("trials = 3", "Missing argument 'SPACE'"),
    ):
        path.write_text(content)
        assert message in refused(hpo("run", "--config", path))
    assert "cannot read" in refused(hpo("run", "--config", tmp_path / "none.toml"))


def test_a_dry_run_saves_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "launch.toml"
    common = ("run", "quickstart", "--base", "tiny", "--trials", "5", "--budget", "900")
    assert "add --dry-run" in refused(hpo(*common, "--save", path, store=tmp_path / "runs"))
    done = hpo(*common, "--dry-run", "--save", path, store=tmp_path / "runs")
    assert done.exit_code == 0, done.output
    assert f"hpo run --config {path}" in done.stderr
    saved = tomllib.loads(path.read_text())
    assert (saved["space"], saved["trials"], saved["base"]) == ("quickstart", 5, "tiny")
    requests = capture(monkeypatch)
    hpo("run", "--config", path)
    hpo(*common, store=tmp_path / "runs")
    assert requests[0] == requests[1]
    assert "exists already" in refused(hpo(*common, "--dry-run", "--save", path, store=tmp_path / "runs"))
