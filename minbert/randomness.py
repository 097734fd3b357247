"""Random numbers that are functions of (seed, stream, position), not of earlier draws.

An interrupted trial therefore continues exactly without a saved random state, and streams do not affect each other.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(seed: int, stream: str, *position: int | str) -> int:
    """A 63-bit seed for one position of one stream."""
    text = "/".join(map(str, (seed, stream, *position)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, stream: str, *position: int | str) -> np.random.Generator:
    """A new numpy generator for one position of one stream."""
    return np.random.Generator(np.random.PCG64(derive(seed, stream, *position)))


def torch_generator(device: torch.device, seed: int, stream: str, *position: int | str) -> torch.Generator:
    """A new torch generator on `device` for one position of one stream."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, stream, *position))
    return generator
