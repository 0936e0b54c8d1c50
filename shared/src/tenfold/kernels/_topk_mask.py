"""Masks that keep the largest magnitudes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tenfold.errors import SettingError
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import choose

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


def topk_mask(scores: torch.Tensor, keep: int, *, implementation: str | None = None) -> torch.Tensor:
    """Mark the `keep` scores that are largest in magnitude.

    Among equal magnitudes the lowest index, in row-major order, is kept first: the mask is the same
    from every implementation and in every run.

    Parameters
    ----------
    scores : Tensor, any shape, floating point
        Infinite scores are allowed, NaN is not.
    keep : int
        How many to keep, from 0 to the number of scores.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape of `scores`, bool
        True where a score is kept.

    Raises
    ------
    SettingError
        `keep` is out of range, `scores` are not floating point or hold a NaN, or the implementation
        does not take them.
    UnknownNameError
        There is no such implementation.
    MissingExtraError
        The implementation is not built or not installed.
    """
    if not scores.is_floating_point():
        raise SettingError(
            f"topk_mask got scores of {scores.dtype}", "a floating-point type", "Convert them with .float()."
        )
    if not 0 <= keep <= scores.numel():
        raise SettingError(
            f"topk_mask was asked to keep {keep} of {scores.numel()} scores",
            "a number from 0 to the number of scores",
            "Check how keep follows from the sparsity.",
        )
    choice = choose(_operator, scores, implementation)
    return choice.of(_operator)(scores.detach().reshape(-1), keep).view(scores.shape)


_operator: Operator[torch.Tensor] = Operator(
    "topk_mask", "mask of the largest magnitudes, ties to the lowest index"
)


def _nan_error() -> SettingError:
    return SettingError(
        "topk_mask got scores with NaN", "numbers or infinities", "Look for a training that diverged."
    )


@_operator.implementation("reference")
def _reference(scores: torch.Tensor, keep: int) -> torch.Tensor:
    if scores.isnan().any():
        raise _nan_error()
    order = scores.abs().sort(descending=True, stable=True).indices
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[order[:keep]] = True
    return mask


@_operator.implementation("native")
def _native(instruction_set: InstructionSet, scores: torch.Tensor, keep: int) -> torch.Tensor:
    mask = torch.empty(scores.shape, dtype=torch.bool)
    if not instruction_set.topk_mask(scores.contiguous(), keep, mask, torch.get_num_threads()):
        raise _nan_error()
    return mask


@_operator.implementation("triton")
def _triton(scores: torch.Tensor, keep: int) -> torch.Tensor:
    from tenfold.kernels._triton import selection

    if scores.isnan().any():
        raise _nan_error()
    return selection.topk_mask(scores.contiguous(), keep)
