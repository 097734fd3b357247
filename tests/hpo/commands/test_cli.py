"""The command line as a whole: help texts, imports, error messages and exit codes."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from hpo.__main__ import FILES, GROUPS, LAUNCH_FILES, build, shadowed
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
LAUNCHES = [f"{LAUNCH_FILES} {name}" for name in FILES]
"""Commands of `hpo launch`."""


def test_help_lists_every_command_and_no_other() -> None:
    text = hpo("--help").stdout
    for name in [*COMMANDS, LAUNCH_FILES]:
        assert f"│ {name} " in text
    expected = (
        "run resume extend list status stop logs rm top show best compare importance query report dashboard log "
        "ensemble predict export spaces doctor gc"
    )
    assert sorted(expected.split()) == sorted(COMMANDS)


@pytest.mark.parametrize("name", [*COMMANDS, *LAUNCHES])
def test_every_command_has_help_with_an_example(name: str) -> None:
    text = hpo(*name.split(), "--help").stdout
    assert f"Example: hpo {name}" in " ".join(text.split())
    assert "--store" in text or name == "spaces"


def test_run_has_the_options_that_the_interface_fixes() -> None:
    text = hpo("run", "--help").stdout
    searched = "data base trials budget seed name set start start-full eta grace repeats"
    used = "time address workers cpus-per-trial gpus-per-trial trial-timeout pause-timeout keep dry-run store"
    for option in f"{searched} {used}".split():
        assert f"--{option} " in text or f"--{option}," in text, option


def test_unknown_command_is_refused_with_the_nearest() -> None:
    assert "'top'" in refused(hpo("topp"))


def test_help_says_the_exit_codes() -> None:
    assert "Exit codes: 0 done, 2 bad input, 3 stopped, resumable by: hpo resume SWEEP" in hpo("--help").stdout


def test_version_names_ours_first_and_what_results_depend_on() -> None:
    done = hpo("--version")
    assert done.exit_code == 0
    versions = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert next(iter(versions)) == "minbert-hpo"
    for package in ("torch", "ray", "optuna"):
        assert versions[package] == importlib.metadata.version(package)


NUMBERS = {
    "run": "--trials=1 --budget=1 --seed=0 --eta=2 --grace=1 --repeats=0 --keep=1 "
    "--workers=1 --cpus-per-trial=1 --gpus-per-trial=0",
    "resume": "--workers=1 --cpus-per-trial=1 --gpus-per-trial=0",
    "extend": "--trials=1 --workers=1 --cpus-per-trial=1 --gpus-per-trial=0",
    "top": "-n=1",
    "show": "TRIAL=0",
    "importance": "--rung=1 -n=1",
    "report": "--port=0",
    "dashboard": "--port=0",
    "logs": "TRIAL=0",
    "rm": "--trial=0",
    "ensemble": "--size=1",
    "predict": "--trial=0",
    "doctor": "--gpus-per-trial=0",
    "gc": "--keep=0",
    "launch slurm": "--nodes=1 --gpus-per-node=0 --cpus-per-node=1 --grace-period=30 --retries=0",
    "launch kuberay": "--workers=1 --max-workers=1 --gpus-per-worker=0 --cpus-per-worker=1 --head-cpus=1 "
    "--grace-period=30 --retries=0",
}
"""Command -> its options and arguments that take a number, each with its smallest value."""
FRACTIONS = {"--gpus-per-trial"}
"""Options that take fractions."""
NEEDED = {
    "run": "quickstart",
    "predict": "sweep --out x",
    "doctor": "",
    "launch slurm": "--time 1:00:00",
    "launch kuberay": "--image i --store-claim s",
}
"""Command -> what else it must be given; by default a sweep's name."""
CASES = [(name, *text.split("=")) for name, options in NUMBERS.items() for text in options.split()]


def takes_a_duration(parameter: Any) -> bool:
    """Whether an option takes a time such as 15m."""
    return parameter.opts[0] in ("--time", "--trial-timeout", "--pause-timeout")


def test_every_option_with_a_number_is_in_the_table() -> None:
    commands = dict(get_command(build()).commands)  # type: ignore[attr-defined]
    launches = commands.pop(LAUNCH_FILES).commands
    commands |= {f"{LAUNCH_FILES} {name}": command for name, command in launches.items()}
    parameters = {
        (name, parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0])
        for name, command in commands.items()
        for parameter in command.params
        if parameter.type_descriptor.annotation in (int, float)
        and parameter.opts != ["--caches"]
        and not takes_a_duration(parameter)
    }
    assert parameters == {(name, option) for name, option, _ in CASES}


@pytest.mark.parametrize(("name", "option", "least"), CASES, ids=[f"{name} {option}" for name, option, _ in CASES])
def test_a_wrong_number_is_refused_in_plain_words(name: str, option: str, least: str) -> None:
    rule = f"hpo: `{option}` must be {'a number' if option in FRACTIONS else 'an integer'} of at least {least}, not"
    for wrong, shown in (("many", "'many'"), (str(int(least) - 1), str(int(least) - 1)), ("", "''"), ("nan", "nan")):
        if option == "TRIAL":
            words = [name, "sweep", "--", wrong]
        else:
            needed = NEEDED.get(name, "sweep").split()
            words = [*name.split(), *needed, option, wrong]
        assert refused(hpo(*words)) == f"{rule} {shown}."


def test_a_fraction_in_place_of_an_integer_is_refused() -> None:
    assert refused(hpo("top", "sweep", "-n", "1.5")) == "hpo: `-n` must be an integer of at least 1, not 1.5."


def test_a_wrong_time_names_its_option() -> None:
    for option in ("--time", "--trial-timeout", "--pause-timeout"):
        answer = refused(hpo("resume", "sweep", option, "soon"))
        assert answer.startswith(f"hpo: `{option}`: a time must be a positive")


def test_a_wrong_size_names_its_option() -> None:
    for wrong in ("many", "-1", "5X", "nan"):
        assert refused(hpo("gc", "--caches", wrong)).startswith("hpo: `--caches`: a size must be a number of bytes, or")


def test_what_is_missing_is_named_with_where_to_look() -> None:
    assert refused(hpo("top")) == "hpo: Missing argument 'SWEEP'. See: hpo top --help"
    assert refused(hpo("launch", "slurm")) == "hpo: Missing argument '-- hpo run ...'. See: hpo launch slurm --help"
    assert refused(hpo("export", "sweep", "1")) == "hpo: Missing argument 'DIR'. See: hpo export --help"
    slurm = ("launch", "slurm", "--", "hpo", "run", "quickstart")
    assert refused(hpo(*slurm)) == "hpo: Missing option '--time'. See: hpo launch slurm --help"


def process(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpo", *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


QUICK = [["--help"], ["spaces"], ["list"], ["status", SWEEP], ["logs", SWEEP, "3"]]


@pytest.mark.parametrize("arguments", QUICK, ids=lambda arguments: arguments[0])
def test_quick_commands_import_nothing_slow(kept_store: Path, arguments: list[str]) -> None:
    where = [] if arguments[0] in ("--help", "spaces", "launch") else ["--store", str(kept_store)]
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
