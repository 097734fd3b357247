"""The command line as a whole: help, what it imports, how mistakes reach the shell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpo.__main__ import GROUPS, shadowed
from tests.hpo import stored
from tests.hpo.cli import SWEEP, hpo, refused

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def kept_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read, or add ensembles to."""
    path = tmp_path_factory.mktemp("store")
    stored.make(path)
    return path


COMMANDS = [name for commands in GROUPS.values() for name in commands]


def test_help_lists_every_command_and_no_other() -> None:
    text = hpo("--help").stdout
    for name in COMMANDS:
        assert f"│ {name} " in text
    wanted = "run resume extend list status stop logs rm top show query ensemble predict spaces"
    assert sorted(wanted.split()) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    text = hpo(name, "--help").stdout
    assert f"Example: hpo {name}" in " ".join(text.split())
    assert "--store" in text or name == "spaces"


def test_run_has_the_options_that_the_interface_fixes() -> None:
    text = hpo("run", "--help").stdout
    searched = "data checkpoint trials budget seed name set start eta grace"
    used = "time address workers cpus-per-trial gpus-per-trial keep dry-run store"
    for option in f"{searched} {used}".split():
        assert f"--{option} " in text, option


def test_unknown_command_is_refused_with_the_nearest() -> None:
    assert "'top'" in refused(hpo("topp"))


def process(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpo", *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["status", SWEEP], ["logs", SWEEP, "3"]])
def test_quick_commands_import_nothing_slow(kept_store: Path, arguments: list[str]) -> None:
    where = [] if arguments == ["--help"] else ["--store", str(kept_store)]
    code = (
        "import sys; from hpo.__main__ import build\n"
        f"build()({[*arguments, *where]!r}, standalone_mode=False)\n"
        "print(*sorted({'ray', 'torch', 'optuna', 'duckdb', 'scipy', 'plotly', 'transformers'} & set(sys.modules)), "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""


def test_mistakes_reach_the_shell_as_exit_code_2(kept_store: Path) -> None:
    done = process("top", "nosuch", "--store", str(kept_store))
    assert done.returncode == 2
    assert done.stderr.startswith("hpo: ")
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_watch_quietly(kept_store: Path) -> None:
    import signal

    command = [sys.executable, "-m", "hpo", "logs", SWEEP, "3", "-f", "--store", str(kept_store)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "step 1\n"
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_a_package_that_shadows_one_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "__init__.py").write_text("")
    done = process("list", folder=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert "`results` is shadowed" in done.stderr
    assert str(tmp_path / "results") in done.stderr
    assert shadowed(ROOT) == []
