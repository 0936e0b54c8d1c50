"""Norms of groups of weights, and masks that keep the largest groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from tenfold.errors import SettingError
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import Choice, choose
from tenfold.kernels._topk_mask import topk_mask

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


def group_norms(groups: torch.Tensor, *, implementation: str | None = None) -> torch.Tensor:
    """Euclidean norm of every group, differentiable.

    Squares are summed in double precision, so that large weights do not overflow. The gradient of a
    group of zeros is zero.

    Parameters
    ----------
    groups : Tensor, shape (groups, size), floating point
        One group a row: view filters as ``weight.flatten(1)``, columns as ``weight.mT``.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (groups,), like `groups`

    Raises
    ------
    SettingError
        `groups` is not a floating-point matrix, or the implementation does not take it.
    UnknownNameError
        There is no such implementation.
    MissingExtraError
        The implementation is not built or not installed.
    """
    if groups.dim() != 2 or not groups.is_floating_point():
        raise SettingError(
            f"group_norms got groups of shape {tuple(groups.shape)} and {groups.dtype}",
            "a floating-point matrix with one group a row",
            "View filters as weight.flatten(1).",
        )
    norms: torch.Tensor = _GroupNorms.apply(choose(_operator, groups, implementation), groups)
    return norms


def group_topk_mask(groups: torch.Tensor, keep: int, *, implementation: str | None = None) -> torch.Tensor:
    """Mark the `keep` groups of largest Euclidean norm, ties to the lowest index.

    Parameters
    ----------
    groups : Tensor, shape (groups, size), floating point
        One group a row.
    keep : int
        How many groups to keep, from 0 to their number.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (groups,), bool
        True where a group is kept; ``mask[:, None]`` broadcasts over the group's weights.

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `group_norms` and `topk_mask`.
    """
    norms = group_norms(groups.detach(), implementation=implementation)
    return topk_mask(norms, keep, implementation=implementation)


_operator: Operator[torch.Tensor] = Operator("group_norms", "Euclidean norm of every row")


class _GroupNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, choice: Choice, groups: torch.Tensor) -> torch.Tensor:
        norms = choice.of(_operator)(groups)
        ctx.save_for_backward(groups, norms)
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        groups, norms = ctx.saved_tensors
        scale = torch.where(norms > 0, gradient / norms, 0)
        return None, groups * scale[:, None]


@_operator.implementation("reference")
def _reference(groups: torch.Tensor) -> torch.Tensor:
    return groups.double().square().sum(1).sqrt().to(groups.dtype)


@_operator.implementation("native")
def _native(instruction_set: InstructionSet, groups: torch.Tensor) -> torch.Tensor:
    norms = groups.new_empty(groups.shape[0])
    instruction_set.group_norms(groups.contiguous(), norms, torch.get_num_threads())
    return norms


@_operator.implementation("triton")
def _triton(groups: torch.Tensor) -> torch.Tensor:
    from tenfold.kernels._triton import selection

    return selection.group_norms(groups.contiguous())
