"""Quantised tensors, and what is remembered of a tensor so that it is quantised once.

A tensor x is rounded to q = x / s, an integer of at most L levels on either side of 0, with one scale for the
whole tensor:

    s = max|x| / L,    x ~ q s,    |q| <= L = 2^(bits - 1) - 1.

With a scale per row, as a norm by degree is, x stands for the scaled tensor. A tensor of zeros has s = 0 and
q = 0. An operator knows max|x| of what it makes, and remembers it, so that the operator that takes x
quantises it without reading it twice; q is remembered as well, for the next operator that takes the same x. A
tensor that training does not change, as the features of the nodes are, is so quantised once for all steps.
Such a tensor is rounded to the nearest: noise that is drawn once is not averaged out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from tango_gnn._policy import Policy, levels_of
from tenfold import SettingError, kernels


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """An int8 tensor and its scale.

    Attributes
    ----------
    values : Tensor, int8
    scale : Tensor, shape (), float32
    levels : int
        Largest magnitude that a value may have.
    """

    values: torch.Tensor
    scale: torch.Tensor
    levels: int

    def dequantize(self) -> torch.Tensor:
        """Return the tensor that the values stand for, as float32."""
        return self.values.float() * self.scale


def quantize(
    x: torch.Tensor, policy: Policy, *, row_scale: torch.Tensor | None = None, name: str | None = None
) -> QuantizedTensor:
    """Quantise an operand as a policy says, or return what is remembered of it.

    Parameters
    ----------
    x : Tensor, float32
    policy : Policy
        Of a fixed width, below 32 bits.
    row_scale : Tensor, shape (rows,), float32, optional
        Quantise ``x * row_scale[:, None]``.
    name : str, optional
        What `x` is, in an error. Without it NaN and infinite values give a scale that is not finite, which
        makes whatever is computed from the result NaN.

    Raises
    ------
    SettingError
        `x` is not float32, or has a name and is on the CPU and not finite.
    """
    if x.dtype is not torch.float32:
        raise SettingError(
            f"{name or 'an operand'} of {x.dtype}",
            "torch.float32",
            "Convert it with .float(), or leave float64 to Policy.off().",
        )
    known = _recall(x) if policy.reuse else _Known()
    constant = policy.reuse and not x.requires_grad
    rounding = "nearest" if constant else policy.rounding
    key = policy.bits, rounding, x.shape, x.stride()
    quantized, scaled_by = known.quantized.get(key, (None, None))
    if quantized is None or scaled_by is not row_scale:
        peak = known.absmax if row_scale is None else None
        if peak is None:
            peak = kernels.absmax(x.contiguous(), row_scale=row_scale)
        peak = _over_group(peak, policy)
        if name is not None and peak.is_cpu and not math.isfinite(peak):
            raise SettingError(
                f"{name} with NaN or infinite values",
                "finite values",
                "Clean the data, or lower the learning rate.",
            )
        seed = None if constant else policy.seed()
        quantized = _round(x, peak, policy, seed, row_scale)
        known.quantized[key] = quantized, row_scale
    return quantized


def quantize_once(
    x: torch.Tensor,
    policy: Policy,
    *,
    absmax: torch.Tensor | None = None,
    row_scale: torch.Tensor | None = None,
    positive: torch.Tensor | None = None,
) -> QuantizedTensor:
    """Quantise a tensor that one operator takes, once, as a gradient is: nothing is remembered.

    Parameters
    ----------
    x : Tensor, float32
    policy : Policy
        Of a fixed width, below 32 bits.
    absmax : Tensor, shape (), float32, optional
        Largest magnitude of what is to be quantised, where the operator that made `x` knows it.
    row_scale : Tensor, shape (rows,), float32, optional
        Quantise ``x * row_scale[:, None]``.
    positive : Tensor, optional
        What a ReLU returned, or its bits as `tenfold.kernels.positive_bits` packs them: quantise zero where
        it is not positive.
    """
    if absmax is None and policy.reuse and row_scale is None and positive is None:
        absmax = _recall(x).absmax
    if absmax is None:
        x = x.contiguous()
        absmax = kernels.absmax(x, row_scale=row_scale, positive=positive)
    return _round(x, _over_group(absmax, policy), policy, policy.seed(), row_scale, positive)


def _over_group(peak: torch.Tensor, policy: Policy) -> torch.Tensor:
    if policy.group is None:
        return peak
    peak = peak.clone()
    torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX, group=policy.group)
    return peak


def _round(
    x: torch.Tensor,
    peak: torch.Tensor,
    policy: Policy,
    seed: int | None,
    row_scale: torch.Tensor | None = None,
    positive: torch.Tensor | None = None,
) -> QuantizedTensor:
    assert isinstance(policy.bits, int)
    levels = levels_of(policy.bits)
    scale = peak / levels
    values = kernels.quantize(
        x.contiguous(), scale, levels=levels, seed=seed, row_scale=row_scale, positive=positive
    )
    return QuantizedTensor(values, scale, levels)


def kept(
    x: torch.Tensor, quantized: QuantizedTensor, policy: Policy
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what a gradient keeps of an operand: its quantised values, or itself to quantise it anew."""
    return (quantized.values, quantized.scale) if policy.reuse else (x, None)


def restored(saved: Sequence[torch.Tensor | None], policy: Policy) -> QuantizedTensor:
    """Return the quantised operand of which a gradient kept what `kept` returned."""
    values, scale = saved
    assert values is not None
    if scale is None:
        return quantize(values, policy)
    assert isinstance(policy.bits, int)
    return QuantizedTensor(values, scale, levels_of(policy.bits))


def round_trip(x: torch.Tensor, policy: Policy) -> torch.Tensor:
    """Quantise and dequantise."""
    return quantize(x, policy).dequantize()


def remember_absmax(x: torch.Tensor, absmax: torch.Tensor) -> torch.Tensor:
    """Remember max|x| of a tensor until it is changed in place, and return the tensor."""
    _recall(x).absmax = absmax
    return x


def relative_error(x: torch.Tensor, policy: Policy) -> float:
    """Relative error of a tensor quantised as a policy says: ``|x - s q|_1 / |x|_1``, 0 where x = 0.

    Parameters
    ----------
    x : Tensor, float32
    policy : Policy
        Of a fixed width.
    """
    size = float(x.abs().sum())
    if not policy.quantizes or not size:
        return 0.0
    return float((x - round_trip(x, replace(policy, reuse=False))).abs().sum()) / size


@dataclass
class _Known:
    version: int = 0
    absmax: torch.Tensor | None = None
    quantized: dict[Any, tuple[QuantizedTensor, torch.Tensor | None]] = field(default_factory=dict)


_known = WeakTensorKeyDictionary()


def _recall(x: torch.Tensor) -> _Known:
    if x._is_view() and x._base is not None and 0 < x.numel() == x._base.numel():
        # Another shape of the same numbers. Empty parts of nothing stay apart: processes that share scales
        # quantise equally often, however many rows they have.
        x = x._base
    if x.is_inference():
        # Such tensors do not count their changes.
        return _Known()
    known: _Known | None = _known.get(x)
    if known is None or known.version != x._version:
        known = _Known(x._version)
        _known[x] = known
    return known
