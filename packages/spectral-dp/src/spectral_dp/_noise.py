"""Gaussian noise keyed by the operating system's entropy.

PyTorch's generators are no place for secrets: that of the CPU takes in 32 bits of its seed, few enough
to try them all, and its state is part of a checkpoint. Here every call takes a key of 256 bits from
``os.urandom`` and makes its deviates of the ChaCha20 key stream, by Box and Muller's transform in double
precision,

    sqrt(-2 log u) cos(2 pi v)  and  sqrt(-2 log u) sin(2 pi v),    u, v uniform with 53 bits.

The key is dropped with the call: there is no state to save, to replay or to share between processes.
That nobody tells the stream from random bits is the cipher's promise, not a theorem. The largest
deviate is sqrt(2 log 2^54) = 8.7.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

# Small enough for the cache: fresh memory for a whole gradient costs more than the deviates in it.
PAIRS = 1 << 13


def entropy_normal(shape: Sequence[int]) -> Tensor:
    """Return independent standard normal deviates.

    Parameters
    ----------
    shape : sequence of int

    Returns
    -------
    Tensor
        In float64 on the CPU.
    """
    drawn = torch.zeros(tuple(shape), dtype=torch.float64)
    add_entropy_normal_(drawn, 1.0)
    return drawn


def add_entropy_normal_(total: Tensor, std: float) -> None:
    """Add independent normal deviates to a tensor, in double precision, and round once.

    Parameters
    ----------
    total : Tensor
        Floating point, contiguous, on any device; changed in place.
    std : float
        Standard deviation of what is added.
    """
    pairs = min(PAIRS, (total.numel() + 1) // 2)
    deviates = _deviates(pairs)
    for part in total.view(-1).split(2 * pairs) if pairs else ():
        part.copy_(next(deviates)[: len(part)].mul_(std).add_(part.cpu()))


def _deviates(pairs: int) -> Iterator[Tensor]:
    """Yield blocks of twice as many deviates, all in the same memory."""
    stream = Cipher(ChaCha20(os.urandom(32), nonce=bytes(16)), mode=None).encryptor()
    zeros, bits = bytes(16 * pairs), np.empty((2, pairs), dtype=np.uint64)
    uniform, deviates = torch.empty(2, 2, pairs, dtype=torch.float64)
    while True:
        stream.update_into(zeros, bits.data.cast("B"))
        np.right_shift(bits, np.uint64(11), out=bits)
        # Half a step from zero and one: the logarithm is finite.
        uniform.copy_(torch.from_numpy(bits.view(np.int64))).add_(0.5).mul_(2.0**-53)
        radius, angle = uniform[0].log_().mul_(-2).sqrt_(), uniform[1].mul_(2 * math.pi)
        torch.cos(angle, out=deviates[0]).mul_(radius)
        torch.sin(angle, out=deviates[1]).mul_(radius)
        yield deviates.view(-1)
