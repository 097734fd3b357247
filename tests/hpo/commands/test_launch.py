"""`hpo launch slurm`, `hpo launch kuberay`: the sweep's command, its name and store, and mistakes in any of them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpo.commands.launch import sweep_command
from tests.hpo.cli import hpo, refused

PAGE = Path(__file__).resolve().parents[3] / "docs" / "clusters.md"
SLURM = ("launch", "slurm", "--time", "12:00:00")
KUBERAY = ("launch", "kuberay", "--image", "i", "--store-claim", "sweeps")


def words(text: str) -> list[str]:
    return text.split()


def test_a_run_begins_a_sweep_or_resumes_it() -> None:
    command, values = sweep_command(words("hpo run full --name mine --trials 9 --time 2h --set a=b"), "/s")
    assert command.start == (*words("hpo run --store /s full --name mine --trials 9 --time 2h --set a=b"),)
    assert command.again == (*words("hpo resume --store /s --time 7200 mine"),)
    assert command.exists == (*words("hpo status mine --store /s --json"),)
    assert values["trials"] == 9


def test_a_sweep_without_a_name_gets_one_that_stays() -> None:
    command, _ = sweep_command(words("hpo run spaces/my_space.py"), "/s")
    assert re.fullmatch(r"my-space-\d{8}-\d{6}", command.name)
    assert command.start[:6] == ("hpo", "run", "--name", command.name, "--store", "/s")
    assert command.again[-1] == command.name


@pytest.mark.parametrize("verb", ["resume", "extend --trials 48"])
def test_resume_and_extend_are_the_same_at_every_start(verb: str) -> None:
    command, _ = sweep_command(words(f"hpo {verb} mine"), "/s")
    assert command.start == command.again
    assert command.start[1] == verb.split()[0]
    assert command.name == "mine"


def test_the_commands_own_store_wins_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_STORE", "/elsewhere")
    assert sweep_command(words("hpo run full --store /mine"), "/s")[0].store == "/mine"
    assert sweep_command(words("hpo run full"), "/s")[0].store == "/s"


@pytest.mark.parametrize(("grace", "seconds"), [(30, "15"), (60, "45"), (134, "119"), (135, None), (600, None)])
def test_a_short_grace_period_shortens_the_wait_for_checkpoints(grace: int, seconds: str | None) -> None:
    """A hung trial must not hold up the driver until the job is killed. Two minutes are the default."""
    expected = [] if seconds is None else ["--pause-timeout", seconds]
    for asked in ("hpo run full --name mine", "hpo resume mine", "hpo extend mine --trials 9"):
        command, _ = sweep_command(words(asked), "/s", grace)
        for line in (command.start, command.again):
            assert [word for word in line if word in ("--pause-timeout", seconds)] == expected
            sweep_command([*line], "/s", grace)  # the command accepts its words


def test_a_typed_wait_for_checkpoints_stays_if_the_grace_period_holds_it(tmp_path: Path) -> None:
    command, _ = sweep_command(words("hpo run full --name mine --pause-timeout 20s"), "/s", 30)
    assert command.start == (*words("hpo run --store /s full --name mine --pause-timeout 20s"),)
    assert command.again == (*words("hpo resume --store /s --pause-timeout 20 mine"),)
    (tmp_path / "sweep.toml").write_text("pause_timeout = 20\n")
    command, _ = sweep_command(["hpo", "run", "full", "--config", str(tmp_path / "sweep.toml")], "/s", 30)
    assert "--pause-timeout" not in command.start
    assert words("--pause-timeout 20") == [*command.again[4:6]]


@pytest.mark.parametrize("launch", [SLURM, KUBERAY], ids=["slurm", "kuberay"])
def test_both_launchers_join_the_grace_period_and_the_wait_for_checkpoints(launch: tuple[str, ...]) -> None:
    text = hpo(*launch, "--grace-period", "40", "--", "hpo", "run", "full", "--name", "mine").stdout
    for words_of in ("start", "again"):
        assert re.search(rf"^ *{words_of}=\(hpo .*--pause-timeout 25", text, flags=re.MULTILINE)
    assert "--pause-timeout" not in hpo(*launch, "--", "hpo", "run", "full", "--name", "mine").stdout
    message = refused(hpo(*launch, "--grace-period", "40", "--", *words("hpo run full --pause-timeout 1m")))
    assert "`--pause-timeout` must be shorter than `--grace-period` (40 s), at whose end the job is killed" in message


MISTAKES = {
    "hpo run full --trials 0": "`--trials` must be an integer of at least 1, not 0.",
    "hpo run full --trials many": "`--trials` must be an integer of at least 1, not 'many'.",
    "hpo run": "Missing argument 'SPACE'. See: hpo run --help",
    "hpo run full --tirals 3": "No such option: --tirals",
    "hpo run full --address auto": "must not give `--address`",
    "hpo run full --dry-run": "must not give `--dry-run`",
    "hpo run full --name a/b": "Sweep name",
    "hpo run full --time soon": "`--time`: a time must be a positive number",
    "hpo resume": "Missing argument 'SWEEP'",
    "hpo top mine": "must stand the sweep's command (hpo run, hpo resume, hpo extend ...), not hpo top mine.",
    "python train.py": "After `--` must stand the sweep's command",
}


@pytest.mark.parametrize("launch", [SLURM, KUBERAY], ids=["slurm", "kuberay"])
@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_in_the_sweeps_command_are_found_before_anything_is_written(
    tmp_path: Path, launch: tuple[str, ...], command: str
) -> None:
    out = tmp_path / "file"
    assert MISTAKES[command] in refused(hpo(*launch, "--out", out, "--", *command.split()))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*SLURM, "--partition", "a b"), "`partition` must be one word"),
        (("launch", "slurm", "--time", "12h"), "`time` must be hours:minutes:seconds"),
        (("launch", "slurm", "--time", "0:02:00"), "`time` must be longer than the grace period of 180 s"),
        ((*KUBERAY, "--namespace", "A"), "`namespace` must be lowercase"),
        ((*KUBERAY, "--workers", "4", "--max-workers", "2"), "`max_workers` must be an integer of at least 4, not 2."),
        ((*KUBERAY, "--store", "runs"), "`store` must be an absolute path in the pods"),
        ((*KUBERAY, "--data-claim", "d"), "`data` must be an absolute path in the pods"),
        ((*KUBERAY, "--submission-mode", "HTTP"), "Expected one of: K8sJobMode, SidecarMode, HTTPMode, RayCluster."),
    ],
)
def test_mistakes_in_the_job_are_found_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "file"
    assert message in refused(hpo(*options, "--out", out, "--", "hpo", "run", "full"))
    assert not out.exists()


def test_paths_of_this_machine_are_refused_for_pods(tmp_path: Path) -> None:
    for options in ("my_space.py", "full --data data", "full --start start.json"):
        message = refused(hpo(*KUBERAY, "--", "hpo", "run", *options.split()))
        assert "must be an absolute path in the pods" in message
        assert options.split()[-1] in message


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "new" / "job.sh"
    done = hpo(*SLURM, "--out", out, "--", "hpo", "run", "full", "--name", "mine", store=None)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert f"submit with: sbatch {out}" in done.stderr
    before = out.read_text()
    assert before.startswith("#!/bin/bash\n#SBATCH --job-name=hpo-mine\n")
    assert "exists already" in refused(hpo(*SLURM, "--out", out, "--", "hpo", "run", "full"))
    assert out.read_text() == before


def test_a_sweep_that_exists_is_said_to_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = hpo(*SLURM, "--store", str(tmp_path), "--", "hpo", "run", "full", "--name", "mine")
    assert "note: the sweep mine exists already: the job goes on with it" in done.stderr


def test_the_file_finds_the_programs_and_the_folder_of_this_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = hpo(*SLURM, "--", "hpo", "run", "my_space.py").stdout
    assert f"cd -- {tmp_path} || exit 2\nPATH={Path(sys.executable).parent}:$PATH\n" in text
    assert f"--store {tmp_path}/runs" in text, "a relative store is made absolute"


def test_names_of_kubernetes_are_made_of_a_sweeps_name() -> None:
    text = hpo(*KUBERAY, "--", "hpo", "run", "full", "--name", "My_Sweep.2").stdout
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    assert [document["metadata"]["name"] for document in documents] == ["hpo-my-sweep-2-sweep", "hpo-my-sweep-2"]
    assert "must have at most 47 characters" in refused(hpo(*KUBERAY, "--", "hpo", "run", "full", "--name", "a" * 60))


def test_the_commands_of_the_page_on_clusters_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [line[1:] for line in lines if line[:1] == ["hpo"]]
    launches = [command for command in commands if command[0] == "launch"]
    assert len(launches) == 2
    for launch in launches:
        done = hpo(*launch)
        assert done.exit_code == 0, done.output
    for command in commands:
        if command[0] not in ("launch", "doctor"):
            assert sweep_command(["hpo", *without_address(command)], "runs")[0].store
    submitted = {line[-1] for line in lines if line[:1] in (["sbatch"], ["kubectl"])}
    assert submitted == {path.name for path in tmp_path.iterdir()}, "each file that is written is submitted"


def without_address(command: list[str]) -> list[str]:
    """A command without the option that a job may not give."""
    if "--address" not in command:
        return command
    place = command.index("--address")
    return command[:place] + command[place + 2 :]


def test_nothing_slow_is_imported() -> None:
    code = (
        "import sys; from hpo.__main__ import build\n"
        f"build()({[*KUBERAY, '--', 'hpo', 'run', 'full']!r}, standalone_mode=False)\n"
        "print(*sorted({'ray', 'torch', 'optuna', 'duckdb', 'scipy', 'plotly'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == ""
