"""Faults: whose fault an error is, decided here once.

    refused   the configuration's: the core refuses it
    raised    the configuration's, most likely: another error of Python
    memory    the configuration's, most likely: memory ran out
    place     the place's: its process, node or device failed, or a file, a package or an answer was missing there
    disk      nobody's: the disk of the store is full
    driver    nobody's: the driver stopped or died, or the node was told to go

`hpo.search.endings` says what each means for a trial.
"""

from __future__ import annotations

import errno
import re
from typing import Literal

Cause = Literal["refused", "raised", "memory", "place", "disk", "driver"]

OUT_OF_MEMORY = "out of memory"
"""Reason of an attempt whose worker ran out of memory."""

MEMORY_ERRORS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
"""Parts of the messages of torch's and the system's errors when memory runs out."""
DEVICE_ERRORS = (
    "cuda error", "cuda driver", "cuda-capable device", "no nvidia driver", "nvidia driver on your system",
    "device-side assert", "cublas_status", "cudnn_status", "cusolver_status", "nccl error", "uncorrectable ecc",
)  # fmt: skip
"""Parts of the messages of torch's errors when a GPU is in an error state, or its driver does not fit."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a disk that is full."""
DISK_ERRORS = FULL | {errno.EROFS, errno.EIO, errno.ESTALE}
"""Error numbers of a disk that is full or gone."""
RUST_ERRORS = frozenset({"SafetensorError", "Exception"})
"""Names of the classes of errors that libraries written in Rust raise."""


def cause_of(error: BaseException) -> Cause:
    """Whose fault the error of an attempt is. An error raised from another one has the cause of that one if it is the
    place's."""
    from minbert.fields import ConfigError  # commands look for shadowed packages before they import one

    if is_out_of_memory(error):
        return "memory"
    if _number_in(error, FULL):
        return "disk"
    if isinstance(error, ConfigError):
        return "refused"
    first: BaseException | None = error
    seen: set[int] = set()
    while first is not None and id(first) not in seen:
        seen.add(id(first))
        if _is_of_the_place(first):
            return "place"
        first = first.__cause__
    return "raised"


def cause_of_death(text: str) -> Cause:
    """Why a process died, from the whole text that Ray says about it: for its place, or because the driver of the
    cluster took its node back."""
    return "driver" if PREEMPTED in text else "place"


PREEMPTED = "its node was preempted"
"""Part of the text about a process that died with a preempted node; `hpo.cluster.connection` adds it."""


def reason_of(error: BaseException) -> str:
    """The error in one line."""
    return OUT_OF_MEMORY if is_out_of_memory(error) else f"{type(error).__name__}: {error}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's MemoryError, or a RuntimeError or OSError with such a message."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(part in str(error).lower() for part in MEMORY_ERRORS)
    )


def is_disk_error(error: BaseException | None) -> bool:
    """Whether an error of the driver comes from the disk: then nothing can be recorded, and no trial is at fault."""
    return _number_in(error, DISK_ERRORS)


def is_fatal(error: BaseException) -> bool:
    """Whether the process may be damaged: memory ran out, or a device is in an error state."""
    return is_out_of_memory(error) or _is_device_error(error)


def _is_of_the_place(error: BaseException) -> bool:
    """Whether a machine, and not what ran on it, is at fault: its device, a file, a package, or Ray itself."""
    kinds = isinstance(error, OSError | ImportError)
    return (
        kinds or _number_of(error) is not None or _is_device_error(error) or type(error).__module__.startswith("ray.")
    )


def _is_device_error(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(part in str(error).lower() for part in DEVICE_ERRORS)


def _number_in(error: BaseException | None, numbers: frozenset[int]) -> bool:
    """Whether an error, or one that it follows from, has one of the system's error numbers."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be raised from itself
        seen.add(id(error))
        if _number_of(error) in numbers:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _number_of(error: BaseException) -> int | None:
    """The system's error number. Errors of libraries written in Rust (safetensors, tokenizers) have it in their
    message."""
    if type(error).__name__ in RUST_ERRORS and (text := re.search(r"\(os error (\d+)\)", str(error))):
        return int(text[1])
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) else None
