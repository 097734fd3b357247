"""Slurm's batch script: what it asks of sbatch, its quoting, and what it does on a Slurm of this machine alone."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.generations import claim
from hpo.submission.command import SubmissionError, SweepCommand, quoted
from hpo.submission.command import script as text_of
from hpo.submission.slurm import SlurmJob, batch_script
from results.places import locate
from tests.hpo import stored
from tests.hpo.cli import SWEEP, hpo
from tests.hpo.submission.fake_slurm import FakeSlurm
from tests.hpo.submission.nasty import texts
from tests.minbert.conftest import make_corpus

JOB = 100 * os.getpid()
"""Number from which the tests' jobs are counted: two runs of these tests share /tmp and the ports."""

MANUAL = """
account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint container
container-id contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot
dependency distribution error exclude exclusive export export-file extra extra-node-info get-user-env gid gpu-bind
gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags help hint hold ignore-pbs input job-name
kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice
no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket
open-mode output overcommit oversubscribe parsable partition power prefer priority profile propagate qos quiet
reboot requeue reservation signal sockets-per-node spread-job stepmgr switches test-only thread-spec
threads-per-core time time-min tmp tres-bind tres-per-task uid use-min-nodes verbose version wait wait-all-nodes
wckey wrap
"""
DOCUMENTED = frozenset(MANUAL.split())
"""Long options of sbatch, as its manual lists them."""


def command(*words: str, name: str = "mine", store: str = "/store") -> SweepCommand:
    start = ("hpo", "run", "--name", name, "--store", store, *words)
    return SweepCommand(name, store, start, ("hpo", "resume", name, "--store", store))


def job(**changes: Any) -> SlurmJob:
    return SlurmJob(**{"name": "hpo-mine", "time": "1:00:00", **changes})


def script(slurm: FakeSlurm, words: tuple[str, ...] = ("full",), **changes: Any) -> str:
    return batch_script(job(**changes), command(*words), str(slurm.folder), slurm.stand_ins)


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm's folder").install()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition; the limit only keeps a broken test from hanging."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], seconds: float = 60.0) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


FULL = job(
    nodes=3, gpus_per_node=4, cpus_per_node=32, memory="64G", partition="gpu,long", account="a1", qos="high",
    constraint="[a100|h100]", output="logs/%x-%j.out",
)  # fmt: skip


@pytest.mark.parametrize("asked", [job(), FULL])
def test_every_sbatch_line_is_a_documented_option(asked: SlurmJob) -> None:
    text = batch_script(asked, command("full"), "/work", "/bin")
    head, _, rest = text.partition("\n\n")
    lines = head.splitlines()
    assert lines[0] == "#!/bin/bash"
    options = {
        match[1]: match[2] for line in lines[1:] if (match := re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line))
    }
    assert len(options) == len(lines) - 1
    assert set(options) <= DOCUMENTED
    assert "#SBATCH" not in rest, "sbatch stops reading at the first command"
    assert options["signal"] == "B:TERM@180"
    assert {"requeue", "no-kill"} <= set(options)


def test_options_hold_what_was_asked() -> None:
    options = FULL.options()
    assert options["gpus-per-node"] == 4
    assert options["cpus-per-task"] == 32
    assert options["constraint"] == "[a100|h100]"
    assert "gpus-per-node" not in job().options()
    assert job().cpus == 4
    assert job(gpus_per_node=4).cpus == 16


@pytest.mark.parametrize("text", ["12:00:00", "1-00", "2-12:30", "2-12:30:10"])
def test_times_of_slurm_are_understood(text: str) -> None:
    seconds = {"12:00:00": 43_200, "1-00": 86_400, "2-12:30": 217_800, "2-12:30:10": 217_810}
    assert job(time=text).seconds == seconds[text]


WRONG = {
    "nodes": [0, -1, 1.5, True],
    "gpus_per_node": [-1],
    "cpus_per_node": [0],
    "retries": [-1],
    "grace": [29],
    "time": ["", "soon", "12h", "90", "0:03:00", "1:00:00\n#SBATCH --uid=0", "\u0661:00:00"],
    "memory": ["lots", "0G", "64 G", "64G\n"],
    **{
        name: ["", "two words", "a\nb", "a#b", "a'b", '"a', "a$b", "a`b", "-x", "a\\b", "a\n"]
        for name in ("name", "partition", "account", "qos", "constraint", "output")
    },
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_what_no_job_could_have_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(SubmissionError, match=f"`{'time' if field == 'time' else field}`"):
        job(**{field: value})


@pytest.mark.parametrize("asked", [job(), FULL])
def test_bash_accepts_the_script(asked: SlurmJob) -> None:
    text = batch_script(asked, command("it's", "$(id)", "a\nb"), "/wo rk", "/b'in")
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def read_back(shell: str, array: str) -> list[str]:
    """The words of an array as bash holds them."""
    done = subprocess.run(
        ["bash", "-c", shell + f'\nprintf "%s\\0" "${{{array}[@]}}"'], capture_output=True, check=True
    )
    return done.stdout.decode().split("\0")[:-1]


def test_nothing_breaks_out_of_the_quoting() -> None:
    generator = random.Random(0)
    for _ in range(30):
        words = tuple(texts(generator, 12))
        asked = SweepCommand("mine", words[0], ("hpo", "run", *words), ("hpo", "resume", *words[::-1]))
        shell = asked.shell()
        assert read_back(shell, "start") == ["hpo", "run", *words]
        assert read_back(shell, "again") == ["hpo", "resume", *words[::-1]]
        assert read_back(shell, "exists")[4] == words[0]
    assert quoted(["", "a b"]) == "'' 'a b'"


def test_folder_and_programs_stay_one_word() -> None:
    for text in texts(random.Random(1), 20):
        lines = batch_script(job(), command("full"), text, text.replace(":", "")).split("start=(")[0]
        shell = lines.replace("cd -- ", "folder=").replace(" || exit 2", "")
        shell = re.sub(r"^PATH=(.*):\$PATH$", r"programs=\1", shell, flags=re.MULTILINE | re.DOTALL)
        assert read_back(shell, "folder") == [text]
        assert read_back(shell, "programs") == [text.replace(":", "")]


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_argument_can_hold_is_refused(text: str) -> None:
    with pytest.raises(SubmissionError, match="`command`"):
        command(text)
    with pytest.raises(SubmissionError, match="`folder`"):
        batch_script(job(), command("full"), text, "/bin")


def test_a_job_starts_a_head_without_cpus_and_a_worker_for_each_machine(slurm: FakeSlurm) -> None:
    code, output = ended(slurm.start(script(slurm, ("full", "--data", "a b"), nodes=2, gpus_per_node=4), JOB + 1))
    assert code == 0, output
    head, *workers = slurm.calls("ray")
    assert (head["num-cpus"], head["num-gpus"], head["include-dashboard"]) == ("0", "0", "false")
    assert [(worker["num-cpus"], worker["num-gpus"]) for worker in workers] == [("16", "4")] * 2
    assert {worker["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] for worker in workers} == {"165"}, "15 s less than the job"
    assert slurm.calls("ended") == ["worker", "worker", "head"], "a worker that ends tells the head"
    assert {worker["address"] for worker in workers} == {f"{head['node-ip-address']}:{head['port']}"}
    assert len({process["temp-dir"] for process in (head, *workers)}) == 3
    (sweep,) = slurm.calls("hpo")
    assert sweep == [
        "run",
        "--address",
        workers[0]["address"],
        "--name",
        "mine",
        "--store",
        "/store",
        "full",
        "--data",
        "a b",
    ]
    assert slurm.calls("scontrol") == []


def test_ports_folders_and_tokens_differ_between_jobs(slurm: FakeSlurm) -> None:
    for number, restarts in ((JOB + 11, 0), (JOB + 11, 1), (JOB + 14, 0)):
        code, output = ended(slurm.start(script(slurm), number, {"SLURM_RESTART_COUNT": str(restarts)}))
        assert code == 0, output
        assert not Path(f"/tmp/hpo-{number}-{restarts}").exists(), "temporary folders are removed"
    heads = [call for call in slurm.calls("ray") if "head" in call]
    assert [int(call["port"]) - 20_000 for call in heads][::2] == [(JOB + 11) % 10_000, (JOB + 14) % 10_000]
    assert len({call["temp-dir"] for call in heads}) == 3
    tokens = [call["RAY_AUTH_TOKEN"] for call in slurm.calls("ray")]
    assert all(call["RAY_AUTH_MODE"] == "token" for call in slurm.calls("ray"))
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in tokens)
    assert len(set(tokens)) == 3, "one for each job, the same for its head and worker"
    assert not any(token in path.read_text() for token in tokens for path in [slurm.folder / "job.sh"])


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [(None, "4"), ("2,3", "2"), ("GPU-aa,GPU-bb,GPU-cc", "3"), ("0", "1"), ("", "0"), ("NoDevFiles", "0")],
)
def test_gpus_are_those_that_the_job_sees(slurm: FakeSlurm, visible: str | None, gpus: str) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    code, output = ended(slurm.start(script(slurm, gpus_per_node=4), JOB + 21, environment))
    assert code == 0, output
    assert slurm.calls("ray")[1]["num-gpus"] == gpus


def test_a_sweep_that_exists_is_resumed(slurm: FakeSlurm) -> None:
    (slurm.folder / "exists").touch()
    assert ended(slurm.start(script(slurm), JOB + 31))[0] == 0
    assert slurm.calls("hpo")[0][0] == "resume"


def test_a_driver_that_was_killed_elsewhere_is_waited_for(slurm: FakeSlurm) -> None:
    (slurm.folder / "exists").write_text('"phase": "searching"')
    process = slurm.start(script(slurm).replace("sleep 10", "sleep 1"), JOB + 33)
    until(lambda: len(slurm.calls("ray")) == 2)
    time.sleep(1.5)
    assert slurm.calls("hpo") == []
    (slurm.folder / "exists").write_text('"phase": "interrupted"')
    assert ended(process)[0] == 0
    assert slurm.calls("hpo")[0][0] == "resume"


def test_phases_of_a_living_driver_are_those_that_jobs_wait_for(tmp_path: Path) -> None:
    stored.make(tmp_path)
    pattern = re.search(r"grep -q '(.*)'", text_of("begin.sh"))
    assert pattern is not None

    def living() -> bool:
        state = hpo("status", SWEEP, "--json", store=tmp_path).stdout
        return subprocess.run(["grep", "-q", pattern[1]], input=state, text=True, check=False).returncode == 0

    assert not living()
    generation = claim(locate(tmp_path / SWEEP), trials=8)
    try:
        assert living()
    finally:
        generation.end()
    assert not living()


@pytest.mark.parametrize(
    ("code", "again"), [(0, False), (2, False), (3, False), (4, True), (1, False), (137, True)],
    ids=["done", "refused", "stopped by hpo stop", "no machine answered", "an error", "killed"],
)  # fmt: skip
def test_what_ended_the_driver_decides_whether_the_job_starts_again(slurm: FakeSlurm, code: int, again: bool) -> None:
    (slurm.folder / "code").write_text(str(code))
    assert ended(slurm.start(script(slurm), JOB + 41))[0] == code
    assert slurm.calls("scontrol") == ([f"requeue {JOB + 41}"] if again else [])


def paused(slurm: FakeSlurm, **environment: str) -> tuple[int, str]:
    """A job that gets Slurm's signal while its sweep runs."""
    (slurm.folder / "slow").touch()
    process = slurm.start(script(slurm, nodes=2, retries=3), JOB + 51, environment)
    until(lambda: slurm.calls("hpo"))
    process.send_signal(signal.SIGTERM)  # to the batch shell alone, as `--signal=B:TERM` does
    return ended(process)


def test_slurms_signal_pauses_the_sweep_and_the_job_starts_again(slurm: FakeSlurm) -> None:
    code, output = paused(slurm)
    assert code == 3, output
    assert slurm.calls("scontrol") == [f"requeue {JOB + 51}"]
    assert not Path(f"/tmp/hpo-{JOB + 51}-0").exists()


def test_a_job_starts_again_at_most_so_many_times(slurm: FakeSlurm) -> None:
    code, output = paused(slurm, SLURM_RESTART_COUNT="3")
    assert code == 3
    assert slurm.calls("scontrol") == []
    assert "this job has started 4 times" in output


def test_a_cancelled_job_does_not_start_again(slurm: FakeSlurm) -> None:
    (slurm.folder / "state").write_text("COMPLETING\n")
    assert paused(slurm)[0] == 3
    assert slurm.calls("scontrol") == []


def test_a_head_that_does_not_start_says_why(slurm: FakeSlurm) -> None:
    (slurm.folder / "no_head").touch()
    code, output = ended(slurm.start(script(slurm), JOB + 61))
    assert code == 1
    assert "no head today" in output
    assert slurm.calls("hpo") == []
    assert slurm.calls("scontrol") == [f"requeue {JOB + 61}"], "a machine without a working head: try on another"


def test_a_folder_of_another_user_is_not_used(slurm: FakeSlurm, tmp_path: Path) -> None:
    planted = Path(f"/tmp/hpo-{JOB + 71}-0")
    planted.symlink_to(tmp_path)
    try:
        code, output = ended(slurm.start(script(slurm), JOB + 71))
    finally:
        planted.unlink(missing_ok=True)
    assert code == 1
    assert "is not ours" in output
    assert slurm.calls("ray") == []


@pytest.mark.slow
@pytest.mark.timeout(900)  # two Ray clusters of three nodes each, one after the other
def test_a_real_sweep_pauses_and_goes_on_in_the_next_start(slurm: FakeSlurm, tmp_path: Path) -> None:
    data, store = make_corpus(tmp_path / "data", train=64, dev=24), tmp_path / "store"
    options = "--base tiny --trials 4 --budget 4000 --scheduler none"
    words = ("quickstart", "--data", str(data), *options.split())
    here = {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "RAY_worker_niceness": "0"}
    asked = command(*words, store=str(store))
    programs = str(Path(sys.executable).parent)
    text = batch_script(job(nodes=2, cpus_per_node=1), asked, str(tmp_path), programs)
    number = JOB + 99
    process = slurm.start(text, number, here)
    until(lambda: list((store / "mine").glob("reports/*.parquet")), 240)
    process.send_signal(signal.SIGTERM)
    code, output = ended(process, 240)
    assert code == 3, output
    assert "2 of 2 machines are there" in output
    assert slurm.calls("scontrol") == [f"requeue {number}"]
    process = slurm.start(text, number, here | {"SLURM_RESTART_COUNT": "1"})
    code, output = ended(process, 500)
    assert code == 0, output
    done = subprocess.run(
        [sys.executable, "-m", "hpo", "status", "mine", "--store", str(store), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["phase"] == "done"
    assert not list(Path("/tmp").glob(f"hpo-{number}-*"))
