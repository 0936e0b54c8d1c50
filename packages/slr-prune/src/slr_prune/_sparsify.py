"""Swap the layers of a pruned model for sparse ones, each in the format that suits its zeros.

Zeros save nothing by themselves. What a kept weight costs, next to one in a dense layer, depends
on how the kept ones lie (`COSTS`; ``slr-prune bench`` measures it): whole rows and channels leave a
smaller dense layer; blocks keep the vector units busy; single weights need most of the layer to
be zero before anything is gained, and in a convolution never gain. So a layer gets the format with
the least cost times kept fraction, and stays dense where that is not below 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from slr_prune._example import (
    DeviationError,
    ExampleInputs,
    relative_deviation,
    run_model,
    tensors_of,
    tolerance,
)
from slr_prune._sparse_layers import (
    BlockSparseLinear,
    GatheredLayer,
    Layer,
    SparseLayer,
    SparseLinear,
    kept_slices,
    to_tiles,
)
from slr_prune._units import PRUNABLE, match_layers
from tenfold import SettingError, UnknownNameError

COSTS = {"gathered": 1.5, "bsr": 2.5, "csr": 4.0}
"""Time of a kept weight by format, over its time in a dense layer; on the safe side of what we measured."""

SMALLEST = 65536
"""Weights of a linear layer below which the automatic choice is dense: starting a sparse product takes
about as long as this many weights at batch 1."""


@dataclass(frozen=True)
class LayerSparsity:
    """How one layer is stored and computed.

    Attributes
    ----------
    layer : str
        Name.
    format : str
        ``"dense"``, ``"csr"``, ``"bsr:16x16"``, ``"gathered"``.
    kept : float
        Share of the weights that are not zero.
    bytes : int
        Memory of the layer's parameters and indices.
    """

    layer: str
    format: str
    kept: float
    bytes: int


def sparsify(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    format: str | Mapping[str, str] = "auto",  # noqa: A002
    ignored_layers: Sequence[str] = (),
) -> nn.Module:
    """Return a copy of a pruned model that computes with its kept weights alone.

    Parameters
    ----------
    model : nn.Module
        Linear and convolution layers (of exactly these types) are looked at; the zeros in their
        weights are what is pruned.
    example_inputs : Tensor, sequence or mapping
        The one argument, the positional or the keyword arguments of a call. The model runs on
        them to see which layers are called, and the copy to see that it computes the same.
    format : str or mapping of str to str
        ``"auto"``: for each layer the fastest that its zeros allow; blocks are 16 x 16.
        ``"csr"``, ``"bsr"``, ``"bsr:ROWSxCOLUMNS"`` (linear layers), ``"gathered"`` (rows or input
        channels that are all zero): this one for every layer. Or one of these for each name or
        shell pattern; a later pattern overrides an earlier one, other layers stay dense.
    ignored_layers : sequence of str
        Names or patterns of layers to leave dense.

    Returns
    -------
    nn.Module
        See `describe_sparsity` for what was chosen. Optimizers must be made anew.

    Raises
    ------
    UnknownNameError
        There is no such format, or a pattern matches no layer.
    SettingError
        A layer cannot have the format asked for by name, or the model does not run on
        `example_inputs`. With ``"auto"`` such a layer stays dense: one that is never called
        because other code reads its weight (``nn.MultiheadAttention``, torchvision's Swin), shares
        a parameter, computes its weight, or has hooks.
    DeviationError
        The copy's output differs by more than 1e-4 of the largest value; the layer is named.
    """
    sparse = deepcopy(model)
    layers = {name: module for name, module in _outer_modules(sparse).items() if _is_plain(module)}
    formats = _formats(format, list(layers), ignored_layers)
    expected, called = _observe(sparse, example_inputs, layers)
    tied = _tied_parameters(sparse)
    replacements = {}
    for name, wanted in formats.items():
        layer = layers[name]
        obstacle = _obstacle(layer, name in called, tied)
        if wanted == "auto":
            wanted = "dense" if obstacle else choose_format(layer)
        elif obstacle:
            raise _refusal(name, wanted, obstacle)
        if wanted != "dense":
            replacements[name] = _convert(name, layer, wanted)
    sparse = _replace(sparse, {layers[name]: new for name, new in replacements.items()})
    error = _relative_error(sparse, example_inputs, expected)
    if error > tolerance(expected):
        names = ", ".join(_culprits(model, example_inputs, expected, replacements)) or "no layer alone"
        raise DeviationError(
            f"an output that is off by {error:.1e} of the largest value once layers are sparse ({names})",
            f"less than {tolerance(expected):.0e}",
            "Name these layers as ignored_layers.",
        )
    return sparse


def densify(model: nn.Module, *, gathered: bool = True) -> nn.Module:
    """Return a copy of a model with plain masked layers in place of sparse ones.

    Parameters
    ----------
    model : nn.Module
    gathered : bool
        Whether `GatheredLayer` counts as sparse; it consists of plain layers already.
    """
    copy = deepcopy(model)
    kinds = SparseLayer if gathered else (SparseLinear, BlockSparseLinear)
    layers = [module for module in copy.modules() if isinstance(module, kinds)]
    return _replace(copy, {layer: layer.to_dense() for layer in layers})


def describe_sparsity(model: nn.Module) -> list[LayerSparsity]:
    """List the linear, convolution and sparse layers of a model, in its order."""
    return [
        LayerSparsity(
            name,
            module.form if isinstance(module, SparseLayer) else "dense",
            module.weight.detach().count_nonzero().item() / max(module.weight.numel(), 1),
            sum(tensor.nbytes for tensor in module.state_dict().values()),
        )
        for name, module in _outer_modules(model).items()
        if isinstance(module, (*PRUNABLE, SparseLayer))
    ]


def choose_format(layer: Layer) -> str:
    """Return the format of least cost for a layer: ``"dense"`` when none costs less."""
    weight = layer.weight.detach()
    is_linear = isinstance(layer, nn.Linear)
    if (is_linear and weight.numel() < SMALLEST) or getattr(layer, "groups", 1) != 1:
        return "dense"
    rows, channels = kept_slices(weight)
    kept = {"gathered": len(rows) * len(channels) / (weight.shape[0] * weight.shape[1])}
    if is_linear and weight.dtype is torch.float32:
        tiles = to_tiles(weight, (16, 16))
        kept["bsr"] = (tiles != 0).flatten(2).any(2).sum().item() * 256 / weight.numel()
        kept["csr"] = weight.count_nonzero().item() / weight.numel()
    costs = {name: COSTS[name] * fraction for name, fraction in kept.items()}
    best = min(costs, key=costs.__getitem__)
    return best if costs[best] < 1 else "dense"


def _is_plain(module: nn.Module) -> TypeGuard[Layer]:
    return type(module) in PRUNABLE


def _outer_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by name, without those that sparse layers consist of."""
    inner = {module.inner for module in model.modules() if isinstance(module, GatheredLayer)}
    return {name: module for name, module in model.named_modules() if module not in inner}


def _formats(
    format: str | Mapping[str, str],  # noqa: A002
    layers: Sequence[str],
    ignored_layers: Sequence[str],
) -> dict[str, str]:
    formats: dict[str, str] = {}
    patterns = format if isinstance(format, Mapping) else {"*": format}
    for pattern, name in patterns.items():
        if name not in ("auto", "csr", "bsr", "gathered") and _block_of(name) is None:
            raise UnknownNameError("format", name, ["auto", "bsr", "bsr:16x16", "csr", "gathered"])
        matched = match_layers(pattern, layers) if isinstance(format, Mapping) else layers
        formats.update(dict.fromkeys(matched, name))
    ignored = {name for pattern in ignored_layers for name in match_layers(pattern, layers)}
    return {name: formats[name] for name in layers if name in formats and name not in ignored}


def _block_of(format: str) -> tuple[int, int] | None:  # noqa: A002
    if format == "bsr":
        return 16, 16
    match = re.fullmatch(r"bsr:([1-9]\d*)x([1-9]\d*)", format)
    return (int(match[1]), int(match[2])) if match else None


def _observe(
    model: nn.Module, example_inputs: ExampleInputs, layers: Mapping[str, nn.Module]
) -> tuple[dict[str, Tensor], set[str]]:
    """Run the model; return its output and the names of the layers that were called."""
    called: set[nn.Module] = set()
    # A hook on a layer would keep nn.TransformerEncoderLayer from the path that reads its weight instead.
    handle = register_module_forward_pre_hook(lambda module, _: called.add(module))
    try:
        output = _output(model, example_inputs)
    finally:
        handle.remove()
    return output, {name for name, layer in layers.items() if layer in called}


def _output(model: nn.Module, example_inputs: ExampleInputs) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tensors_of(run_model(model, example_inputs))


def _tied_parameters(model: nn.Module) -> set[nn.Parameter]:
    seen: set[nn.Parameter] = set()
    tied: set[nn.Parameter] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (tied if parameter in seen else seen).add(parameter)
    return tied


def _obstacle(layer: nn.Module, called: bool, tied: set[nn.Parameter]) -> str | None:
    """Why a layer must stay dense, as the end of "a layer ..."."""
    if not isinstance(layer._parameters.get("weight"), nn.Parameter):
        return "whose weight is computed, not a parameter"
    if not tied.isdisjoint(layer.parameters(recurse=False)):
        return "that shares a parameter with another layer"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        return "with hooks"
    if not called:
        return "that is never called: other code may read its weight"
    return None


def _convert(name: str, layer: Layer, format: str) -> SparseLayer:  # noqa: A002
    if format == "gathered":
        rows, channels = kept_slices(layer.weight.detach())
        if getattr(layer, "groups", 1) != 1:
            raise _refusal(name, format, "that is a grouped convolution")
        if (len(rows), len(channels)) == tuple(layer.weight.shape[:2]):
            raise _refusal(name, format, "without a row or an input channel that is all zero")
        return GatheredLayer.from_dense(layer)
    if not isinstance(layer, nn.Linear):
        raise _refusal(name, format, "that is a convolution")
    block = _block_of(format)
    return SparseLinear.from_dense(layer) if block is None else BlockSparseLinear.from_dense(layer, block)


def _refusal(name: str, format: str, obstacle: str) -> SettingError:  # noqa: A002
    return SettingError(
        f"format {format!r} for layer {name!r} {obstacle}",
        "a layer that can be computed in this format",
        'Name it as one of ignored_layers, or choose format="auto".',
    )


def _replace(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Swap modules of a model, wherever they are; the model itself may be one of them."""
    if model in replacements:
        return replacements[model]
    places = [place for place in model.named_modules(remove_duplicate=False) if place[1] in replacements]
    for name, module in places:
        new = replacements[module]
        new.train(module.training)
        model.set_submodule(name, new)
    return model


def _relative_error(model: nn.Module, example_inputs: ExampleInputs, expected: Mapping[str, Tensor]) -> float:
    try:
        return relative_deviation(_output(model, example_inputs), expected)
    except SettingError:
        return torch.inf


def _culprits(
    model: nn.Module,
    example_inputs: ExampleInputs,
    expected: Mapping[str, Tensor],
    replacements: Mapping[str, SparseLayer],
) -> list[str]:
    """Names of the layers that change the output when they alone are swapped."""
    copy = deepcopy(model)
    layers = {name: copy.get_submodule(name) for name in replacements}
    culprits = []
    for name, new in replacements.items():
        _replace(copy, {layers[name]: new})
        if _relative_error(copy, example_inputs, expected) > tolerance(expected):
            culprits.append(name)
        _replace(copy, {new: layers[name]})
    return culprits
