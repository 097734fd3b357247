"""Faults by their errors: memory ran out, the disk is full or gone, a device is in an error state."""

from __future__ import annotations

import errno
import re

OUT_OF_MEMORY = "out of memory"
"""Reason of a trial that failed because its worker ran out of memory."""

MEMORY_ERRORS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
"""Parts of the messages of torch's and the system's errors when memory runs out."""
DEVICE_ERRORS = ("cuda error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")
"""Parts of the messages of torch's errors when a GPU is in an error state."""
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
"""Error numbers of a disk that is full or gone."""
RUST_ERRORS = frozenset({"SafetensorError", "Exception"})
"""Names of the classes of errors that libraries written in Rust raise."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's MemoryError, or a RuntimeError or OSError with such a message."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(part in str(error).lower() for part in MEMORY_ERRORS)
    )


def is_disk_error(error: BaseException | None) -> bool:
    """Whether a trial failed because of the disk: then every trial would fail, and none is at fault.

    The error's causes are looked at too. Libraries written in Rust (safetensors, tokenizers) raise errors without
    `errno`: the number is in their message.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be raised from itself
        seen.add(id(error))
        number = getattr(error, "errno", None)
        if type(error).__name__ in RUST_ERRORS and (text := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(text[1])
        if number in DISK_ERRORS:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def is_fatal(error: BaseException) -> bool:
    """Whether the process may be damaged: memory ran out, or a device is in an error state."""
    return is_out_of_memory(error) or (
        isinstance(error, RuntimeError) and any(part in str(error).lower() for part in DEVICE_ERRORS)
    )
