"""Activations kept in two bits for the backward pass, in the manner of EXACT (Liu et al., ICLR 2022).

What autograd saves is quantised as it is saved and dequantised as it is used; arithmetic stays in float32.
Every row h of a saved tensor has its own offset and range,

    code = floor((h - min h) / range * (2^b - 1) + u),   u ~ U[0, 1)

so that the stored activations are unbiased. That saves memory and costs time, where quantised arithmetic
saves both: the baseline of the memory comparison. EXACT's random projection, which shortens the rows
first, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from tenfold import SettingError

BITS = (1, 2, 4, 8)
ROWS_AT_A_TIME = 4096


class compress_activations(saved_tensors_hooks):  # noqa: N801
    """Compress the float32 matrices that autograd saves inside the context.

    Parameters
    ----------
    bits : {1, 2, 4, 8}
        For each value.
    least : int
        Tensors of fewer values are kept as they are, and so are parameters.
    generator : torch.Generator, optional
        Of the stochastic rounding.

    Raises
    ------
    SettingError
        The number of bits is another.

    Examples
    --------
    >>> weight = torch.ones(8, 4, requires_grad=True)
    >>> with compress_activations(bits=2):
    ...     loss = (torch.eye(8) @ weight).sum()
    >>> loss.backward()
    """

    def __init__(self, bits: int = 2, least: int = 4096, generator: torch.Generator | None = None) -> None:
        if bits not in BITS:
            raise SettingError(f"{bits} bits", f"one of {BITS}", "Choose one of them.")

        def pack(tensor: torch.Tensor) -> Any:
            kept = tensor.dtype is not torch.float32 or tensor.dim() < 2 or tensor.numel() < least
            return tensor if kept or tensor.is_leaf else compress(tensor.detach(), bits, generator)

        def unpack(saved: Any) -> torch.Tensor:
            return saved.decompress() if isinstance(saved, Compressed) else saved

        super().__init__(pack, unpack)


@dataclass(frozen=True)
class Compressed:
    """A matrix of codes, some to a byte, with the offset and the step of each row."""

    codes: torch.Tensor
    offset: torch.Tensor
    step: torch.Tensor
    bits: int
    shape: torch.Size

    def decompress(self) -> torch.Tensor:
        """Return the float32 tensor that is near the one that was compressed."""
        rows, columns = len(self.codes), self.shape[1:].numel()
        out = self.offset.new_empty((rows, columns))
        shifts = torch.arange(0, 8, self.bits, dtype=torch.uint8)
        for start in range(0, rows, ROWS_AT_A_TIME):
            some = slice(start, start + ROWS_AT_A_TIME)
            codes = (self.codes[some, :, None] >> shifts) & (2**self.bits - 1)
            codes = codes.flatten(1)[:, :columns]
            torch.addcmul(self.offset[some], codes.float(), self.step[some], out=out[some])
        return out.view(self.shape)


def compress(tensor: torch.Tensor, bits: int, generator: torch.Generator | None = None) -> Compressed:
    """Quantise every row of a float32 tensor to codes of `bits` bits.

    Parameters
    ----------
    tensor : Tensor, shape (rows, ...)
    bits : {1, 2, 4, 8}
    generator : torch.Generator, optional
    """
    matrix = tensor.reshape(len(tensor), -1)
    rows, columns = matrix.shape
    a_byte = 8 // bits
    codes = torch.empty((rows, -(-columns // a_byte)), dtype=torch.uint8)
    offset, step = matrix.new_empty((rows, 1)), matrix.new_empty((rows, 1))
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    # A few rows at a time, so that what is temporary is small beside what is saved.
    for start in range(0, rows, ROWS_AT_A_TIME):
        some = slice(start, start + ROWS_AT_A_TIME)
        part = matrix[some]
        low, high = part.aminmax(dim=1, keepdim=True)
        offset[some], step[some] = low, (high - low) / (2**bits - 1)
        scaled = ((part - low) / step[some]).nan_to_num_(0)
        scaled += torch.rand(scaled.shape, generator=generator)
        values = scaled.floor_().clamp_(0, 2**bits - 1).to(torch.uint8)
        padded = torch.nn.functional.pad(values, (0, codes.shape[1] * a_byte - columns))
        codes[some] = (padded.unflatten(1, (-1, a_byte)) << shifts).sum(2, dtype=torch.uint8)
    return Compressed(codes, offset, step, bits, tensor.shape)
