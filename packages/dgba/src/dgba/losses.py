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

from dgba._entries import check_classes, check_same_shape, directions, rows, valid_entries, valid_vectors

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

    It is computed as ``|u - v|^2 / 2`` of the unit vectors, which an output of 0 makes 1/2.

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


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    total = rows(torch.where(valid, values, 0)).sum(1)
    return total / rows(valid).sum(1).clamp(min=1)
