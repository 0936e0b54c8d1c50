"""Entries of batched tensors: each sample's in a row, which of a target's count, whether outputs fit."""

import math

import torch
from torch import Tensor

from tenfold import SettingError


def rows(tensor: Tensor) -> Tensor:
    """Return a tensor of shape (n, ...) as (n, entries)."""
    return tensor.unsqueeze(-1).flatten(1)


def valid_entries(target: Tensor, ignore_value: float | None) -> Tensor:
    """Return where a target counts, bool, of its shape.

    Parameters
    ----------
    target : Tensor
    ignore_value : float or int, optional
        Entries that are equal to it do not count; NaN stands for entries that are NaN.
    """
    if ignore_value is None:
        return torch.ones_like(target, dtype=torch.bool)
    if math.isnan(ignore_value):
        return ~target.isnan()
    return target != ignore_value


def valid_vectors(target: Tensor, ignore_value: float | None) -> Tensor:
    """Return which vectors along dimension 1 count, bool, without this dimension.

    A vector does not count if all its entries are equal to `ignore_value`, or any is NaN where that is NaN.
    """
    valid = valid_entries(target, ignore_value)
    return valid.all(1) if ignore_value is not None and math.isnan(ignore_value) else valid.any(1)


def directions(vectors: Tensor) -> Tensor:
    """Return vectors along dimension 1 at length 1; a zero vector stays zero, and has a finite gradient."""
    # Many times faster on CPUs than torch's norms along a strided dimension.
    return vectors * vectors.square().sum(1, keepdim=True).clamp(min=1e-16).rsqrt()


def check_same_shape(output: Tensor, target: Tensor, dimensions: int = 1) -> None:
    """Refuse an output that would have to be broadcast to fit its target.

    Raises
    ------
    SettingError
        The shapes differ, or have fewer than `dimensions`.
    """
    if output.shape != target.shape or output.ndim < dimensions:
        raise SettingError(
            f"an output of shape {tuple(output.shape)} and a target of shape {tuple(target.shape)}",
            f"the same shape, of {dimensions} dimension{'s' * (dimensions > 1)} or more",
            "Resize the output, or give the target its channel dimension.",
        )


def check_classes(output: Tensor, target: Tensor, ignore_value: int | None) -> None:
    """Refuse a target that is not of classes, or not of those that the output has logits for.

    Raises
    ------
    SettingError
        Shapes do not fit, the target is not of integers, or it has a class that does not exist.
    """
    if output.ndim < 2 or target.shape != output.shape[:1] + output.shape[2:]:
        raise SettingError(
            f"logits of shape {tuple(output.shape)} and classes of shape {tuple(target.shape)}",
            "logits (n, classes, ...) and classes (n, ...), with n and ... the same",
            "Resize the logits, or take the channel dimension off the target.",
        )
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise SettingError(f"classes of type {target.dtype}", "integers", "Use target.long().")
    if not target.numel():
        return
    classes = torch.where(valid_entries(target, ignore_value), target, 0)
    least, most = (int(extreme) for extreme in classes.aminmax())
    if least < 0 or most >= output.shape[1]:
        raise SettingError(
            f"classes from {least} to {most}, and {output.shape[1]} logits",
            f"classes from 0 to {output.shape[1] - 1}",
            "Give the label of pixels that do not count as ignore_value, or more logits.",
        )
