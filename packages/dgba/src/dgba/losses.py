"""Losses of the usual tasks, one value per sample, and the mean over its pixels that count.

The paper's: cross-entropy for segmentation (pixels labelled 255 left out), 1 - cos for surface normals,
and the masked L1 distance for depth, keypoints and edges. A sample whose mask is empty has loss 0,
and its gradient is zero. Averages never reach over samples, so that the loss of one, and with it
its attack, does not depend on the others in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dgba._entries import rows, valid_entries, valid_vectors
from tenfold import SettingError

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Takes output and target, both with n first, and returns n losses, differentiable in the output."""

# What torch takes for "ignore nothing": no class has this number.
_NO_CLASS = -100


def cross_entropy(output: Tensor, target: Tensor, ignore_value: int | None = None) -> Tensor:
    """Return each sample's cross-entropy, of a class or of a map of classes.

    Parameters
    ----------
    output : Tensor
        Logits, shape (n, classes) or (n, classes, height, width).
    target : Tensor
        Classes, int64, shape (n,) or (n, height, width).
    ignore_value : int, optional
        Label of pixels that do not count.

    Returns
    -------
    Tensor
        Shape (n,).

    Raises
    ------
    SettingError
        Shapes do not fit, the target is not of integers, or it has a class that does not exist.
    """
    check_classes(output, target, ignore_value)
    ignored = _NO_CLASS if ignore_value is None else int(ignore_value)
    losses = F.cross_entropy(output, target.long(), reduction="none", ignore_index=ignored)
    return _mean(losses, valid_entries(target, ignore_value))


def cosine(output: Tensor, target: Tensor, ignore_value: float | None = None) -> Tensor:
    """Return 1 - cos of the angle between vectors along dimension 1, the mean of each sample.

    It is computed as |u - v|^2 / 2 of the unit vectors, which an output of 0 makes 1/2.

    Parameters
    ----------
    output, target : Tensor
        Of any length, shape (n, k, ...).
    ignore_value : float, optional
        Vectors of the target that have it in all entries (in any, if it is NaN) do not count.

    Returns
    -------
    Tensor
        Shape (n,).

    Raises
    ------
    SettingError
        The shapes differ or have one dimension only.
    """
    check_same_shape(output, target, dimensions=2)
    valid = valid_vectors(target, ignore_value)
    aims = torch.where(valid.unsqueeze(1), target, 0)
    # 1 - cos would round to less than 0 where the angle is small, of which a loss has no logarithm.
    apart = directions(output) - directions(aims)
    return _mean(apart.square().sum(1) / 2, valid)


def l1(output: Tensor, target: Tensor, ignore_value: float | None = None) -> Tensor:
    """Return the mean absolute difference of each sample.

    Parameters
    ----------
    output, target : Tensor
        Shape (n, ...).
    ignore_value : float, optional
        Entries of the target that are equal to it do not count.

    Returns
    -------
    Tensor
        Shape (n,).

    Raises
    ------
    SettingError
        The shapes differ.
    """
    check_same_shape(output, target)
    valid = valid_entries(target, ignore_value)
    return _mean((output - torch.where(valid, target, 0)).abs(), valid)


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
        See `cross_entropy`.
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


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    total = rows(torch.where(valid, values, 0)).sum(1)
    return total / rows(valid).sum(1).clamp(min=1)
