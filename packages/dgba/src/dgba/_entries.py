"""Entries of batched tensors: each sample's in a row, and which of a target's count."""

import math

import torch
from torch import Tensor


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
