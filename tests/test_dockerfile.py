"""The Dockerfile: its instructions, its sources, its versions. Building the image needs Docker and is not tested."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hpo.submission.kuberay import USER

ROOT = Path(__file__).resolve().parent.parent
NAMES = """
ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR
"""
KEYWORDS = frozenset(NAMES.split())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> Iterator[tuple[str, str]]:
    """Keyword and value of each instruction; continued lines are joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        if instruction.strip():
            keyword, _, value = instruction.partition(" ")
            yield keyword, value.strip()


INSTRUCTIONS = list(instructions())


def values(keyword: str) -> list[str]:
    return [value for name, value in INSTRUCTIONS if name == keyword]


def name(requirement: str) -> str:
    """The name of a requirement, as package indexes normalise it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


CONSTRAINTS = {
    name(line): line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def test_it_consists_of_known_instructions_and_begins_with_a_base() -> None:
    assert INSTRUCTIONS[0][0] == "FROM"
    assert {keyword for keyword, _ in INSTRUCTIONS} <= KEYWORDS
    assert all(value for _, value in INSTRUCTIONS)
    python = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", values("FROM")[0])
    assert python is not None
    assert python[1] == PROJECT["project"]["requires-python"].removeprefix(">="), "the constraints were tested on it"


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a file of the root out: the last pattern that fits decides."""
    answer = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch(path, line.removeprefix("!")):
            answer = not line.startswith("!")
    return answer


def test_every_copied_source_exists_and_is_in_the_context() -> None:
    sources = [source for value in values("COPY") for source in value.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "hpo", "minbert", "results", "search_spaces"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert ignored("runs")
    assert ignored(".venv")
    assert PROJECT["project"]["readme"] in sources, "building the package reads it"


@pytest.mark.parametrize("command", values("RUN"))
def test_bash_accepts_every_command(command: str) -> None:
    assert subprocess.run(["sh", "-n", "-c", command], capture_output=True, check=False).returncode == 0


def test_every_installation_uses_the_constraints() -> None:
    steps = [shlex.split(step) for command in values("RUN") for step in command.split("&&") if "pip install" in step]
    assert len(steps) == 3
    for step in steps:
        one_pinned = "--no-deps" in step and re.search(r"==[\d.]+$", step[-1])
        assert one_pinned or "constraints.txt" in step, step
    makefile = (ROOT / "Makefile").read_text()
    (encoder,) = [step[-1] for step in steps if "constraints.txt" not in step]
    assert encoder in makefile, "the encoder has one version"


def test_the_requirements_are_those_of_the_project_and_all_have_a_version(tmp_path: Path) -> None:
    (line,) = [command for command in values("RUN") if "requirements.txt" in command]
    code = shlex.split(line)[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    requirements = done.stdout.splitlines()
    assert requirements == [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["cluster"],
    ]
    missing = {name(requirement) for requirement in requirements} - set(CONSTRAINTS)
    assert not missing, f"constraints.txt lacks {missing}"


def test_what_ray_needs_for_its_dashboard_has_a_version() -> None:
    needed = [text for text in importlib.metadata.requires("ray") or [] if 'extra == "default"' in text]
    assert len(needed) > 5
    missing = {name(text) for text in needed} - set(CONSTRAINTS)
    assert not missing, f"constraints.txt lacks {missing}"


def test_it_runs_as_the_user_of_the_manifests() -> None:
    assert values("USER") == ["hpo"]
    assert any(f"useradd --uid {USER} " in command for command in values("RUN"))
    assert any("wget" in command for command in values("RUN")), "for KubeRay's probes"


@pytest.mark.parametrize("package", ["hpo", "minbert", "results", "search_spaces"])
def test_every_file_of_a_package_is_installed(package: str) -> None:
    """An image holds no checkout, so what no pattern of `package-data` names would be missing there."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"].get(package, [])
    others = [path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    left_out = [str(path) for path in others if not any(path.match(pattern) for pattern in patterns)]
    assert not left_out
