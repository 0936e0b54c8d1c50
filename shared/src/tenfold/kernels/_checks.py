"""Checks of arguments, cheap enough for a product with a single vector.

Shapes and types are looked at in every call. What needs a pass over the indices is remembered for
each index tensor until the tensor is changed in place, so that a layer pays for it once. Writes
that torch does not count (through ``.data`` or a NumPy view) are not noticed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeAlias

import torch

from tenfold.errors import SettingError

Facts: TypeAlias = tuple[bool, int]

_known: dict[tuple[int, Callable[[torch.Tensor], Facts]], tuple[weakref.ref[torch.Tensor], int, Facts]] = {}


def check_sparse_times_dense(
    name: str,
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
) -> None:
    """Check the operands of a CSR (1-D values) or BSR (3-D values) product.

    Raises
    ------
    SettingError
        Naming the first thing that is wrong.
    """
    blocks = name.startswith("bsr")
    if values.dim() != (3 if blocks else 1) or dense.dim() != 2:
        raise SettingError(
            f"{name} got values of shape {tuple(values.shape)} and dense of shape {tuple(dense.shape)}",
            f"values of shape {'(blocks, r, c)' if blocks else '(entries,)'} and dense of shape (k, n)",
            "Reshape them; a vector is a matrix with n = 1.",
        )
    if not values.is_floating_point() or values.dtype != dense.dtype:
        raise SettingError(
            f"{name} got values of {values.dtype} and dense of {dense.dtype}",
            "one floating-point type for both",
            "Convert one of them with .to().",
        )
    if crow_indices.dtype not in (torch.int32, torch.int64) or crow_indices.dtype != col_indices.dtype:
        raise SettingError(
            f"{name} got indices of {crow_indices.dtype} and {col_indices.dtype}",
            "torch.int32 or torch.int64 for both",
            "Convert them with .int() (the faster choice) or .long().",
        )
    device = dense.device
    if not (values.device == device == crow_indices.device == col_indices.device):
        raise SettingError(
            f"{name} got indices on {crow_indices.device} and {col_indices.device}, "
            f"values on {values.device} and dense on {device}",
            "all on one device",
            "Move them with .to(device).",
        )
    if crow_indices.dim() != 1 or col_indices.dim() != 1 or not crow_indices.shape[0]:
        raise SettingError(
            f"{name} got index tensors of shapes {tuple(crow_indices.shape)} and {tuple(col_indices.shape)}",
            "1-D tensors, crow_indices with one entry more than there are rows",
            "Pass what torch's crow_indices() and col_indices() return for an unbatched matrix.",
        )
    block_width = values.shape[2] if blocks else 1
    if blocks and (not values.shape[1] or not block_width or dense.shape[0] % block_width):
        raise SettingError(
            f"{name} got blocks of {values.shape[1]} x {block_width} and dense of {dense.shape[0]} rows",
            "blocks that are not empty and whose width divides the rows of dense",
            "Pad dense with zero rows, or choose another block size.",
        )
    _check_indices(name, crow_indices, col_indices, values.shape[0], dense.shape[0] // block_width)


def check_scale(name: str, argument: str, scale: torch.Tensor, device: torch.device) -> None:
    """Check a scale, or another single number that stays on its device.

    Raises
    ------
    SettingError
        It is not a 0-dimensional float32 tensor on `device`.
    """
    if scale.dim() or scale.dtype is not torch.float32 or scale.device != device:
        raise SettingError(
            f"{name} got {argument} of shape {tuple(scale.shape)} and {scale.dtype} on {scale.device}",
            f"a 0-dimensional torch.float32 tensor on {device}",
            f"Take it from an absmax, or pass torch.tensor({argument}, device=...).",
        )


def check_vector(name: str, argument: str, vector: torch.Tensor, size: int, device: torch.device) -> None:
    """Check a vector of float32 numbers, one for each row or column.

    Raises
    ------
    SettingError
        It is not a float32 tensor of shape (size,) on `device`.
    """
    if vector.shape != (size,) or vector.dtype is not torch.float32 or vector.device != device:
        raise SettingError(
            f"{name} got {argument} of shape {tuple(vector.shape)} and {vector.dtype} on {vector.device}",
            f"a torch.float32 tensor of shape ({size},) on {device}",
            "Reshape it with .flatten(), and convert it with .float() and .to(device).",
        )


def _check_indices(
    name: str, crow_indices: torch.Tensor, col_indices: torch.Tensor, entries: int, columns: int
) -> None:
    ordered, last = facts_of(crow_indices, crow_facts)
    if not ordered or last != entries or col_indices.shape[0] != entries:
        raise SettingError(
            f"{name} got {entries} values, {col_indices.shape[0]} column indices and crow_indices that "
            + (f"end at {last}" if ordered else "do not start at 0 and then never fall"),
            "crow_indices that rise from 0 to the number of values, and a column index for each",
            "Take all three from one matrix.",
        )
    not_negative, highest = facts_of(col_indices, col_facts)
    if not not_negative or highest >= columns:
        raise SettingError(
            f"{name} got column indices that are "
            + (f"as high as {highest}" if not_negative else "negative"),
            f"indices from 0 to {columns - 1}, one for every row or block row of dense",
            "Check the shape of dense, or the matrix that the indices come from.",
        )


def crow_facts(crow_indices: torch.Tensor) -> Facts:
    """Whether row pointers start at 0 and never fall, and where they end."""
    ordered = not crow_indices[0] and bool((crow_indices.diff() >= 0).all())
    return ordered, int(crow_indices[-1])


def col_facts(col_indices: torch.Tensor) -> Facts:
    """Whether no index is negative, and the highest."""
    if not col_indices.numel():
        return True, -1
    lowest, highest = col_indices.aminmax()
    return bool(lowest >= 0), int(highest)


def facts_of(tensor: torch.Tensor, find: Callable[[torch.Tensor], Facts]) -> Facts:
    """Find facts of an index tensor, or remember them while it has not changed."""
    if tensor.is_inference():
        # Such tensors do not count their changes.
        return find(tensor)
    key = id(tensor), find
    known = _known.get(key)
    if known is not None and known[0]() is tensor and known[1] == tensor._version:
        return known[2]
    facts = find(tensor)
    _known[key] = (weakref.ref(tensor, lambda _: _known.pop(key, None)), tensor._version, facts)
    return facts
