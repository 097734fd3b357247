"""The README's commands, run on a small corpus with the tiny encoder and few, short trials.

`shorten` lists all changes to the commands. A new command in the README is run without a change here. The first command
of each program runs as a user starts it, the others as forks (`tests.forks`).
"""

from __future__ import annotations

import compileall
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.cluster.connection import OWN_SETTINGS
from minbert.data.files import SAMPLE
from tests.forks import forks
from tests.minbert.conftest import make_corpus

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

SMALL = ["--base", "tiny", "--trials", "4", "--budget", "192", "--workers", "1"]
"""Options that replace those of the README, for a sweep of seconds."""


def commands() -> list[list[str]]:
    """Every `hpo ...` and `python -m minbert ...` line of the README's shell blocks, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words and (words[0] == "hpo" or words[:3] == ["python", "-m", "minbert"])]


def without(words: list[str], *names: str, values: int = 1) -> list[str]:
    """A command without these options and their values."""
    kept, skip = [], 0
    for word in words:
        if skip:
            skip -= 1
        elif word in names:
            skip = values
        else:
            kept.append(word)
    return kept


def shorten(words: list[str], data: Path) -> list[str]:
    """The same command with less work."""
    words = [word.replace("../shared/data/cs224n", str(data)) for word in words]
    words = without(words, "--watch", "-f", values=0)
    if words[:2] == ["hpo", "run"] and "--config" not in words:  # the file holds the shortened options
        words = without(words, "--trials", "--budget") + SMALL
        if "--data" not in words and "--set" not in words:  # one sweep of the sample corpus, which has more rows
            words += ["--data", str(data)]
        if words[2] in ("full", "adapters"):  # they vary up to three layers, but the tiny encoder has two
            words += ["--set", "adapter/layers/kind=all"]
    if words[:2] == ["hpo", "extend"]:
        words = [*without(words, "--trials"), "--trials", "5"]
    if words[:4] == ["python", "-m", "minbert", "train"]:
        words = [*without(words, "--budget"), "--budget", "64", "--base", "tiny", "--threads", "1"]
    return words


def how_tos() -> tuple[str, str]:
    """The README's own search space, and its own technique."""
    _, space, _, technique = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return str(space), str(technique)


def packages_with(technique: str, folder: Path) -> Path:
    """A copy of the four packages in which the README's technique was added as the README says."""
    for package in ("hpo", "minbert", "results", "search_spaces"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "minbert" / "techniques" / "regularizers.py"
    code, name = file.read_text(), str(re.findall(r"^class (\w+)", technique, flags=re.MULTILINE)[0])
    before, table, after = code.partition("\nREGULARIZERS")
    row, closing, rest = after.partition(")}")
    assert table and closing, "the table at the end of the family's file"
    file.write_text(f"{before}\n{technique}\n{table}{row}, {name}{closing}{rest}")
    compileall.compile_dir(folder, quiet=2)  # otherwise each of many processes may compile all of it
    return folder


CLUSTER = """
import os, sys
import ray
from hpo.cluster.connection import own_cluster
with own_cluster(2):
    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
    sys.stdin.read()
"""
"""A process with a cluster that lives until its standard input ends."""


@contextlib.contextmanager
def one_cluster(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment in which all commands use one cluster of this machine: nine would take a minute to start."""
    command = [sys.executable, "-c", CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:  # its end closes standard input
        assert process.stdout is not None
        address, token = process.stdout.readline().split()
        settings = {name: value for name, (value, _) in OWN_SETTINGS.items()}
        yield {**environment, **settings, "RAY_ADDRESS": address, "RAY_AUTH_TOKEN_PATH": token}


@pytest.mark.timeout(900)  # some nine short sweeps
def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    data = make_corpus(tmp_path / "data", train=64, dev=24)
    shutil.copy(SAMPLE / "nli-train.tsv", data)  # beside the real data there is one
    space, technique = how_tos()
    (tmp_path / "my_space.py").write_text(space)
    environment = {
        **os.environ,
        "PYTHONPATH": str(packages_with(technique, tmp_path / "packages")),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MINBERT_CACHE": str(tmp_path / "cache"),
    }
    tour = commands()
    assert len(tour) >= 15, "the README must show at least 15 commands"
    with one_cluster(environment) as shared, forks(shared) as forked:
        programs: set[str] = set()
        for words in (shorten(words, data) for words in tour):
            check(words, forked(words, tmp_path) if words[0] in programs else started(words, tmp_path, shared))
            programs.add(words[0])
    assert (tmp_path / "trained" / "confidence").is_dir(), "the README's own technique has trained"
    assert not (tmp_path / "runs" / "full-1").exists(), "hpo rm"
    assert (tmp_path / "augmented" / "ids-sst-train-augmented.csv").is_file()
    written = {path.name for path in (tmp_path / "predictions").iterdir()}
    assert {f"{task}-{split}-output.csv" for task in ("sst", "para", "sts") for split in ("dev", "test")} <= written


def started(words: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a user starts it."""
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def check(words: list[str], done: subprocess.CompletedProcess[str]) -> None:
    """Check how a command has ended."""
    output = f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    if words[:2] == ["hpo", "stop"]:  # the shortened sweep has ended, which the command must say
        assert done.returncode == 2, output
        assert "is not running" in done.stderr, output
    elif words[:2] == ["hpo", "importance"]:  # the shortened sweep has few trials, which the command must say
        assert done.returncode == 2, output
        assert "needs 20 trials" in done.stderr, output
    else:
        assert done.returncode == 0, output


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"sweep", "test", "help"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), targets
