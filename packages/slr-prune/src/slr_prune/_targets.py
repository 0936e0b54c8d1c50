"""Layer-wise targets: how a global sparsity is shared out among the layers.

Every function returns a mapping for ``Pruner(sparsity=...)``. Layers that stay dense are left out
of it. "Global" means over the weights of all linear and convolution layers that are not ignored.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from slr_prune._sensitivity import SensitivityScan
from slr_prune._structures import ROUNDING, least_sparsity
from slr_prune._units import layer_targets, match_layers
from tenfold import SettingError, kernels


def uniform(model: nn.Module, sparsity: float, ignored_layers: Sequence[str] = ()) -> dict[str, float]:
    """Give every layer the same sparsity.

    Parameters
    ----------
    model : nn.Module
    sparsity : float
        Fraction of weights to remove, in (0, 1).
    ignored_layers : sequence of str
        Names or shell patterns of layers to leave dense.

    Returns
    -------
    dict of str to float
        Sparsity by layer name.

    Raises
    ------
    UnknownNameError
        A pattern matches no linear or convolution layer.
    SettingError
        `sparsity` is outside (0, 1), or no layer is left.
    """
    return layer_targets(model, sparsity, ignored_layers)


def erk(model: nn.Module, sparsity: float, ignored_layers: Sequence[str] = ()) -> dict[str, float]:
    """Erdos-Renyi-Kernel (RigL; Evci et al., ICML 2020): small layers stay denser.

    The density of a layer is proportional to the sum of its weight's dimensions over their product.
    Layers that would exceed density 1 stay dense, and the others share what that leaves, so that
    the global density is met.

    Parameters
    ----------
    model, sparsity, ignored_layers
        As in `uniform`; `sparsity` is global.

    Returns
    -------
    dict of str to float
        Sparsity by layer name.

    Raises
    ------
    UnknownNameError, SettingError
        As in `uniform`.
    """
    free = {name: weight.shape for name, weight in _weights(model, sparsity, ignored_layers).items()}
    budget = (1 - sparsity) * sum(math.prod(shape) for shape in free.values())
    while True:
        # density x size is scale x sum of dimensions
        scale = budget / sum(sum(shape) for shape in free.values())
        full = {name: shape for name, shape in free.items() if scale * sum(shape) >= math.prod(shape)}
        if not full:
            return {name: 1 - scale * sum(shape) / math.prod(shape) for name, shape in free.items()}
        budget -= sum(math.prod(shape) for shape in full.values())
        free = {name: shape for name, shape in free.items() if name not in full}


def global_magnitude(
    model: nn.Module, sparsity: float, ignored_layers: Sequence[str] = ()
) -> dict[str, float]:
    """Give each layer the sparsity that one magnitude threshold for all layers would.

    The largest entry of every layer is kept whatever its size, so that no layer is emptied, and
    the threshold is that which meets the global count.

    Parameters
    ----------
    model, sparsity, ignored_layers
        As in `uniform`; `sparsity` is global.

    Returns
    -------
    dict of str to float
        Sparsity by layer name.

    Raises
    ------
    UnknownNameError
        As in `uniform`.
    SettingError
        As in `uniform`; or `sparsity` leaves fewer weights than there are layers, or a weight has
        NaN.
    """
    weights = _weights(model, sparsity, ignored_layers)
    scores = [weight.flatten().abs() for weight in weights.values()]
    total = sum(map(len, scores))
    keep = round(total * (1 - sparsity))
    if keep < len(scores):
        raise SettingError(
            f"sparsity {sparsity}, which keeps {keep} of {total} weights in {len(scores)} layers",
            "one weight or more for every layer",
            f"Lower the sparsity to {math.floor(1e6 * (1 - len(scores) / total)) / 1e6} or less.",
        )
    for score in scores:
        # argmax takes NaN for the largest, and would hide it from topk_mask
        score[score.nan_to_num(0.0).argmax()] = math.inf
    masks = kernels.topk_mask(torch.cat(scores), keep).split([len(score) for score in scores])
    removed = {name: 1 - mask.sum().item() / len(mask) for name, mask in zip(weights, masks, strict=True)}
    return {name: value for name, value in removed.items() if value > 0}


def from_sensitivity(
    scan: SensitivityScan, sparsity: float, ignored_layers: Sequence[str] = ()
) -> dict[str, float]:
    """Meet a global sparsity while the largest accuracy drop over the layers is least.

    A layer's drop is that of the scan, where it was pruned alone, taken from 0 at sparsity 0 and
    linearly between the sparsities tried; it never falls as sparsity rises. As the drop that is
    allowed goes up, every layer's sparsity follows its curve until the global sparsity is met.
    Where layers can be pruned further at the same drop, all go the same share of that way.

    Parameters
    ----------
    scan : SensitivityScan
    sparsity : float
        Fraction to remove of the weights of all scanned layers that are not ignored, in (0, 1).
    ignored_layers : sequence of str
        Names or shell patterns of layers to leave dense.

    Returns
    -------
    dict of str to float
        Sparsity by layer name, none above the highest that was scanned.

    Raises
    ------
    UnknownNameError
        A pattern matches no scanned layer, or the scan's structure is not registered.
    SettingError
        `sparsity` is not above 0, or above the highest that was scanned; no layer is left; or a
        layer would get less than the least sparsity of the scan's structure (N:M, ``"pattern"``).
    """
    if not 0 < sparsity <= scan.sparsities[-1]:
        raise SettingError(
            f"sparsity {sparsity}",
            f"a fraction above 0 and up to {scan.sparsities[-1]}, the highest that was scanned",
            "Scan higher sparsities, or lower the target.",
        )
    ignored = {name for pattern in ignored_layers for name in match_layers(pattern, list(scan.sizes))}
    sizes = {name: size for name, size in scan.sizes.items() if name not in ignored}
    if not sizes:
        raise SettingError("every layer is ignored", "at least one layer to prune", "Shorten ignored_layers.")
    curves = {
        name: list(accumulate((0.0, *(scan.dense - value for value in scan.accuracies[name])), max))
        for name in sizes
    }
    budget = sum(size * sparsity for size in sizes.values())
    for low, high in pairwise(_path(curves, (0.0, *scan.sparsities))):
        below, above = (sum(sizes[name] * point[name] for name in sizes) for point in (low, high))
        if above >= budget:
            break
    share = (budget - below) / (above - below)
    allotted = {name: low[name] + share * (high[name] - low[name]) for name in sizes}
    targets = {name: value for name, value in allotted.items() if value > 0}
    _check_least(targets, scan.structure)
    return targets


def _check_least(targets: Mapping[str, float], structure: str) -> None:
    least = least_sparsity(structure)
    for layer, value in targets.items():
        if value < least - ROUNDING:
            raise SettingError(
                f"sparsity {value:.4g} for layer {layer!r} with structure {structure!r}",
                f"{least:.4g} or more, the least that the structure can make",
                "Raise the sparsity, or leave the layer dense with ignored_layers.",
            )


def _path(curves: Mapping[str, Sequence[float]], sparsities: Sequence[float]) -> Iterator[dict[str, float]]:
    """Yield the corners of the path that the layers' sparsities take as the allowed drop goes up.

    Between two corners everything is linear: the sparsities either follow the rising curves, or
    at one level of the drop cross what is flat in them.
    """
    yield dict.fromkeys(curves, 0.0)
    for level in sorted(set().union(*curves.values())):
        for reach in (bisect_left, bisect_right):
            yield {
                name: _sparsity_at(level, reach(drops, level), drops, sparsities)
                for name, drops in curves.items()
            }


def _sparsity_at(level: float, end: int, drops: Sequence[float], sparsities: Sequence[float]) -> float:
    if end == 0:
        return 0.0
    if end == len(drops):
        return sparsities[-1]
    share = (level - drops[end - 1]) / (drops[end] - drops[end - 1])
    return sparsities[end - 1] + share * (sparsities[end] - sparsities[end - 1])


def _weights(model: nn.Module, sparsity: float, ignored_layers: Sequence[str]) -> dict[str, Tensor]:
    targets = layer_targets(model, sparsity, ignored_layers)
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in targets}
    return {name: layer.weight.detach() for name, layer in layers.items()}
