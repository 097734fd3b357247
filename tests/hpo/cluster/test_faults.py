"""Faults: whose fault an error is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import ray
from safetensors import SafetensorError
from safetensors.torch import save_file

from hpo.cluster.faults import PREEMPTED, cause_of, cause_of_death, is_disk_error, is_fatal, is_out_of_memory
from minbert.fields import ConfigError


def raised_from(cause: BaseException) -> ValueError:
    """An error that names another one as its cause."""
    error = ValueError("the data cannot be read")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConfigError("`rank` must be at least 1"), "refused"),
        (ValueError("a shape"), "raised"),
        (RuntimeError("The size of tensor a (3) must match"), "raised"),
        (SystemExit(3), "raised"),
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "place"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "place"),
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040)"), "place"),
        (RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."), "place"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "data/sst.csv"), "place"),
        (OSError(errno.ESTALE, "Stale file handle"), "place"),
        (ConnectionResetError(), "place"),
        (TimeoutError(), "place"),
        (ModuleNotFoundError("No module named 'tokenizers'"), "place"),
        (SafetensorError("Error while deserializing: I/O error: Input/output error (os error 5)"), "place"),
        (ray.exceptions.RpcError("GCS is unavailable"), "place"),
        (ray.exceptions.GetTimeoutError(), "place"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (raised_from(OSError(errno.EDQUOT, "Disk quota exceeded")), "disk"),
        (raised_from(FileNotFoundError(errno.ENOENT, "x")), "place"),
    ],
    ids=repr,
)
def test_an_error_has_one_cause(error: BaseException, cause: str) -> None:
    assert cause_of(error) == cause


def test_an_error_after_a_handled_one_is_not_the_place_s() -> None:
    """A cache that is not there yet is no fault of the machine."""
    error = ValueError("a shape")
    error.__context__ = FileNotFoundError(errno.ENOENT, "x")
    assert cause_of(error) == "raised"


def test_a_death_is_the_place_s_unless_its_node_was_preempted() -> None:
    assert cause_of_death("The actor died unexpectedly before finishing this task.") == "place"
    assert cause_of_death(f"The actor died unexpectedly ({PREEMPTED})") == "driver"


def disk_errors() -> list[BaseException]:
    """Errors of a full disk: plain, as the cause of another error, from a device, from a library in Rust."""
    plain = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("the checkpoint could not be written")
    wrapped.__cause__ = plain
    errors: list[BaseException] = [plain, wrapped]
    try:
        with Path("/dev/full").open("wb") as device:
            device.write(b"x" * 2**16)
    except OSError as error:
        errors.append(error)
    errors.append(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    return errors


def test_contract_the_message_of_safetensors_holds_the_error_number(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError, match=rf"\(os error {errno.ENOENT}\)"):
        save_file({}, tmp_path / "absent" / "file")


@pytest.mark.parametrize("error", disk_errors(), ids=lambda error: type(error).__name__)
def test_a_full_disk_is_not_the_trial_s_fault(error: BaseException) -> None:
    assert is_disk_error(error)


@pytest.mark.parametrize("error", [ValueError("28"), FileNotFoundError(errno.ENOENT, "x"), OSError("os error 28")])
def test_an_error_without_a_disk_s_number_is_the_trial_s_fault(error: BaseException) -> None:
    assert not is_disk_error(error)


def test_an_error_raised_in_place_of_a_disks_is_not_the_disks() -> None:
    full = OSError(errno.ENOSPC, "full")
    replaced, following = KeyError("a bug"), KeyError("a bug")
    replaced.__context__, replaced.__suppress_context__ = full, True
    following.__context__ = full
    assert not is_disk_error(replaced), "raised from None"
    assert is_disk_error(following)


@pytest.mark.parametrize(
    ("error", "memory", "fatal"),
    [
        (MemoryError(), True, True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4096 bytes"), True, True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("The size of tensor a (3) must match"), False, False),
        (ValueError("out of memory lane"), False, False),
    ],
)
def test_errors_are_told_apart(error: BaseException, memory: bool, fatal: bool) -> None:
    assert (is_out_of_memory(error), is_fatal(error)) == (memory, fatal)
