"""Models that are really smaller: channels whose weights are all zero are cut out of every layer.

What the masked model computes is unchanged: a channel goes only where the zeros reach whatever reads
it (see `slr_prune._trace`), and the smaller model is held against the masked one on the example
inputs before it is returned.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slr_prune._coupling import ChannelGroup, channel_groups
from slr_prune._example import (
    DeviationError,
    ExampleInputs,
    relative_deviation,
    run_model,
    tensors_of,
    tolerance,
)
from slr_prune._sparsify import sparsify
from slr_prune._units import prunable_layers
from tenfold import SettingError

# Attributes by which attention modules of torch, torchvision and transformers know their size.
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_WIDTHS = ("all_head_size", "inner_dim")


def compact(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    format: str | Mapping[str, str] = "auto",  # noqa: A002
    ignored_layers: Sequence[str] = (),
) -> nn.Module:
    """Return a copy of a pruned model that spends neither memory nor time on its zeros.

    First `remove_channels`, then `sparsify` of what still has zeros.

    Parameters
    ----------
    model : nn.Module
        Hard-pruned, with any structure; left as it is.
    example_inputs : Tensor, sequence or mapping
        What one call of the model takes: a tensor, positional or keyword arguments.
    format, ignored_layers
        As in `sparsify`.

    Returns
    -------
    nn.Module

    Raises
    ------
    SettingError, DeviationError, UnknownNameError
        As in `remove_channels` and `sparsify`.
    """
    return sparsify(
        remove_channels(model, example_inputs), example_inputs, format=format, ignored_layers=ignored_layers
    )


def remove_channels(model: nn.Module, example_inputs: ExampleInputs) -> nn.Module:
    """Return a copy of a model without the channels whose weights are all zero.

    Parameters
    ----------
    model : nn.Module
        Hard-pruned with coupled channels (`Pruner` with `example_inputs`); left as it is. Channels
        that are zero for other reasons go as well. One channel is kept of a group that is zero
        altogether.
    example_inputs : Tensor, sequence or mapping
        What one call of the model takes: a tensor, positional or keyword arguments.

    Returns
    -------
    nn.Module
        Of the same classes, in the same mode, with the sizes of layers changed.

    Raises
    ------
    SettingError
        The model does not run on `example_inputs`, or the smaller one does not, as when a module
        keeps sizes of its own.
    DeviationError
        The smaller one gives other outputs.
    """
    expected = tensors_of(run_model(model, example_inputs))
    smaller = copy.deepcopy(model)
    tensors = {**dict(smaller.named_parameters()), **dict(smaller.named_buffers())}
    kept: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for group in channel_groups(smaller, example_inputs, prunable_layers(smaller), {}):
        alive = group.square_norms(tensors, (part for part in group.slices if part.writes)) > 0
        if not alive.any():
            alive[0] = True
        if alive.all():
            continue
        for part in group.slices:
            size = tensors[part.tensor].shape[part.dim]
            mask = kept[part.tensor].setdefault(part.dim, torch.ones(size, dtype=torch.bool))
            mask[part.entries] &= alive.cpu()[part.channels]
        _shrink_heads(smaller, group, int(alive.sum()))
    _cut(smaller, tensors, kept)
    _check(smaller, example_inputs, expected)
    return smaller


def _cut(model: nn.Module, tensors: Mapping[str, Tensor], kept: Mapping[str, Mapping[int, Tensor]]) -> None:
    replaced = {}
    for name, masks in kept.items():
        tensor = tensors[name].detach()
        for dim, mask in masks.items():
            tensor = tensor.index_select(dim, mask.nonzero().flatten().to(tensor.device))
        if isinstance(tensors[name], nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=tensors[name].requires_grad)
        replaced[id(tensors[name])] = tensor
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if id(tensor) in replaced:
                setattr(module, name, replaced[id(tensor)])
        resize(module)


def resize(module: nn.Module) -> None:
    """Make the sizes that a layer declares those of its weight."""
    if isinstance(module, _ConvNd):
        rows, columns = module.weight.shape[:2]
        if module.groups == 1:
            module.out_channels, module.in_channels = (
                (columns, rows) if module.transposed else (rows, columns)
            )
        elif module.groups == module.in_channels:
            multiplier = module.out_channels // module.groups
            module.out_channels, module.in_channels = rows, rows // multiplier
            module.groups = module.in_channels
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, _BatchNorm) and module.affine:
        module.num_features = len(module.weight)


def _shrink_heads(model: nn.Module, group: ChannelGroup, kept: int) -> None:
    """Change what attention modules know of their heads, when heads are the channels."""
    for layer in group.layers:
        rows = next(part for part in group.slices if part.tensor == f"{layer}.weight" and part.writes)
        parent: Any = model.get_submodule(layer.rpartition(".")[0])
        if len(rows.entries) == group.size:
            continue
        for names, old, new in (
            (HEADS, group.size, kept),
            (_WIDTHS, len(rows.entries), len(rows.entries) // group.size * kept),
        ):
            for name in names:
                if getattr(parent, name, None) == old:
                    setattr(parent, name, new)


def _check(model: nn.Module, example_inputs: ExampleInputs, expected: Mapping[str, Tensor]) -> None:
    try:
        outputs = tensors_of(run_model(model, example_inputs))
    except SettingError as error:
        raise SettingError(
            f"a {type(model).__name__} that does not run without its zero channels ({error.came})",
            "modules that take their sizes from their weights and inputs",
            "Leave the layers of the module that fails out of pruning with ignored_layers.",
        ) from error
    off = relative_deviation(outputs, expected)
    if not off <= tolerance(expected):
        raise DeviationError(
            f"outputs that are off by {off:.1e} of the largest value without the zero channels",
            f"less than {tolerance(expected):.0e}",
            "Leave layers whose channels are mixed in other ways out of pruning with ignored_layers.",
        )
