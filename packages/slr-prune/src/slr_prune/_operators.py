"""What each ATen operator does to channels; see `slr_prune._trace`.

A rule takes the tracer, the operator's first output and its arguments. It tells the tracer which
channels are the same or pinned, and returns the axes of the first output. A rule that returns None,
like an operator without a rule, pins all that the operator was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from slr_prune._trace import Tracer

Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """The channels along one dimension of a tensor.

    Attributes
    ----------
    ids : numpy.ndarray of int64
        Channel of each entry; 0 for what can never be removed.
    zero : bool
        Whether the tensor is zero where the weights of the channel are.
    """

    ids: Ids
    zero: bool = True


Axes: TypeAlias = tuple[Axis | None, ...]
Rule: TypeAlias = Callable[..., Axes | None]

RULES: dict[str, Rule] = {}

IGNORED = {"new_zeros", "new_ones", "new_empty", "new_full"}
"""Operators that read no more of their arguments than the type."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of operators, their in-place variants included."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


@rule(
    *("abs", "alias", "clone", "_to_copy", "detach", "lift_fresh", "neg", "sign", "sqrt", "square"),
    *("celu", "elu", "gelu", "hardswish", "hardtanh", "leaky_relu", "mish", "relu", "relu6", "silu", "tanh"),
)
def keeps_zero(tracer: Tracer, output: Tensor, x: Tensor, *_: Any, **__: Any) -> Axes | None:
    """Elementwise, with f(0) = 0."""
    return tracer.axes(x)


@rule("pow")
def power(tracer: Tracer, output: Tensor, x: Any, exponent: Any) -> Axes | None:
    """Elementwise, by a number."""
    if not isinstance(exponent, int | float):
        return None
    return tracer.axes(x) if exponent > 0 else _not_zero(tracer.axes(x))


@rule("hardsigmoid", "sigmoid", "exp", "log", "cos", "softplus", "rsqrt", "reciprocal")
def loses_zero(tracer: Tracer, output: Tensor, x: Tensor, *_: Any, **__: Any) -> Axes | None:
    """Elementwise, with f(0) other than 0."""
    return _not_zero(tracer.axes(x))


@rule("masked_fill")
def masked_fill(tracer: Tracer, output: Tensor, x: Tensor, mask: Tensor, *_: Any) -> Axes | None:
    """Elementwise, writing a value of its own."""
    return None if any(tracer.axes(mask)) else _not_zero(tracer.axes(x))


@rule("_softmax", "_log_softmax")
def softmax(tracer: Tracer, output: Tensor, x: Tensor, dim: int, *_: Any) -> Axes | None:
    """Mix along one dimension."""
    return _not_zero(_pinned_at(tracer, tracer.axes(x), [dim]))


@rule("add", "sub", "maximum", "minimum")
def total(tracer: Tracer, output: Tensor, *terms: Any, **__: Any) -> Axes | None:
    """Elementwise, zero where both are."""
    return tuple(
        _together(tracer, present, all(axis.zero for _, axis in present) and len(present) == len(terms[:2]))
        for present in _aligned(tracer, output, terms[:2])
    )


@rule("mul")
def product(tracer: Tracer, output: Tensor, *factors: Any) -> Axes | None:
    """Elementwise, zero where either is."""
    return tuple(
        _together(tracer, present, any(axis.zero for _, axis in present))
        for present in _aligned(tracer, output, factors)
    )


@rule("div")
def quotient(tracer: Tracer, output: Tensor, x: Tensor, divisor: Any, **_: Any) -> Axes | None:
    """Elementwise, by what must not be zero."""
    return None if isinstance(divisor, Tensor) and any(tracer.axes(divisor)) else tracer.axes(x)


@rule("mm")
def mm(tracer: Tracer, output: Tensor, a: Tensor, b: Tensor) -> Axes | None:
    """(n, k) times (k, m)."""
    rows, inner = tracer.axes(a)
    other_inner, columns = tracer.axes(b)
    tracer.contract(a, inner, b, other_inner)
    return rows, columns


@rule("addmm")
def addmm(tracer: Tracer, output: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> Axes | None:
    """(n, k) times (k, m), plus a bias that may be broadcast."""
    return _plus_bias(tracer, output, mm(tracer, output, a, b), bias, dim=1)


@rule("linear")
def linear(
    tracer: Tracer, output: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Axes | None:
    """(..., in) times the transpose of (out, in), plus a bias."""
    rows, inner = tracer.axes(weight)
    tracer.contract(x, tracer.axes(x)[-1], weight, inner)
    return _plus_bias(tracer, output, (*tracer.axes(x)[:-1], rows), bias, dim=output.dim() - 1)


@rule("bmm")
def bmm(tracer: Tracer, output: Tensor, a: Tensor, b: Tensor) -> Axes | None:
    """(batch, n, k) times (batch, k, m)."""
    (batch, rows, inner), (other_batch, other_inner, columns) = tracer.axes(a), tracer.axes(b)
    tracer.contract(a, inner, b, other_inner)
    tracer.same(batch, other_batch)
    if batch is None or other_batch is None:
        return None, rows, columns
    return replace(batch, zero=batch.zero or other_batch.zero), rows, columns


@rule("convolution")
def convolution(
    tracer: Tracer,
    output: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Axes | None:
    """Dense, depthwise (with a multiplier or not) and transposed convolutions; others are pinned."""
    inputs, (rows, columns, *kernel) = tracer.axes(x)[1], tracer.axes(weight)
    tracer.pin(*kernel)
    if transposed:
        rows, columns = columns, rows
    if groups == 1:
        tracer.contract(x, inputs, weight, columns)
    elif not transposed and groups == x.shape[1] and rows is not None:
        multiplier = len(rows.ids) // groups
        tracer.same(None if inputs is None else replace(inputs, ids=inputs.ids.repeat(multiplier)), rows)
    else:
        return None
    axes = (None, rows, *[None] * (output.dim() - 2))
    return _plus_bias(tracer, output, axes, bias, dim=1)


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
def batch_norm(
    tracer: Tracer,
    output: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *statistics: Any,
) -> Axes | None:
    """Zero where gamma and beta are, whatever comes in: relu(beta - gamma mu / sigma) is not."""
    channels = tracer.axes(x)[1]
    for item in (weight, bias, *statistics[:2]):
        if isinstance(item, Tensor):
            tracer.same(channels, tracer.axes(item)[0])
    if channels is None:
        return (None,) * output.dim()
    channels = replace(channels, zero=weight is not None and bias is not None)
    return (None, channels, *[None] * (output.dim() - 2))


@rule("native_layer_norm")
def layer_norm(
    tracer: Tracer,
    output: Tensor,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    *_: Any,
) -> Axes | None:
    """Mix along the last dimensions: without a channel, mean and variance are others."""
    for item in (weight, bias):
        if item is not None:
            tracer.pin(*tracer.axes(item))
    return _not_zero(_pinned_at(tracer, tracer.axes(x), range(-len(shape), 0)))


@rule("embedding")
def embedding(tracer: Tracer, output: Tensor, weight: Tensor, indices: Tensor, *_: Any) -> Axes | None:
    """Look rows up."""
    entries, columns = tracer.axes(weight)
    tracer.pin(entries, *tracer.axes(indices))
    tracer.produces(weight, columns)
    return (*[None] * indices.dim(), columns)


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
def attention(
    tracer: Tracer, output: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any
) -> Axes | None:
    """Softmax attention of (batch, heads, length, features): whole heads can go."""
    heads = [tracer.axes(item)[1] for item in (q, k, v)]
    for item in (q, k, v):
        tracer.pin(*(axis for dim, axis in enumerate(tracer.axes(item)) if dim != 1))
    tracer.same(heads[0], heads[1])
    tracer.same(heads[0], heads[2])
    return None, heads[2], None, None


@rule("max_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices")
@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
@rule("adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d")
@rule("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
def spatial(tracer: Tracer, output: Tensor, x: Tensor, *_: Any, **__: Any) -> Axes | None:
    """Channel by channel, over the positions behind the first two dimensions."""
    return None if any(tracer.axes(x)[2:]) else tracer.axes(x)


@rule("constant_pad_nd")
def pad(tracer: Tracer, output: Tensor, x: Tensor, padding: Sequence[int], value: float = 0) -> Axes | None:
    """Pad the last dimensions."""
    axes = _pinned_at(tracer, tracer.axes(x), range(-(len(padding) // 2), 0))
    return axes if value == 0 else _not_zero(axes)


@rule("mean", "sum", "amax", "amin")
def reduce(
    tracer: Tracer, output: Tensor, x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any
) -> Axes | None:
    """Reduce over dimensions."""
    if dims is None:
        return None
    reduced = {dim % x.dim() for dim in ([dims] if isinstance(dims, int) else dims)}
    axes = _pinned_at(tracer, tracer.axes(x), reduced)
    return tuple(axis for dim, axis in enumerate(axes) if keepdim or dim not in reduced)


@rule("as_strided")
def restride(
    tracer: Tracer, output: Tensor, x: Tensor, size: Sequence[int], stride: Sequence[int], *_: Any
) -> Axes | None:
    """Declare memory anew, understood where pooling to one position does it for channels last."""
    plain = all(length == 1 for length in size[2:]) and list(stride[:2]) == [size[1], 1]
    return tracer.axes(x) if plain and output.shape == x.shape else None


@rule("roll")
def roll(tracer: Tracer, output: Tensor, x: Tensor, shifts: Any, dims: Any = ()) -> Axes | None:
    """Move along dimensions."""
    dims = [dims] if isinstance(dims, int) else dims
    return _pinned_at(tracer, tracer.axes(x), dims or range(x.dim()))


@rule("slice")
def take_slice(tracer: Tracer, output: Tensor, x: Tensor, dim: int = 0, *_: Any, **__: Any) -> Axes | None:
    """Positions are written into the program, so channels that are cut by them must stay."""
    axes = tracer.axes(x)
    return axes if output.shape == x.shape else _pinned_at(tracer, axes, [dim])


@rule("select")
def select(tracer: Tracer, output: Tensor, x: Tensor, dim: int, index: Any) -> Axes | None:
    """One position along a dimension."""
    axes = list(_pinned_at(tracer, tracer.axes(x), [dim]))
    del axes[dim]
    return tuple(axes)


@rule("split", "split_with_sizes", "chunk")
def split(tracer: Tracer, output: Tensor, x: Tensor, sizes: Any, dim: int = 0) -> Axes | None:
    """Pieces along a dimension; the tracer gives all of them these axes."""
    return _pinned_at(tracer, tracer.axes(x), [dim])


@rule("unbind")
def unbind(tracer: Tracer, output: Tensor, x: Tensor, dim: int = 0) -> Axes | None:
    """Every position along a dimension."""
    return select(tracer, output, x, dim, 0)


@rule("cat")
def cat(tracer: Tracer, output: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes | None:
    """One after the other; what has no channels of its own is pinned."""
    tensors = [tensor for tensor in tensors if tensor.dim() == output.dim()]
    axes: list[Axis | None] = []
    for at in range(output.dim()):
        pieces = [tracer.axes(tensor)[at] for tensor in tensors]
        if at == dim % output.dim() and any(pieces):
            ids = [
                np.zeros(tensor.shape[at], np.int64) if piece is None else piece.ids
                for tensor, piece in zip(tensors, pieces, strict=True)
            ]
            axes.append(Axis(np.concatenate(ids), all(piece.zero for piece in pieces if piece is not None)))
        else:
            for piece in pieces[1:]:
                tracer.same(pieces[0], piece)
            known = [piece for piece in pieces if piece is not None]
            whole = len(known) == len(pieces)
            axes.append(replace(known[0], zero=all(piece.zero for piece in known)) if whole else None)
    return tuple(axes)


@rule("t")
def t(tracer: Tracer, output: Tensor, x: Tensor) -> Axes | None:
    """Transpose a matrix."""
    return tracer.axes(x)[::-1]


@rule("transpose")
def transpose(tracer: Tracer, output: Tensor, x: Tensor, one: int, other: int) -> Axes | None:
    """Exchange two dimensions."""
    axes = list(tracer.axes(x))
    axes[one], axes[other] = axes[other], axes[one]
    return tuple(axes)


@rule("permute")
def permute(tracer: Tracer, output: Tensor, x: Tensor, dims: Sequence[int]) -> Axes | None:
    """Reorder the dimensions."""
    return tuple(tracer.axes(x)[dim] for dim in dims)


@rule("expand")
def expand(tracer: Tracer, output: Tensor, x: Tensor, *_: Any, **__: Any) -> Axes | None:
    """Repeat dimensions of size 1, and new ones in front."""
    axes = (None,) * (output.dim() - x.dim()) + tracer.axes(x)
    shape = (1,) * (output.dim() - x.dim()) + tuple(x.shape)
    grown = [dim for dim, size in enumerate(shape) if size != output.shape[dim]]
    return _pinned_at(tracer, axes, grown)


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten")
def view(tracer: Tracer, output: Tensor, x: Tensor, *_: Any, **__: Any) -> Axes | None:
    """Merge and split dimensions, each as few as possible at a time.

    Where a dimension with channels is split, they go to the one dimension along which they vary;
    else, as in the reshape to attention heads, those of each outer position become one.
    """
    if not x.numel():
        return None
    axes: list[Axis | None] = [None] * output.dim()
    for inputs, outputs in _chunks(tuple(x.shape), tuple(output.shape)):
        labelled = [dim for dim in inputs if tracer.axes(x)[dim] is not None]
        if len(labelled) > 1 or (labelled and not outputs):
            tracer.pin(*(tracer.axes(x)[dim] for dim in labelled))
        elif labelled:
            axis = tracer.axes(x)[labelled[0]]
            assert axis is not None
            shape = [x.shape[dim] if dim in labelled else 1 for dim in inputs]
            ids = np.broadcast_to(axis.ids.reshape(shape), [x.shape[dim] for dim in inputs])
            dim, ids = _varying(tracer, ids.reshape([output.shape[dim] for dim in outputs]))
            axes[outputs[dim]] = replace(axis, ids=ids)
    return tuple(axes)


def _varying(tracer: Tracer, ids: Ids) -> tuple[int, Ids]:
    """Return a dimension along which alone `ids` vary, and how; make it so when there is none."""
    for dim in range(ids.ndim):
        first = ids[tuple(slice(None) if at == dim else slice(0, 1) for at in range(ids.ndim))]
        if (ids == first).all() and ids.shape[dim] > 1:
            return dim, first.ravel()
    dim = next((at for at, size in enumerate(ids.shape) if size > 1), 0)
    rows = np.moveaxis(ids, dim, 0).reshape(ids.shape[dim], -1)
    tracer.couple(rows)
    return dim, rows[:, 0]


def _chunks(one: Sequence[int], other: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Split two shapes of like size into the shortest runs of dimensions of equal product."""
    i = j = 0
    while i < len(one) or j < len(other):
        inputs, outputs = ([i], [j]) if i < len(one) and j < len(other) else ([], [])
        inputs = inputs or list(range(i, len(one)))
        outputs = outputs or list(range(j, len(other)))
        i, j = i + len(inputs), j + len(outputs)
        left, right = math.prod(one[dim] for dim in inputs), math.prod(other[dim] for dim in outputs)
        while left != right:
            if left < right:
                inputs.append(i)
                left, i = left * one[i], i + 1
            else:
                outputs.append(j)
                right, j = right * other[j], j + 1
        yield inputs, outputs


def _aligned(tracer: Tracer, output: Tensor, terms: Sequence[Any]) -> Iterator[list[tuple[Tensor, Axis]]]:
    """Yield, for every dimension of `output`, the operands that have channels along it.

    Channels that meet a dimension without any are pinned and left out.
    """
    tensors = [term for term in terms if isinstance(term, Tensor)]
    for dim, size in enumerate(output.shape):
        full = []
        for tensor in tensors:
            at = dim - output.dim() + tensor.dim()
            if at >= 0 and tensor.shape[at] == size:
                full.append((tensor, tracer.axes(tensor)[at]))
        present = [(tensor, axis) for tensor, axis in full if axis is not None]
        if len(present) < len(full) or size == 1:
            tracer.pin(*(axis for _, axis in present))
            present = []
        yield present


def _together(tracer: Tracer, present: list[tuple[Tensor, Axis]], zero: bool) -> Axis | None:
    if not present:
        return None
    first = present[0][1]
    for tensor, axis in present:
        tracer.same(first, axis)
        tracer.produces(tensor, axis)
    return replace(first, zero=zero)


def _plus_bias(
    tracer: Tracer, output: Tensor, axes: Axes | None, bias: Tensor | None, dim: int
) -> Axes | None:
    """Add a vector along one dimension of a product."""
    if axes is None or bias is None:
        return axes
    axis, added = axes[dim], tracer.axes(bias)[-1]
    tracer.same(axis, added)
    tracer.pin(*tracer.axes(bias)[:-1])
    summed = list(_not_zero(axes))
    if axis is not None and added is not None:
        tracer.produces(bias, added)
        summed[dim] = replace(axis, zero=axis.zero and added.zero)
    return tuple(summed)


def _pinned_at(tracer: Tracer, axes: Axes, dims: Any) -> Axes:
    """Pin the channels of some dimensions."""
    where = {dim % len(axes) for dim in dims}
    tracer.pin(*(axes[dim] for dim in where))
    return tuple(None if dim in where else axis for dim, axis in enumerate(axes))


def _not_zero(axes: Axes) -> Axes:
    return tuple(None if axis is None else replace(axis, zero=False) for axis in axes)
