"""Sparsity structures: which entries of a weight survive at a given sparsity.

Each structure is one function from a weight to the mask of its Euclidean projection: among all
masks of that structure with as many entries kept, the one that keeps the largest squared norm.
"""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from tenfold import SettingError, UnknownNameError, kernels

Structure: TypeAlias = Callable[[Tensor, float], Tensor]

STRUCTURES: dict[str, Structure] = {}


def register_structure(name: str) -> Callable[[Structure], Structure]:
    """Make a structure known by name; decorates a function ``(weight, sparsity) -> bool mask``."""

    def register(structure: Structure) -> Structure:
        STRUCTURES[name] = structure
        return structure

    return register


def get_structure(name: str) -> Structure:
    """Look a structure up; raises `UnknownNameError` with the nearest name."""
    if name not in STRUCTURES:
        raise UnknownNameError("structure", name, STRUCTURES)
    return STRUCTURES[name]


@register_structure("irregular")
def irregular(weight: Tensor, sparsity: float) -> Tensor:
    """Keep the entries of largest magnitude, wherever they are.

    Parameters
    ----------
    weight : Tensor
        Float, any shape.
    sparsity : float
        Fraction of entries to remove, in (0, 1).

    Returns
    -------
    Tensor
        bool, shape of `weight`. At least one entry is kept; ties go to the lower index.
    """
    return kernels.topk_mask(weight, _kept(weight.numel(), sparsity))


@register_structure("filter")
def filters(weight: Tensor, sparsity: float) -> Tensor:
    """Keep whole filters (output rows) of largest L2 norm.

    Parameters
    ----------
    weight : Tensor
        Float, shape (out, ...): a convolution's filters or a linear layer's output rows.
    sparsity : float
        Fraction of filters to remove, in (0, 1).

    Returns
    -------
    Tensor
        bool, shape of `weight`. At least one filter is kept; ties go to the lower index.

    Raises
    ------
    SettingError
        `weight` has fewer than two dimensions.
    """
    if weight.dim() < 2:
        raise SettingError(
            f"a weight of shape {tuple(weight.shape)}",
            "two dimensions or more, filters first",
            "Leave this layer out, or prune it with structure 'irregular'.",
        )
    kept = kernels.group_topk_mask(weight.flatten(1), _kept(len(weight), sparsity))
    return kept.view(-1, *[1] * (weight.dim() - 1)).expand(weight.shape)


def _kept(count: int, sparsity: float) -> int:
    return max(1, round(count * (1 - sparsity)))
