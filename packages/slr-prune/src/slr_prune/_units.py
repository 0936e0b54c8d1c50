"""What is projected together: the weight of one layer, or a group of coupled channels.

A unit knows its parameters, its target sparsity, and the masks of its Euclidean projection. The
methods see nothing else of a structure.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slr_prune._coupling import ChannelGroup, Slices, channel_groups
from slr_prune._example import ExampleInputs
from slr_prune._structures import Structure, get_structure, least_sparsity
from tenfold import SettingError, UnknownNameError, kernels

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
COUPLED = ("filter", "bn-filter")


class Unit(Protocol):
    """Parameters that are projected together.

    Attributes
    ----------
    name : str
        Layer name.
    sparsity : float
        Fraction to remove.
    least_sparsity : float
        The least fraction that its structure can remove.
    parameters : tuple of str
        Names of the parameters it covers.
    """

    @property
    def name(self) -> str: ...
    @property
    def sparsity(self) -> float: ...
    @property
    def least_sparsity(self) -> float: ...
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
    least_sparsity: float

    @property
    def parameters(self) -> tuple[str, ...]:
        """The layer's weight."""
        return (f"{self.name}.weight",)

    def masks(self, tensors: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        """See `Unit.masks`."""
        (parameter,) = self.parameters
        try:
            return {parameter: self.structure(tensors[parameter], sparsity)}
        except SettingError as error:
            raise SettingError(f"layer {self.name!r}: {error.came}", error.expected, error.remedy) from error


@dataclass(frozen=True, eq=False)
class GroupUnit:
    """A group of coupled channels; see `Unit`.

    The masks are those of the Euclidean projection of all weights that write the channels, taken as
    one vector a channel; or, with ``scored`` less than these, of what is scored.

    Attributes
    ----------
    name : str
        The first layer that writes the channels.
    sparsity : float
        Fraction of channels to remove.
    group : ChannelGroup
    scored : tuple of Slices
        Whose norms rank the channels.
    round_to : int
        The number of channels kept is a multiple of it, rounded up.
    """

    name: str
    sparsity: float
    group: ChannelGroup
    scored: tuple[Slices, ...]
    round_to: int

    @property
    def least_sparsity(self) -> float:
        """Nothing need be removed."""
        return 0.0

    @property
    def parameters(self) -> tuple[str, ...]:
        """All that write the channels: weights, biases, affine terms of batch normalisation."""
        return tuple(dict.fromkeys(part.tensor for part in self._written()))

    def masks(self, tensors: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        """See `Unit.masks`; at least one channel is kept."""
        keep = max(1, round(self.group.size * (1 - sparsity)))
        keep = min(self.group.size, -(-keep // self.round_to) * self.round_to)
        kept = kernels.topk_mask(self.group.square_norms(tensors, self.scored), keep)
        masks = {name: torch.ones_like(tensors[name], dtype=torch.bool) for name in self.parameters}
        for part in self._written():
            mask = masks[part.tensor]
            removed = part.entries[~kept[part.channels.to(kept.device)].cpu()]
            mask.index_fill_(part.dim, removed.to(mask.device), value=False)
        return masks

    def _written(self) -> tuple[Slices, ...]:
        return tuple(part for part in self.group.slices if part.writes)


def build_units(
    model: nn.Module,
    sparsity: float | Mapping[str, float],
    *,
    structure: str,
    ignored_layers: Sequence[str],
    example_inputs: ExampleInputs | None = None,
    round_to: int = 1,
    num_heads: Mapping[str, int] | None = None,
) -> list[Unit]:
    """Return the units of a model; the arguments are those of `slr_prune.Pruner`."""
    targets = layer_targets(model, sparsity, ignored_layers)
    if example_inputs is None:
        if structure == "bn-filter":
            raise SettingError(
                "structure 'bn-filter' without example_inputs",
                "what one call of the model takes, to find the batch normalisation after each layer",
                "Pass example_inputs.",
            )
        if round_to != 1 or num_heads:
            raise SettingError(
                "round_to or num_heads without example_inputs",
                "them only for coupled channels",
                "Pass example_inputs, what one call of the model takes.",
            )
        projection = get_structure(structure)
        for name in targets:
            _check_parameter(model, name)
        least = least_sparsity(structure)
        return [LayerUnit(name, value, projection, least) for name, value in targets.items()]
    if structure not in COUPLED:
        get_structure(structure)
        raise SettingError(
            f"structure {structure!r} with example_inputs",
            f"one of {', '.join(COUPLED)}, whose channels are coupled from layer to layer",
            "Leave example_inputs out, or choose 'filter', which removes whole channels.",
        )
    if round_to < 1:
        raise SettingError(f"round_to is {round_to}", "a whole number from 1 on", "Leave it out, or try 8.")
    heads = {
        name: number
        for pattern, number in (num_heads or {}).items()
        for name in match_layers(pattern, prunable_layers(model))
    }
    groups = channel_groups(model, example_inputs, prunable_layers(model), heads)
    units = list(_group_units(model, groups, targets, ignored_layers, structure, round_to))
    missing = set(_named(sparsity)) - {layer for unit in units for layer in unit.group.layers}
    if missing or not units:
        named = ", ".join(repr(name) for name in sorted(missing)) or "the model"
        normed = " and are followed by batch normalisation" if structure == "bn-filter" else ""
        raise SettingError(
            f"no channels in {named} that structure {structure!r} can remove",
            f"layers whose output channels are read by other layers{normed}",
            "Leave out the model's outputs, and what is added to or normalised with channels that must stay.",
        )
    return [*units]


def _group_units(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    targets: Mapping[str, float],
    ignored_layers: Sequence[str],
    structure: str,
    round_to: int,
) -> Iterator[GroupUnit]:
    ignored = {name for pattern in ignored_layers for name in match_layers(pattern, prunable_layers(model))}
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    seen: Counter[str] = Counter()
    for group in groups:
        values = {layer: targets[layer] for layer in group.layers if layer in targets}
        scored = tuple(
            part for part in group.slices if part.writes and (structure == "filter" or part.tensor in norms)
        )
        if not values or not scored or ignored & set(group.layers):
            continue
        if len(set(values.values())) > 1:
            raise SettingError(
                "coupled layers with several sparsities ("
                + ", ".join(f"{layer}: {value:g}" for layer, value in values.items())
                + ")",
                "one sparsity for layers whose outputs are added or share channels otherwise",
                "Give these layers one value, or name only one of them.",
            )
        first = group.layers[0]
        seen[first] += 1
        name = first if seen[first] == 1 else f"{first} #{seen[first]}"
        yield GroupUnit(name, next(iter(values.values())), group, scored, round_to)


def _named(sparsity: float | Mapping[str, float]) -> list[str]:
    """Return the layers that are named one by one, not by a pattern."""
    return (
        [] if not isinstance(sparsity, Mapping) else [name for name in sparsity if not set(name) & set("*?[")]
    )


def intersect(masks_of_units: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put the masks of several units together; a parameter that two of them cover keeps what both keep."""
    masks: dict[str, Tensor] = {}
    for unit in masks_of_units:
        for name, mask in unit.items():
            masks[name] = masks[name] & mask if name in masks else mask
    return masks


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
