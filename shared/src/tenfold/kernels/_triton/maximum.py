"""Largest magnitude of what a kernel computes, left on the device for the next operator's scale.

Without their sign, float32 numbers order as the integers that their bits spell, with infinity above
every number and NaN above infinity: an integer maximum carries both.
"""

# The language of @triton.jit is not Python's: mypy checks the callers only.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch
import triton
import triton.language as tl


def new_maximum(device: torch.device) -> torch.Tensor:
    """Zero, as the int32 bits that `record_maximum` raises; ``.view(torch.float32)`` reads it."""
    return torch.zeros((), dtype=torch.int32, device=device)


@triton.jit
def record_maximum(maximum, values):
    """Raise `maximum` to the largest magnitude in a tile of float32 `values`."""
    bits = tl.max(values.to(tl.int32, bitcast=True) & 0x7FFFFFFF)
    # Most tiles raise nothing: an ordinary load spares them the atomic.
    if bits > tl.load(maximum):
        tl.atomic_max(maximum, bits)
