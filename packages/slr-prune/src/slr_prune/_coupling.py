"""Groups of coupled channels: what must be removed together for the model to stay whole.

A channel of a residual network is written by several convolutions and the batch normalisations
after them, and read by several more. In a group, channel i is an entry, or several, along one
dimension of each of these parameters. The channel is zero in the activations if it is zero in the
parameters that write it, biases and affine terms of batch normalisation included: a zero filter
followed by batch normalisation still gives relu(beta - gamma mu / sigma).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from slr_prune._example import ExampleInputs
from slr_prune._trace import Source, trace


@dataclass(frozen=True, eq=False)
class Slices:
    """Where a group's channels lie in one parameter or buffer.

    Attributes
    ----------
    tensor : str
        Its name.
    dim : int
    entries, channels : Tensor
        int64, of equal length: entry ``entries[j]`` along `dim` belongs to channel ``channels[j]``.
    writes : bool
        Whether these entries must be zero for the channel to be.
    """

    tensor: str
    dim: int
    entries: Tensor
    channels: Tensor
    writes: bool


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that lie in the same parameters.

    Attributes
    ----------
    size : int
        Number of channels.
    slices : tuple of Slices
    layers : tuple of str
        The linear and convolution layers that write the channels, in the model's order.
    """

    size: int
    slices: tuple[Slices, ...]
    layers: tuple[str, ...]

    def square_norms(self, tensors: Mapping[str, Tensor], slices: Iterable[Slices]) -> Tensor:
        """Return each channel's squared norm over `slices`, float64, shape (size,)."""
        total: Tensor | None = None
        for part in slices:
            tensor = tensors[part.tensor]
            squares = tensor.double().square().movedim(part.dim, 0).reshape(tensor.shape[part.dim], -1).sum(1)
            norms = squares.new_zeros(self.size).index_add_(
                0, part.channels.to(tensor.device), squares[part.entries.to(tensor.device)]
            )
            total = norms if total is None else total + norms.to(total.device)
        assert total is not None
        return total


def channel_groups(
    model: nn.Module,
    example_inputs: ExampleInputs,
    layers: Iterable[str],
    num_heads: Mapping[str, int],
) -> list[ChannelGroup]:
    """Return the groups of channels that can be removed from a model, in the model's order.

    Parameters
    ----------
    model : nn.Module
    example_inputs, num_heads
        See `slr_prune._trace.trace`.
    layers : iterable of str
        Names of the layers that count; a group that none of them writes is left out.

    Raises
    ------
    SettingError
        See `slr_prune._trace.trace`.
    """
    found = trace(model, example_inputs, num_heads)
    buffers = {name for name, _ in model.named_buffers()}
    writes = [found.produced[source.ids] & (source.tensor not in buffers) for source in found.sources]
    channels: dict[int, list[tuple[int, bool, int]]] = defaultdict(list)
    for number, source in enumerate(found.sources):
        components = found.component[source.ids]
        for entry in np.flatnonzero(components != found.component[0]):
            channels[int(components[entry])].append((number, bool(writes[number][entry]), int(entry)))
    alike = defaultdict(list)
    for places in channels.values():
        alike[tuple(sorted({(number, writing) for number, writing, _ in places}))].append(places)

    order = {f"{layer}.weight": layer for layer in layers}
    groups = []
    for where, members in alike.items():
        writers = {found.sources[number].tensor for number, writing in where if writing}
        written = tuple(layer for weight, layer in order.items() if weight in writers)
        if written and len(members) > 1:
            lying: dict[tuple[int, bool], list[tuple[int, int]]] = defaultdict(list)
            for channel, places in enumerate(members):
                for number, writing, position in places:
                    lying[number, writing].append((position, channel))
            slices = tuple(
                _slices(found.sources[number], writing, lying[number, writing]) for number, writing in where
            )
            groups.append(ChannelGroup(len(members), slices, written))
    ranks = {layer: rank for rank, layer in enumerate(order.values())}
    return sorted(groups, key=lambda group: ranks[group.layers[0]])


def _slices(source: Source, writes: bool, lying: list[tuple[int, int]]) -> Slices:
    entries, channels = torch.tensor(lying).T.contiguous()
    return Slices(source.tensor, source.dim, entries, channels, writes)
