"""Random numbers that are functions of (seed, stream, position), never of what was drawn before.

So an interrupted trial continues exactly: nothing random has to be saved, and two streams never disturb each other.
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
    """A numpy generator that stands at the beginning of a stream's position."""
    return np.random.Generator(np.random.PCG64(derive(seed, stream, *position)))


def torch_generator(device: torch.device, seed: int, stream: str, *position: int | str) -> torch.Generator:
    """A torch generator on `device` that stands at the beginning of a stream's position."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, stream, *position))
    return generator
