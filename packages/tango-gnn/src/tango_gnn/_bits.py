"""The width of quantised values: the smallest that keeps the relative error of a layer's input low.

For a tensor x and its quantised approximation x^ the relative error is |x - x^|_1 / |x|_1. The paper measures
it on an early layer in the first epoch and takes the smallest width at which it is below 0.3. Here every
layer chooses for itself, on the features of its first step of training. Values are stored as int8 whatever
the width: on a CPU fewer bits cost accuracy and buy nothing, so that "auto" tells how far a width could go.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from tango_gnn._policy import Policy
from tango_gnn._quantized import relative_error

NARROWEST, WIDEST = 4, 8


def choose_bits(x: torch.Tensor, policy: Policy) -> int:
    """Choose the smallest width from 4 to 8 at which a tensor's relative error is below the policy's bound.

    Parameters
    ----------
    x : Tensor, float32
    policy : Policy
        Whose `max_error` and `rounding` to use; its `bits` do not matter.

    Returns
    -------
    int
        8 where no width is good enough.
    """
    for bits in range(NARROWEST, WIDEST):
        if relative_error(x, replace(policy, bits=bits)) < policy.max_error:
            return bits
    return WIDEST
