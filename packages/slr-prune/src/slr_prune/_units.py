"""What is projected together: for now the weight of one layer.

A unit knows its parameters, its target sparsity, and the masks of its Euclidean projection. The
methods see nothing else of a structure.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from slr_prune._structures import Structure, get_structure
from tenfold import SettingError, UnknownNameError

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Unit(Protocol):
    """Parameters that are projected together.

    Attributes
    ----------
    name : str
        Layer name.
    sparsity : float
        Fraction to remove.
    parameters : tuple of str
        Names of the parameters it covers.
    """

    @property
    def name(self) -> str: ...
    @property
    def sparsity(self) -> float: ...
    @property
    def parameters(self) -> tuple[str, ...]: ...

    def masks(self, tensors: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        """Return bool masks, True where kept, for `tensors` in place of the parameters."""


@dataclass(frozen=True)
class LayerUnit:
    """The weight of one layer under one structure; see `Unit`."""

    name: str
    sparsity: float
    structure: Structure

    @property
    def parameters(self) -> tuple[str, ...]:
        """The layer's weight."""
        return (f"{self.name}.weight",)

    def masks(self, tensors: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        """See `Unit.masks`."""
        (parameter,) = self.parameters
        return {parameter: self.structure(tensors[parameter], sparsity)}


def build_units(
    model: nn.Module,
    sparsity: float | Mapping[str, float],
    *,
    structure: str,
    ignored_layers: Sequence[str],
) -> list[Unit]:
    """Return the units of a model; the arguments are those of `slr_prune.Pruner`."""
    targets = layer_targets(model, sparsity, ignored_layers)
    projection = get_structure(structure)
    for name in targets:
        _check_parameter(model, name)
    return [LayerUnit(name, value, projection) for name, value in targets.items()]


def layer_targets(
    model: nn.Module, sparsity: float | Mapping[str, float], ignored_layers: Iterable[str] = ()
) -> dict[str, float]:
    """Return the sparsity of every layer to prune, in the model's order.

    Raises
    ------
    UnknownNameError
        A name or pattern matches no linear or convolution layer.
    SettingError
        A sparsity is outside (0, 1), or no layer is left to prune.
    """
    layers = prunable_layers(model)
    patterns = sparsity if isinstance(sparsity, Mapping) else {"*": sparsity}
    targets = {}
    for pattern, value in patterns.items():
        matched = match_layers(pattern, layers)
        if not 0 < value < 1:  # also refuses NaN
            raise SettingError(
                f"sparsity {value} for layer {pattern!r}",
                "a fraction to remove between 0 and 1, both excluded",
                "Write 0.9 to remove 90 %; leave a layer out to keep it dense.",
            )
        targets.update(dict.fromkeys(matched, float(value)))
    ignored = {name for pattern in ignored_layers for name in match_layers(pattern, layers)}
    kept = {name: targets[name] for name in layers if name in targets and name not in ignored}
    if not kept:
        raise SettingError("every layer is ignored", "at least one layer to prune", "Shorten ignored_layers.")
    return kept


def prunable_layers(model: nn.Module) -> list[str]:
    """Return the names of the linear and convolution layers; `SettingError` when there is none."""
    layers = [name for name, module in model.named_modules() if isinstance(module, PRUNABLE)]
    if not layers:
        raise SettingError(
            f"a {type(model).__name__} without linear or convolution layers",
            "a model with at least one nn.Linear or nn.Conv layer",
            "Pass the module that holds the layers.",
        )
    return layers


def match_layers(pattern: str, layers: Sequence[str]) -> list[str]:
    """Return the layers that a name or shell pattern matches; `UnknownNameError` when none does."""
    matched = [name for name in layers if fnmatch.fnmatchcase(name, pattern)]
    if not matched:
        raise UnknownNameError("layer", pattern, layers)
    return matched


def _check_parameter(model: nn.Module, layer: str) -> None:
    if not isinstance(model.get_submodule(layer).weight, nn.Parameter):
        raise SettingError(
            f"layer {layer!r} whose weight is computed, not a parameter",
            "an nn.Parameter",
            "Remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations).",
        )
