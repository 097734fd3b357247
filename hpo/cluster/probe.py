"""What a machine must be able to do for a sweep, and what it is: looked at on the machine itself.

A launch on a running cluster and `hpo doctor` both run `look` on every node (`hpo.cluster.survey`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from hpo.cluster.devices import Gpu, gpus, mps
from hpo.cluster.resources import local_cpus
from hpo.cluster.versions import code_sha256, versions


@dataclass(frozen=True)
class Facts:
    """What a machine found when it looked."""

    lacks: list[str]
    """What it lacks, each as a part of a sentence."""
    data: dict[str, int]
    """Files of the data folder -> their bytes."""
    base: str
    """SHA-256 of the base weights; empty where they cannot be read."""
    cache: str
    """Why the caches cannot be used: their folder, or their limit; empty: they can."""
    versions: dict[str, str]
    """Package -> version."""
    code: str
    """SHA-256 of this project's code."""
    cpus: int
    """Cores that a process may use."""
    gpus: list[Gpu] | None
    """GPUs that the driver lists; None: nothing there can list them."""
    gpu_error: str
    """Why the driver lists none; empty: it does."""
    cuda: str
    """What torch is built for, `CUDA 13.0` or `ROCm 7.0`; empty: CPUs alone."""
    mps: bool
    """Whether NVIDIA's Multi-Process Service runs."""
    token: bool
    """Whether Ray asks for a token there."""
    store_free: int | None
    """Free bytes of the store's file system; None where the store cannot be reached."""
    temporary_free: int | None
    """Free bytes of the file system of temporary files."""
    time: float
    """The machine's clock when it had looked, in seconds since 1970."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Facts from the answer of `look`. Raises TypeError for the answer of another version of this project."""
        devices = answer["gpus"] and [Gpu(**gpu) for gpu in answer["gpus"]]
        return cls(**{**answer, "gpus": devices})


def look(store: str, secret: str, node: str, data: str | None, base: str | None) -> dict[str, Any]:
    """Look at this machine; returns `Facts` as plain values, which need no class of ours to travel.

    `store` is the path or URI of the store, whose file `token_name(secret)` must contain `secret`. The machine's reply,
    a file beside it that `node` names, shows that both see one folder.
    """
    files, unreadable = _data(data)
    weights, missing = _base(base)
    listed, gpu_error = gpus()
    facts = Facts(
        lacks=[lack for lack in (_store(store, secret, node), unreadable, missing) if lack],
        data=files,
        base=weights,
        cache=_cache(),
        versions=versions(),
        code=code_sha256(),
        cpus=local_cpus(),
        gpus=listed,
        gpu_error=gpu_error,
        cuda=_built_for(),
        mps=mps(),
        token=os.environ.get("RAY_AUTH_MODE") == "token",
        store_free=None if "://" in store else _free(Path(store)),
        temporary_free=_free(Path(tempfile.gettempdir())),
        time=time.time(),
    )
    return asdict(facts)


def token_name(secret: str) -> str:
    """Name of the file that the driver writes into the store, a temporary one."""
    return f".reach-{secret}.tmp"


def reply_name(secret: str, node: str) -> str:
    """Name of the file that a node writes beside it."""
    return f".reach-{secret}-{node}.tmp"


def _store(store: str, secret: str, node: str) -> str:
    """What hinders this machine from using the store; empty: nothing. Writes the reply."""
    from results.places import locate

    try:
        folder = locate(store)
        if folder.read(token_name(secret)) != secret.encode():
            return f"reads something else in {store}"
        folder.write(reply_name(secret, node), secret.encode())
    except OSError as error:
        return f"cannot use the store {store}: {error.strerror}"
    return ""


def _data(folder: str | None) -> tuple[dict[str, int], str]:
    """Files of the data folder with their bytes, and what hinders this machine from reading them."""
    if folder is None:
        return {}, ""
    try:
        return {file.name: file.stat().st_size for file in os.scandir(folder) if file.is_file()}, ""
    except (FileNotFoundError, NotADirectoryError):
        return {}, f"has no folder {folder}"
    except OSError as error:
        return {}, f"cannot read {folder}: {error.strerror}"


def _base(name: str | None) -> tuple[str, str]:
    """SHA-256 of the base weights, and why they cannot be read."""
    from minbert.encoder.base import BaseEncoderError, find_base

    try:
        return find_base(name).sha256, ""
    except BaseEncoderError as error:
        return "", f"lacks the base encoder: {error}"


def _cache() -> str:
    """Why tokenised data, features and stages cannot be kept; empty: they can."""
    from minbert.caches import cache_folder, largest
    from minbert.disk import check_writable

    try:
        check_writable(cache_folder(), "MINBERT_CACHE")
        largest(cache_folder())
    except ValueError as error:
        return str(error)
    return ""


def _built_for() -> str:
    """What torch is built for: `CUDA 13.0`, `ROCm 7.0`; empty: CPUs alone."""
    import torch

    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else ""


def _free(folder: Path) -> int | None:
    """Free bytes of a folder's file system; None where the folder cannot be reached."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
