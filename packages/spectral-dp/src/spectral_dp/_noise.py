"""Gaussian noise straight from the operating system's entropy.

PyTorch's generators are no place for secrets: that of the CPU takes in 32 bits of its seed, few enough
to try them all, and its state is part of a checkpoint. So every normal deviate here is made of fresh
bytes of ``os.urandom``, by Box and Muller's transform in double precision,

    sqrt(-2 log u) cos(2 pi v)  and  sqrt(-2 log u) sin(2 pi v),    u, v uniform with 53 bits.

There is no state to save or to replay. The largest deviate is sqrt(2 log 2^54) = 8.7.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


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
    count = math.prod(shape)
    pairs = (count + 1) // 2
    bits = np.frombuffer(os.urandom(16 * pairs), dtype=np.uint64) >> np.uint64(11)
    # Half a step from zero and one: the logarithm is finite.
    uniform = torch.from_numpy((bits.astype(np.float64) + 0.5) * 2.0**-53)
    radius = uniform[:pairs].log_().mul_(-2).sqrt_()
    angle = uniform[pairs:].mul_(2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count].view(tuple(shape))
