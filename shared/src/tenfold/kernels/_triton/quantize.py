"""Largest magnitude of a tensor, its rounding to int8, and bits of where it is positive."""

# The language of @triton.jit is not Python's: mypy checks the callers only.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch
import triton
import triton.language as tl

from tenfold.kernels._triton.maximum import new_maximum, record_maximum

_BLOCK = 2048


def absmax(x: torch.Tensor, row_scale: torch.Tensor | None, positive: torch.Tensor | None) -> torch.Tensor:
    """Largest magnitude of ``x[i, j] * row_scale[i]`` where ``positive[i, j] > 0``."""
    maximum = new_maximum(x.device)
    if x.numel():
        _absmax[(triton.cdiv(x.numel(), _BLOCK),)](
            x.contiguous(),
            None if row_scale is None else row_scale.contiguous(),
            None if positive is None else _mask(positive),
            maximum,
            x.numel(),
            _columns(x),
            BLOCK=_BLOCK,
        )
    return maximum.view(torch.float32)


def quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    levels: int,
    keys: tuple[int, int] | None,
    row_scale: torch.Tensor | None,
    positive: torch.Tensor | None,
) -> torch.Tensor:
    """Round ``x[i, j] * row_scale[i] / scale``; at random with the two 32-bit `keys` of a seed."""
    quantized = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    if x.numel():
        first_key, second_key = (0, 0) if keys is None else (key - (key >> 31 << 32) for key in keys)
        _quantize[(triton.cdiv(x.numel(), _BLOCK),)](
            x.contiguous(),
            scale,
            None if row_scale is None else row_scale.contiguous(),
            None if positive is None else _mask(positive),
            quantized,
            x.numel(),
            _columns(x),
            levels,
            first_key,
            second_key,
            STOCHASTIC=keys is not None,
            BLOCK=_BLOCK,
            # The bits of the result are those of the other implementations.
            enable_fp_fusion=False,
        )
    return quantized


def positive_bits(x: torch.Tensor) -> torch.Tensor:
    """Bit j of byte i is whether element ``8 * i + j`` is positive."""
    bits = torch.empty((x.numel() + 7) // 8, dtype=torch.uint8, device=x.device)
    if x.numel():
        _positive_bits[(triton.cdiv(x.numel(), _BLOCK),)](x.contiguous(), bits, x.numel(), BLOCK=_BLOCK)
    return bits


def _mask(positive: torch.Tensor) -> torch.Tensor:
    # As a signed integer of one bit, True is negative.
    return (positive.view(torch.int8) if positive.dtype is torch.bool else positive).contiguous()


def _columns(x: torch.Tensor) -> int:
    return x.numel() // x.shape[0] if x.dim() else 1


@triton.jit
def _absmax(x, row_scale, positive, maximum, size, columns, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < size, other=0.0)
    if row_scale is not None:
        values *= tl.load(row_scale + at // columns, mask=at < size, other=0.0)
    if positive is not None:
        values = tl.where(_kept(positive, at, size), values, 0.0)
    record_maximum(maximum, values)


@triton.jit(do_not_specialize=["levels", "first_key", "second_key"])
def _quantize(
    x, scale, row_scale, positive, quantized, size, columns, levels, first_key, second_key,
    STOCHASTIC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inverse = tl.div_rn(1.0, tl.load(scale))
    inverse = tl.where(tl.abs(inverse) == float("inf"), 0.0, inverse)
    values = tl.load(x + at, mask=at < size, other=0.0)
    if row_scale is None:
        values *= inverse
    else:
        values *= tl.load(row_scale + at // columns, mask=at < size, other=0.0) * inverse
    if positive is not None:
        values = tl.where(_kept(positive, at, size), values, 0.0)
    values = tl.where(values == values, values, 0.0)
    bound = levels.to(tl.float32)
    values = tl.minimum(tl.maximum(values, -bound), bound)
    if STOCHASTIC:
        below = tl.floor(values)
        uniform = (_hash(at, first_key, second_key) >> 8).to(tl.float32) * 5.9604644775390625e-08
        values = below + tl.where(uniform < values - below, 1.0, 0.0)
    else:
        # Added to 1.5 * 2 ** 23, a number is rounded to an integer, halves to even.
        values = (values + 12582912.0) - 12582912.0
    tl.store(quantized + at, values.to(tl.int8), mask=at < size)


@triton.jit
def _positive_bits(x, bits, size, BLOCK: tl.constexpr):
    byte = tl.program_id(0).to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    bit = tl.arange(0, 8)
    at = byte[:, None] * 8 + bit[None, :]
    positive = (tl.load(x + at, mask=at < size, other=0.0) > 0).to(tl.int32)
    tl.store(bits + byte, tl.sum(positive << bit[None, :], 1).to(tl.uint8), mask=byte * 8 < size)


@triton.jit
def _kept(positive, at, size):
    if positive.dtype.element_ty == tl.uint8:
        byte = tl.load(positive + at // 8, mask=at < size, other=0).to(tl.int32)
        kept = byte >> (at % 8).to(tl.int32) & 1
    else:
        kept = tl.load(positive + at, mask=at < size, other=0)
    return kept > 0


@triton.jit
def _hash(index, first_key, second_key):
    z = index.to(tl.uint32) ^ first_key.to(tl.uint32, bitcast=True)
    z = (z ^ (z >> 16)) * 0x7FEB352D
    z ^= second_key.to(tl.uint32, bitcast=True) + (index >> 32).to(tl.uint32) * 0x9E3779B9
    z = (z ^ (z >> 15)) * 0x846CA68B
    return z ^ (z >> 16)
