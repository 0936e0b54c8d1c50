"""Which channels of a model's tensors belong together, read off one run on example inputs.

Every entry along every dimension of a parameter or buffer is a *channel*. The model runs once on
example inputs, and each ATen operator it calls says which channels are the same: a convolution
reads those of its input and writes those of its filters, a sum makes those of its terms one, a
reshape to attention heads makes the rows of a head one. What an operator mixes, or what we do not
know, is pinned: it can never be removed. So is what the model takes in and gives out. Connected
components of "is the same" are what can be removed as one.

A channel may be removed only where the masked model, in which its weights are zero, computes the
same. So each dimension of an activation also knows whether it is zero where the channel's weights
are; a channel that reaches a matrix product while it is not (after a sigmoid, say) is pinned.

Why not a library: Torch-Pruning's dependency graph follows autograd nodes of modules. It has no notion
of the second condition (it offers channels under a LayerNorm, where removal changes the result),
took the rows of attention heads apart, and ran out of memory on Swin. ATen operators are few, and
the same for every model that runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from slr_prune._example import ExampleInputs, run_model
from slr_prune._operators import IGNORED, RULES, Axes, Axis, Ids
from tenfold import SettingError


@dataclass(frozen=True)
class Source:
    """One dimension of a parameter or buffer.

    Attributes
    ----------
    tensor : str
        Name of the parameter or buffer.
    dim : int
    ids : numpy.ndarray of int64
        Its channels, each occurring in no other source.
    """

    tensor: str
    dim: int
    ids: Ids


@dataclass(frozen=True)
class Trace:
    """What a run has shown.

    Attributes
    ----------
    sources : list of Source
    component : numpy.ndarray of int64
        By channel, the component it belongs to. That of channel 0 can never be removed.
    produced : numpy.ndarray of bool
        By channel, whether its weights must be zero for the channel to be: those that write it,
        not those that read it.
    """

    sources: list[Source]
    component: Ids
    produced: NDArray[np.bool_]


def trace(model: nn.Module, example_inputs: ExampleInputs, num_heads: Mapping[str, int]) -> Trace:
    """Run `model` in evaluation mode and return which channels belong together.

    Parameters
    ----------
    model : nn.Module
        Left as it was.
    example_inputs : Tensor, sequence or mapping
        A tensor, positional arguments, or keyword arguments; on the model's device.
    num_heads : mapping of str to int
        Attention heads of linear layers by name, where the run does not show them; the rows of a
        head are removed together.

    Raises
    ------
    SettingError
        The model does not run on `example_inputs`, or a number of heads does not divide a layer's
        rows.
    """
    tracer = Tracer(model)
    tracer.couple_heads(num_heads)
    with no_fused_attention(), tracer:
        outputs = run_model(model, example_inputs)
    for output in tree_leaves(outputs):
        if isinstance(output, Tensor):
            tracer.pin(*tracer.axes(output))
    return tracer.result()


@contextmanager
def no_fused_attention() -> Iterator[None]:
    """Let torch's transformer layers call ordinary operators."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


class Tracer(TorchDispatchMode):
    """Sees every operator that runs within its ``with`` block; see the top of this module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sources: list[Source] = []
        self._count = 1
        self._axes: Any = WeakIdKeyDictionary()
        self._weights: Any = WeakIdKeyDictionary()
        self._unused: Any = WeakIdKeyDictionary()
        self._edges: list[tuple[Ids, Ids]] = []
        self._read: list[Ids] = []
        self._produced: list[Ids] = []
        for name, parameter in model.named_parameters():
            self._register(name, parameter, zero=True)
        for name, buffer in model.named_buffers():
            self._register(name, buffer, zero=False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator, and pass the channels of its arguments on to its result."""
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removesuffix("_")
        tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        for tensor in tensors:
            self._unused.pop(tensor, None)
        known = [tensor for tensor in tensors if any(self.axes(tensor))]
        if not known or name in IGNORED:
            return output
        results = output if isinstance(output, list) else [output[0] if isinstance(output, tuple) else output]
        axes = RULES[name](self, results[0], *args, **(kwargs or {})) if name in RULES else None
        if axes is None:
            for tensor in known:
                self.pin(*self.axes(tensor))
            return output
        made_of_weights = all(self.is_weight(tensor) for tensor in tensors)
        for result in results:
            self._note(result, axes)
            if made_of_weights:
                self._weights[result] = True
        return output

    def axes(self, tensor: Tensor) -> Axes:
        """Return what is known of the dimensions of a tensor."""
        known: Axes | None = self._axes.get(tensor)
        return (None,) * tensor.dim() if known is None else known

    def is_weight(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is a parameter or buffer, or was made of nothing else."""
        return tensor in self._weights

    def same(self, one: Axis | None, other: Axis | None) -> None:
        """Make the channels of two dimensions one; pin them where the other has none."""
        if one is None or other is None:
            self.pin(one, other)
        else:
            self._edges.append((one.ids, other.ids))

    def pin(self, *axes: Axis | None) -> None:
        """Keep channels from ever being removed."""
        for axis in axes:
            if axis is not None:
                self._edges.append((axis.ids, np.zeros_like(axis.ids)))

    def contract(self, a: Tensor, inner: Axis | None, b: Tensor, other_inner: Axis | None) -> None:
        """Sum over channels, which may go where they are zero in an activation."""
        self.same(inner, other_inner)
        if inner is None or other_inner is None:
            return
        zero = False
        for tensor, axis in ((a, inner), (b, other_inner)):
            if self.is_weight(tensor):
                self._read.append(axis.ids)
            else:
                zero = zero or axis.zero
        if not zero:
            self.pin(inner)

    def produces(self, tensor: Tensor, axis: Axis | None) -> None:
        """Take note that a weight must be zero for its channels to be, even if it also reads them."""
        if axis is not None and self.is_weight(tensor):
            self._produced.append(axis.ids)

    def couple(self, rows: Ids) -> None:
        """Make the channels within each row of a matrix one."""
        first = np.repeat(rows[:, :1], rows.shape[1] - 1, axis=1)
        self._edges.append((rows[:, 1:].ravel(), first.ravel()))

    def couple_heads(self, num_heads: Mapping[str, int]) -> None:
        """Make the rows of each attention head of linear layers one; see `trace`."""
        rows = {source.tensor: source.ids for source in self.sources if source.dim == 0}
        for layer, heads in num_heads.items():
            ids = rows[f"{layer}.weight"]
            if heads < 1 or len(ids) % heads:
                raise SettingError(
                    f"num_heads {heads} for layer {layer!r}, which has {len(ids)} rows",
                    "a number of heads that divides the rows",
                    "Give the number of attention heads that the model was built with.",
                )
            self.couple(ids.reshape(heads, -1))

    def result(self) -> Trace:
        """Return what the run has shown; parameters that it did not use are pinned."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        for axes in self._unused.values():
            self.pin(*axes)
        none = np.zeros(0, np.int64)
        one, other = (np.concatenate([none, *(edge[at] for edge in self._edges)]) for at in (0, 1))
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(self._count, self._count))
        _, component = connected_components(graph, directed=False)
        produced = np.ones(self._count, np.bool_)
        produced[np.concatenate([none, *self._read])] = False
        produced[np.concatenate([none, *self._produced])] = True
        return Trace(self.sources, component.astype(np.int64), produced)

    def _register(self, name: str, tensor: Tensor, *, zero: bool) -> None:
        axes = []
        for dim, size in enumerate(tensor.shape):
            ids = np.arange(self._count, self._count + size)
            self._count += size
            self.sources.append(Source(name, dim, ids))
            axes.append(Axis(ids, zero))
        self._axes[tensor] = self._unused[tensor] = tuple(axes)
        self._weights[tensor] = True

    def _note(self, tensor: Tensor, axes: Axes) -> None:
        before = self.axes(tensor)
        for old, new, size in zip(before, axes, tensor.shape, strict=True):
            # Written in place through a view: what lies behind it does not know that it is not zero.
            spoilt = tensor._base is not None and old is not None and old.zero
            if new is not None and (len(new.ids) != size or (spoilt and not new.zero)):
                self.pin(new)
        self._axes[tensor] = tuple(
            axis if axis is not None and len(axis.ids) == size else None
            for axis, size in zip(axes, tensor.shape, strict=True)
        )
