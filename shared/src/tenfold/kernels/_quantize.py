"""Symmetric quantisation to int8, rounding to nearest or stochastically.

A tensor x with scale s is represented by integers q, |q| <= levels, as x ~ s q, with

    s = max |x| / levels,    q = round(x / s)

Stochastic rounding takes the next integer below x / s, and the one above with the probability of the
fraction that was cut off, so that s q is x on average. Its random numbers come from a generator that
counts: element i of a tensor gets ``hash(seed, i)``, whichever implementation, thread or program
computes it.

Two factors are fused because both would cost a pass over the tensor: one for each row (the norm of a
node's degree) and the mask of a ReLU whose gradient is quantised, for which a bit an element is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tenfold.errors import SettingError
from tenfold.kernels._checks import check_scale, check_vector
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import choose

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


def absmax(
    x: torch.Tensor,
    *,
    row_scale: torch.Tensor | None = None,
    positive: torch.Tensor | None = None,
    implementation: str | None = None,
) -> torch.Tensor:
    """Largest magnitude of ``x[i, j] * row_scale[i]`` where ``positive[i, j] > 0``.

    NaN and infinities propagate, so that a scale made of the result shows that a training diverged.

    Parameters
    ----------
    x : Tensor, any shape, floating point
        Other types than float32 are converted to it.
    row_scale : Tensor, shape (x.shape[0],), float32, optional
        Factor of every row.
    positive : Tensor, shape of `x`, float32, int8 or bool, or uint8 bits, optional
        Elements where it is not positive count as zero; it may be given as its `positive_bits`.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (), float32
        Zero when `x` is empty.

    Raises
    ------
    SettingError
        A shape, type or device is wrong, or the implementation does not take it.
    UnknownNameError
        There is no such implementation.
    MissingExtraError
        The implementation is not built or not installed.
    """
    x = _check("absmax", x, row_scale, positive)
    if row_scale is not None:
        row_scale = row_scale.detach()
    return choose(_absmax, x, implementation).of(_absmax)(x, row_scale, positive)


def quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    *,
    levels: int = 127,
    seed: int | None = None,
    row_scale: torch.Tensor | None = None,
    positive: torch.Tensor | None = None,
    implementation: str | None = None,
) -> torch.Tensor:
    """Round ``x[i, j] * row_scale[i] / scale`` to integers of at most `levels` in magnitude.

    Every implementation returns the same integers, whatever the number of threads. A scale of zero,
    or one so small that its inverse is infinite, gives zeros, and so does an element that is NaN once
    it is scaled: NaN is passed on by the scale, see `absmax`.

    Parameters
    ----------
    x : Tensor, any shape, floating point
        Other types than float32 are converted to it.
    scale : Tensor, shape (), float32
        ``absmax(x) / levels``, unless a smaller one is to clip.
    levels : int
        Largest magnitude of the result, from 1 to 127: ``2 ** (bits - 1) - 1``.
    seed : int, optional
        Round stochastically with the random numbers of this seed, from 0 to ``2 ** 64 - 1``. Without
        it round to nearest, halves to even.
    row_scale : Tensor, shape (x.shape[0],), float32, optional
        Factor of every row.
    positive : Tensor, shape of `x`, float32, int8 or bool, or uint8 bits, optional
        Elements where it is not positive become zero; it may be given as its `positive_bits`.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape of `x`, int8

    Raises
    ------
    SettingError
        A shape, type, device or setting is wrong, or the implementation does not take it.
    UnknownNameError
        There is no such implementation.
    MissingExtraError
        The implementation is not built or not installed.

    Examples
    --------
    >>> x = torch.tensor([1.0, -0.5, 0.25])
    >>> scale = kernels.absmax(x) / 127
    >>> kernels.quantize(x, scale)
    tensor([127, -64,  32], dtype=torch.int8)
    """
    x = _check("quantize", x, row_scale, positive)
    check_scale("quantize", "scale", scale, x.device)
    if not 1 <= levels <= 127:
        raise SettingError(
            f"quantize got levels = {levels}", "a number from 1 to 127", "Use 127 for 8 bits, 7 for 4."
        )
    if seed is not None and not 0 <= seed < 1 << 64:
        raise SettingError(
            f"quantize got seed = {seed}",
            "a number from 0 to 2 ** 64 - 1",
            "Draw it from a generator, or pass None to round to nearest.",
        )
    keys = None if seed is None else hash_keys(seed)
    if row_scale is not None:
        row_scale = row_scale.detach()
    quantized = choose(_quantize, x, implementation).of(_quantize)
    return quantized(x, scale.detach(), levels, keys, row_scale, positive)


def positive_bits(x: torch.Tensor, *, implementation: str | None = None) -> torch.Tensor:
    """Bits of where a tensor is positive, a 32nd of its size, as `quantize` takes them.

    Parameters
    ----------
    x : Tensor, any shape, floating point
        Other types than float32 are converted to it.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (ceil(x.numel() / 8),), uint8
        Bit j, counted from the lowest, of byte i is that of element ``8 * i + j`` in row-major order.

    Raises
    ------
    SettingError
        `x` is not floating point, or the implementation does not take it.
    UnknownNameError
        There is no such implementation.
    MissingExtraError
        The implementation is not built or not installed.

    Examples
    --------
    >>> kernels.positive_bits(torch.tensor([1.0, -1.0, 0.0, 2.0]))
    tensor([9], dtype=torch.uint8)
    """
    x = _check("positive_bits", x, None, None)
    return choose(_positive_bits, x, implementation).of(_positive_bits)(x)


_absmax: Operator[torch.Tensor] = Operator("absmax", "largest magnitude, the scale of a quantised tensor")
_quantize: Operator[torch.Tensor] = Operator("quantize", "int8 of a tensor, rounded to nearest or at random")

_positive_bits: Operator[torch.Tensor] = Operator("positive_bits", "bits of where a tensor is positive")

_WORD = 0xFFFFFFFF


def hash_keys(seed: int) -> tuple[int, int]:
    """Two 32-bit keys of a 64-bit seed: a step of SplitMix64."""
    mask = (1 << 64) - 1
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    return z & _WORD, z >> 32


def hash_of(index: torch.Tensor, keys: tuple[int, int]) -> torch.Tensor:
    """32 random bits of each index, as int64; all arithmetic is modulo ``2 ** 32``.

    The index's low word is mixed by the finalizer of a 32-bit hash ("lowbias32"), whose two rounds
    take a key each, the second one together with the index's high word.
    """
    low, high = index & _WORD, index >> 32
    z = low ^ keys[0]
    z = ((z ^ z >> 16) * 0x7FEB352D) & _WORD
    z ^= (keys[1] + high * 0x9E3779B9) & _WORD
    z = ((z ^ z >> 15) * 0x846CA68B) & _WORD
    return z ^ z >> 16


@_absmax.implementation("reference")
def _reference_absmax(
    x: torch.Tensor, row_scale: torch.Tensor | None, positive: torch.Tensor | None
) -> torch.Tensor:
    if row_scale is not None:
        x = x * _column(row_scale, x)
    if positive is not None:
        x = x.where(_kept(positive, x), 0)
    return x.abs().amax() if x.numel() else x.new_zeros(())


@_quantize.implementation("reference")
def _reference_quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    levels: int,
    keys: tuple[int, int] | None,
    row_scale: torch.Tensor | None,
    positive: torch.Tensor | None,
) -> torch.Tensor:
    inverse = scale.reciprocal()
    inverse = inverse.where(~inverse.isinf(), 0)
    x = x * (inverse if row_scale is None else _column(row_scale * inverse, x))
    if positive is not None:
        x = x.where(_kept(positive, x), 0)
    x = x.where(~x.isnan(), 0).clamp(-levels, levels)
    if keys is None:
        return x.round().to(torch.int8)
    below = x.floor()
    uniform = (hash_of(torch.arange(x.numel(), device=x.device), keys) >> 8).float() * 2.0**-24
    return (below + (uniform.view(x.shape) < x - below)).to(torch.int8)


@_positive_bits.implementation("reference")
def _reference_positive_bits(x: torch.Tensor) -> torch.Tensor:
    size = x.numel()
    bits = torch.zeros((size + 7) // 8 * 8, dtype=torch.uint8, device=x.device)
    bits[:size] = x.flatten() > 0
    return (bits.view(-1, 8) << torch.arange(8, dtype=torch.uint8, device=x.device)).sum(1, dtype=torch.uint8)


def _kept(positive: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if positive.dtype is not torch.uint8:
        return positive > 0
    bits = positive[:, None] >> torch.arange(8, dtype=torch.uint8, device=x.device) & 1
    return bits.flatten()[: x.numel()].view(x.shape) > 0


@_absmax.implementation("native")
def _native_absmax(
    instruction_set: InstructionSet,
    x: torch.Tensor,
    row_scale: torch.Tensor | None,
    positive: torch.Tensor | None,
) -> torch.Tensor:
    out = x.new_empty(())
    instruction_set.absmax(
        x.contiguous(), _contiguous(row_scale), _bytes(positive), out, torch.get_num_threads()
    )
    return out


@_quantize.implementation("native")
def _native_quantize(
    instruction_set: InstructionSet,
    x: torch.Tensor,
    scale: torch.Tensor,
    levels: int,
    keys: tuple[int, int] | None,
    row_scale: torch.Tensor | None,
    positive: torch.Tensor | None,
) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=torch.int8)
    instruction_set.quantize(
        x.contiguous(),
        scale,
        levels,
        keys is not None,
        *(keys or (0, 0)),
        _contiguous(row_scale),
        _bytes(positive),
        out,
        torch.get_num_threads(),
    )
    return out


@_positive_bits.implementation("native")
def _native_positive_bits(instruction_set: InstructionSet, x: torch.Tensor) -> torch.Tensor:
    bits = torch.empty((x.numel() + 7) // 8, dtype=torch.uint8)
    instruction_set.positive_bits(x.contiguous(), bits, torch.get_num_threads())
    return bits


@_absmax.implementation("triton")
def _triton_absmax(
    x: torch.Tensor, row_scale: torch.Tensor | None, positive: torch.Tensor | None
) -> torch.Tensor:
    from tenfold.kernels._triton import quantize

    return quantize.absmax(x, row_scale, positive)


@_quantize.implementation("triton")
def _triton_quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    levels: int,
    keys: tuple[int, int] | None,
    row_scale: torch.Tensor | None,
    positive: torch.Tensor | None,
) -> torch.Tensor:
    from tenfold.kernels._triton import quantize

    return quantize.quantize(x, scale, levels, keys, row_scale, positive)


@_positive_bits.implementation("triton")
def _triton_positive_bits(x: torch.Tensor) -> torch.Tensor:
    from tenfold.kernels._triton import quantize

    return quantize.positive_bits(x)


def _contiguous(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _bytes(mask: torch.Tensor | None) -> torch.Tensor | None:
    if mask is None:
        return None
    return (mask.view(torch.int8) if mask.dtype is torch.bool else mask.detach()).contiguous()


def _column(row_scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return row_scale.view(-1, *(1,) * (x.dim() - 1))


def _check(
    name: str, x: torch.Tensor, row_scale: torch.Tensor | None, positive: torch.Tensor | None
) -> torch.Tensor:
    """Return `x` as float32, outside the graph of autograd."""
    if not x.is_floating_point():
        raise SettingError(f"{name} got x of {x.dtype}", "a floating-point type", "Convert it with .float().")
    if row_scale is not None:
        if not x.dim():
            raise SettingError(
                f"{name} got row_scale for a scalar", "x with at least one dimension", "Add a dimension."
            )
        check_vector(name, "row_scale", row_scale, x.shape[0], x.device)
    if positive is not None and (
        positive.shape != (((x.numel() + 7) // 8,) if positive.dtype is torch.uint8 else x.shape)
        or positive.dtype not in (torch.float32, torch.int8, torch.bool, torch.uint8)
        or positive.device != x.device
    ):
        raise SettingError(
            f"{name} got positive of shape {tuple(positive.shape)} and {positive.dtype} on {positive.device}",
            f"the shape {tuple(x.shape)} and the device {x.device} of x, and float32, int8, bool or bits",
            "Pass the output of the ReLU, a mask of it, or positive_bits of it.",
        )
    return x.detach().float()
