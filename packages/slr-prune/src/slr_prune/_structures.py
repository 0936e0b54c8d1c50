"""Sparsity structures: which entries of a weight survive at a given sparsity.

Each structure is one function from a weight to the mask of its Euclidean projection: among all
masks of that structure with as many groups kept, the one that keeps the largest squared norm.

``irregular``
    Single entries.
``filter``, ``channel``, ``column``
    Whole slices: output rows, input channels, columns of the matrix ``weight.flatten(1)``.
``block``, ``block:8``, ``block:8x4``
    Blocks of that matrix, 16 x 16 unless the name says otherwise (rows x columns).
``pattern``
    3 x 3 kernels reduced to one of 13 shapes, beyond that whole kernels.
``2:4``, ``1:4``, any ``N:M``
    N entries of every M neighbours along the input dimension.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold import SettingError, UnknownNameError, kernels

Structure: TypeAlias = Callable[[Tensor, float], Tensor]
AnyStructure = TypeVar("AnyStructure", bound=Structure)

# Slack for sparsities that are fractions, such as 4/9 or 2/3, written with two digits.
ROUNDING = 0.005

STRUCTURES: dict[str, Structure] = {}
_LEAST: dict[str, float] = {}


def register_structure(name: str, *, least_sparsity: float = 0.0) -> Callable[[AnyStructure], AnyStructure]:
    """Make a structure known by name; decorates a function ``(weight, sparsity) -> bool mask``.

    Parameters
    ----------
    name : str
        Key in `STRUCTURES`.
    least_sparsity : float
        Sparsity below which the structure cannot be made; see `least_sparsity`.
    """

    def register(structure: AnyStructure) -> AnyStructure:
        STRUCTURES[name] = structure
        _LEAST[name] = least_sparsity
        return structure

    return register


def get_structure(name: str) -> Structure:
    """Look a structure up by its name; sizes are part of it.

    Parameters
    ----------
    name : str
        A key of `STRUCTURES`, ``"N:M"``, or ``"block:ROWSxCOLUMNS"`` (``"block:8"`` is 8 x 8).

    Returns
    -------
    callable
        ``(weight, sparsity) -> bool mask``.

    Raises
    ------
    UnknownNameError
        No structure has that name; the message has the nearest one.
    SettingError
        N is not below M, or a size is 0.
    """
    if name in STRUCTURES:
        return STRUCTURES[name]
    if counts := _n_of_m(name):
        return partial(semi_structured, n=counts[0], m=counts[1])
    if match := re.fullmatch(r"block:(\d+)(?:x(\d+))?", name):
        rows, columns = int(match[1]), int(match[2] or match[1])
        if not (rows and columns):
            raise SettingError(f"structure {name!r}", "sizes from 1 on", "Write block:16 or block:8x4.")
        return partial(blocks, rows=rows, columns=columns)
    raise UnknownNameError("structure", name, STRUCTURES)


def least_sparsity(name: str) -> float:
    """Return the sparsity below which a structure cannot be made.

    It is 4/9 for ``"pattern"``, 1 - N/M for N:M (which can make no other either), and 0 for
    those that make any sparsity.

    Parameters
    ----------
    name : str
        As in `get_structure`.

    Raises
    ------
    UnknownNameError, SettingError
        As in `get_structure`.
    """
    get_structure(name)
    if name in _LEAST:
        return _LEAST[name]
    counts = _n_of_m(name)
    return 1 - counts[0] / counts[1] if counts else 0.0


def _n_of_m(name: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+):(\d+)", name)
    if match is None:
        return None
    n, m = int(match[1]), int(match[2])
    if not 0 < n < m:
        raise SettingError(
            f"structure {name!r}", "N:M with N from 1 to M - 1", "Write 2:4 to keep two of every four."
        )
    return n, m


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
    _require_layer_weight(weight)
    kept = _largest(weight.flatten(1), sparsity)
    return kept.view(-1, *[1] * (weight.dim() - 1)).expand(weight.shape)


@register_structure("channel")
def channels(weight: Tensor, sparsity: float) -> Tensor:
    """Keep whole input channels of largest L2 norm.

    Parameters
    ----------
    weight : Tensor
        Float, shape (out, in, ...). Of a grouped convolution `in` counts the channels of one
        group, and a channel is the same position in every group.
    sparsity : float
        Fraction of input channels to remove, in (0, 1).

    Returns
    -------
    Tensor
        bool, shape of `weight`. At least one channel is kept; ties go to the lower index.

    Raises
    ------
    SettingError
        `weight` has fewer than two dimensions.
    """
    _require_layer_weight(weight)
    kept = _largest(weight.transpose(0, 1).flatten(1), sparsity)
    return kept.view(1, -1, *[1] * (weight.dim() - 2)).expand(weight.shape)


@register_structure("column")
def columns(weight: Tensor, sparsity: float) -> Tensor:
    """Keep whole columns of the matrix ``weight.flatten(1)``, those of largest L2 norm.

    A column is one position (input channel and place in the kernel) in all filters. Removing it
    shortens the matrix product that a convolution is.

    Parameters
    ----------
    weight : Tensor
        Float, shape (out, in, ...).
    sparsity : float
        Fraction of columns to remove, in (0, 1).

    Returns
    -------
    Tensor
        bool, shape of `weight`. At least one column is kept; ties go to the lower index.

    Raises
    ------
    SettingError
        `weight` has fewer than two dimensions.
    """
    _require_layer_weight(weight)
    kept = _largest(weight.flatten(1).mT, sparsity)
    return kept.view(1, *weight.shape[1:]).expand(weight.shape)


@register_structure("block")
def blocks(weight: Tensor, sparsity: float, *, rows: int = 16, columns: int = 16) -> Tensor:
    """Keep blocks of the matrix ``weight.flatten(1)``, those of largest L2 norm.

    Blocks start at the top left. Where they do not divide the matrix, those at the right and
    bottom edge are smaller; each counts as one block, as if the matrix were padded with zeros.

    Parameters
    ----------
    weight : Tensor
        Float, shape (out, in, ...).
    sparsity : float
        Fraction of blocks to remove, in (0, 1).
    rows, columns : int
        Size of a block.

    Returns
    -------
    Tensor
        bool, shape of `weight`. At least one block is kept; ties go to the lower block in
        row-major order.

    Raises
    ------
    SettingError
        `weight` has fewer than two dimensions.
    """
    _require_layer_weight(weight)
    matrix = weight.detach().flatten(1)
    height, width = matrix.shape
    down, across = -(-height // rows), -(-width // columns)
    padded = F.pad(matrix, (0, across * columns - width, 0, down * rows - height))
    grid = padded.view(down, rows, across, columns).transpose(1, 2).reshape(down * across, rows * columns)
    kept = _largest(grid, sparsity).view(down, across)
    mask = kept.repeat_interleave(rows, 0)[:height].repeat_interleave(columns, 1)[:, :width]
    return mask.reshape(weight.shape)


# What each pattern removes, entries numbered along the rows of the kernel. The set is that of the
# authors' public code (SLR-ADMM-cifar10, slr/admm.py).
_PATTERNS = (
    (0, 2, 6, 8),
    (0, 1, 7, 8),
    (0, 1, 6, 7),
    (0, 1, 3, 4),
    (2, 3, 5, 6),
    (0, 3, 5, 8),
    (1, 2, 6, 7),
    (1, 2, 7, 8),
    (3, 5, 6, 8),
    (0, 2, 3, 5),
    (4, 5, 7, 8),
    (3, 4, 6, 7),
    (1, 2, 4, 5),
)


@register_structure("pattern", least_sparsity=4 / 9)
def patterns(weight: Tensor, sparsity: float) -> Tensor:
    """Reduce every 3 x 3 kernel to the best of 13 patterns, each of which removes four of nine entries.

    Beyond a sparsity of 4/9, whole kernels go too (connectivity pruning): those whose pattern
    keeps the smallest norm.

    Parameters
    ----------
    weight : Tensor
        Float, shape (out, in, 3, 3).
    sparsity : float
        Fraction of entries to remove, from 4/9 (rounding to 0.44 is forgiven) to below 1.

    Returns
    -------
    Tensor
        bool, shape of `weight`. At least one kernel is kept; ties go to the lower index.

    Raises
    ------
    SettingError
        The kernels are not 3 x 3, or `sparsity` is below 4/9.
    """
    if weight.dim() != 4 or weight.shape[2:] != (3, 3):
        raise _inapplicable(weight, "shape (out, in, 3, 3) for structure 'pattern'")
    if sparsity < 4 / 9 - ROUNDING:
        raise SettingError(
            f"sparsity {sparsity} with structure 'pattern'",
            "4/9 or more, since every pattern removes four of nine entries",
            "Raise the sparsity to 0.445, or use structure 'irregular'.",
        )
    kept_by = torch.ones(len(_PATTERNS), 9, dtype=torch.bool, device=weight.device)
    kept_by.scatter_(1, torch.tensor(_PATTERNS, device=weight.device), value=False)
    norms, best = (weight.detach().flatten(2).double().square() @ kept_by.double().T).max(-1)
    kept = min(norms.numel(), _kept(norms.numel(), 1 - (1 - sparsity) * 9 / 5))
    return (kept_by[best] & kernels.topk_mask(norms, kept)[..., None]).view(weight.shape)


@register_structure("2:4", least_sparsity=0.5)
def semi_structured(weight: Tensor, sparsity: float, *, n: int = 2, m: int = 4) -> Tensor:
    """Keep the n largest of every m neighbours along the input dimension.

    Parameters
    ----------
    weight : Tensor
        Float, shape (out, in, ...), `in` a multiple of `m`. Neighbours are input channels at the
        same place in the kernel.
    sparsity : float
        1 - n/m; rounding to two digits is forgiven.
    n, m : int
        n of m are kept.

    Returns
    -------
    Tensor
        bool, shape of `weight`. Ties go to the lower input.

    Raises
    ------
    SettingError
        `in` is not a multiple of `m`, `sparsity` is not 1 - n/m, or `weight` has NaN.
    """
    _require_layer_weight(weight)
    if weight.shape[1] % m:
        raise _inapplicable(
            weight, f"a multiple of {m} inputs (the second dimension) for structure '{n}:{m}'"
        )
    if abs(sparsity - (1 - n / m)) > ROUNDING:
        raise SettingError(
            f"sparsity {sparsity} with structure '{n}:{m}'",
            f"1 - {n}/{m} = {1 - n / m:.4g}",
            f"Write {1 - n / m:.4g}, or choose another N:M.",
        )
    if weight.isnan().any():
        raise SettingError("a weight with NaN", "numbers or infinities", "Look for a training that diverged.")
    groups = weight.detach().movedim(1, -1).unflatten(-1, (-1, m)).abs()
    largest = groups.sort(dim=-1, descending=True, stable=True).indices[..., :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, largest, value=True)
    return mask.flatten(-2).movedim(-1, 1).contiguous()


def _kept(count: int, sparsity: float) -> int:
    return max(1, round(count * (1 - sparsity)))


def _largest(groups: Tensor, sparsity: float) -> Tensor:
    # norms in half precision would tie where the groups do not
    groups = groups.to(torch.promote_types(groups.dtype, torch.float32))
    return kernels.group_topk_mask(groups, _kept(len(groups), sparsity))


def _require_layer_weight(weight: Tensor) -> None:
    if weight.dim() < 2:
        raise _inapplicable(weight, "two dimensions or more, filters first")


def _inapplicable(weight: Tensor, expected: str) -> SettingError:
    return SettingError(
        f"a weight of shape {tuple(weight.shape)}",
        expected,
        "Leave this layer out, or prune it with structure 'irregular'.",
    )
