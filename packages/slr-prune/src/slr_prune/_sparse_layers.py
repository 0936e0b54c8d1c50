"""Layers that keep only the weights pruning has left, and compute with no others.

Each stands in for an ``nn.Linear`` or convolution and computes what that layer computes with its
zeros, forward and backward; only weights at kept places get gradients, so training goes on under
the mask without one. What is kept depends on the pattern of zeros:

`SparseLinear`
    Single weights, in compressed sparse row form (CSR).
`BlockSparseLinear`
    Blocks that have a weight other than zero, in block sparse row form (BSR).
`GatheredLayer`
    The output rows and the input channels that have one: a smaller layer of the same kind, which
    reads some channels of the input and writes some of the output.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from typing import Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import SettingError
from tenfold.kernels import bsr_linear, csr_linear

Layer: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class SparseLayer(nn.Module):
    """Base of the layers that keep some entries of their weight.

    `weight` is the whole weight with its zeros, made anew at every access and differentiable: code
    that reads the weight of a layer instead of calling it gets the right one, though slowly.
    `bias` is that of the whole layer.
    """

    bias: nn.Parameter | None

    @property
    @abstractmethod
    def form(self) -> str:
        """Name of the format, as `sparsify` takes it."""

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The weight with its zeros, shape (out, in, ...)."""

    @property
    @abstractmethod
    def kept(self) -> Tensor:
        """The weights kept."""

    @abstractmethod
    def entries(self, weight: Tensor) -> Tensor:
        """Return the entries of a whole weight at the kept places, in the shape of `kept`."""

    @abstractmethod
    def to_dense(self) -> Layer:
        """Return a plain layer that computes the same."""

    def load_weight(self, weight: Tensor) -> None:
        """Take the kept weights from a whole weight, in place.

        Parameters
        ----------
        weight : Tensor
            Shape of `weight`.

        Raises
        ------
        SettingError
            It has another shape, or is not zero where the layer keeps nothing.
        """
        self.check_weight(weight)
        with torch.no_grad():
            self.kept.copy_(self.entries(weight))

    def check_weight(self, weight: Tensor) -> None:
        """Raise what `load_weight` would raise."""
        shape = self.weight.shape
        if weight.shape != shape:
            raise SettingError(
                f"a weight of shape {tuple(weight.shape)}",
                f"shape {tuple(shape)}",
                "Take that of this layer.",
            )
        if self.entries(weight).count_nonzero() != weight.count_nonzero():
            raise SettingError(
                "a weight that is not zero where this layer keeps nothing",
                "zeros wherever the layer has them",
                "Load it into the dense layer, then call sparsify.",
            )


class _CompressedRows(SparseLayer):
    """What CSR and BSR layers hold: where each row starts, the columns, and the values."""

    crow_indices: Tensor
    col_indices: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        crow_indices: Tensor,
        col_indices: Tensor,
        values: Tensor,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.register_buffer("crow_indices", crow_indices)
        self.register_buffer("col_indices", col_indices)
        self.values = _parameter(values)
        self.bias = None if bias is None else _parameter(bias)

    @property
    def kept(self) -> Tensor:
        """`values`."""
        return self.values


class SparseLinear(_CompressedRows):
    """Linear layer whose weight is a CSR matrix; computes with `tenfold.kernels.csr_linear`.

    float32 on the CPU and on CUDA devices is fast; other types go through the slow reference.

    Parameters
    ----------
    in_features, out_features : int
    crow_indices : Tensor, shape (out_features + 1,), int32
    col_indices : Tensor, shape (entries,), int32
    values : Tensor, shape (entries,)
    bias : Tensor, shape (out_features,), optional
    """

    @classmethod
    def from_dense(cls, layer: nn.Linear) -> Self:
        """Return a sparse layer with copies of the weights of `layer` that are not zero."""
        weight = layer.weight.detach()
        mask = weight != 0
        return cls(
            layer.in_features,
            layer.out_features,
            _starts(mask),
            mask.nonzero()[:, 1].int(),
            _like(weight[mask], layer.weight),
            _copy(layer.bias),
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Apply the layer to an input of shape (..., in_features)."""
        _check_width(input, self.in_features)
        return csr_linear(input, self.crow_indices, self.col_indices, self.values, self.bias)

    @property
    def form(self) -> str:
        """``"csr"``."""
        return "csr"

    @property
    def weight(self) -> Tensor:
        """The weight with its zeros, shape (out_features, in_features)."""
        whole = self.values.new_zeros(self.out_features * self.in_features)
        return whole.index_copy(0, self._places(), self.values).view(self.out_features, self.in_features)

    def entries(self, weight: Tensor) -> Tensor:
        """See `SparseLayer.entries`."""
        return weight.flatten()[self._places().to(weight.device)]

    def to_dense(self) -> nn.Linear:
        """Return an ``nn.Linear`` that computes the same."""
        return _linear(self.weight.detach(), self.values, self.bias)

    def extra_repr(self) -> str:
        """Describe the layer as torch prints modules."""
        return _describe(self.in_features, self.out_features, self.bias, f"entries={len(self.values)}")

    def _places(self) -> Tensor:
        return _rows(self.crow_indices) * self.in_features + self.col_indices


class BlockSparseLinear(_CompressedRows):
    """Linear layer whose weight is a BSR matrix; computes with `tenfold.kernels.bsr_linear`.

    Every weight of a kept block is kept, zeros included. Blocks need not divide the matrix: those
    at the right and bottom edge reach beyond it, with zeros that never change the output.
    Blocks of 16 x 16 suit every instruction set.

    Parameters
    ----------
    in_features, out_features : int
    crow_indices : Tensor, shape (block rows + 1,), int32
    col_indices : Tensor, shape (blocks,), int32
    values : Tensor, shape (blocks, height, width)
    bias : Tensor, shape (out_features,), optional
    """

    @classmethod
    def from_dense(cls, layer: nn.Linear, block: tuple[int, int] = (16, 16)) -> Self:
        """Return a sparse layer with copies of the blocks of `layer` that are not all zero.

        Parameters
        ----------
        layer : nn.Linear
        block : (int, int)
            Rows and columns of a block.
        """
        tiles = to_tiles(layer.weight.detach(), block)
        mask = (tiles != 0).flatten(2).any(2)
        return cls(
            layer.in_features,
            layer.out_features,
            _starts(mask),
            mask.nonzero()[:, 1].int(),
            _like(tiles[mask], layer.weight),
            _copy(layer.bias),
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Apply the layer to an input of shape (..., in_features)."""
        _check_width(input, self.in_features)
        _, height, width = self.values.shape
        if self.in_features % width:
            input = F.pad(input, (0, -self.in_features % width))  # noqa: A001
        if self.out_features % height == 0:
            return bsr_linear(input, self.crow_indices, self.col_indices, self.values, self.bias)
        output = bsr_linear(input, self.crow_indices, self.col_indices, self.values)
        output = output[..., : self.out_features]
        return output if self.bias is None else output + self.bias

    @property
    def form(self) -> str:
        """``"bsr:"`` with the size of the blocks."""
        _, height, width = self.values.shape
        return f"bsr:{height}x{width}"

    @property
    def weight(self) -> Tensor:
        """The weight with its zeros, shape (out_features, in_features)."""
        _, height, width = self.values.shape
        down, across = len(self.crow_indices) - 1, -(-self.in_features // width)
        tiles = self.values.new_zeros(down * across, height, width)
        tiles = tiles.index_copy(0, self._places(), self.values)
        matrix = (
            tiles.view(down, across, height, width).transpose(1, 2).reshape(down * height, across * width)
        )
        return matrix[: self.out_features, : self.in_features]

    def entries(self, weight: Tensor) -> Tensor:
        """See `SparseLayer.entries`."""
        _, height, width = self.values.shape
        return to_tiles(weight, (height, width)).flatten(0, 1)[self._places().to(weight.device)]

    def to_dense(self) -> nn.Linear:
        """Return an ``nn.Linear`` that computes the same."""
        return _linear(self.weight.detach().contiguous(), self.values, self.bias)

    def extra_repr(self) -> str:
        """Describe the layer as torch prints modules."""
        blocks, height, width = self.values.shape
        return _describe(
            self.in_features, self.out_features, self.bias, f"blocks={blocks}, block={height}x{width}"
        )

    def _places(self) -> Tensor:
        across = -(-self.in_features // self.values.shape[2])
        return _rows(self.crow_indices) * across + self.col_indices


class GatheredLayer(SparseLayer):
    """Linear layer or convolution of which whole output rows and input channels are removed.

    The input's kept channels are gathered, `inner` runs on them, and its output is scattered over
    zeros. Removed rows give their bias, as they do with a weight of zeros. Runs wherever its
    inner layer does: any type and device, ``torch.export``, ``torch.compile``.

    Parameters
    ----------
    inner : nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d
        What is left, without bias.
    in_channels, out_channels : int
        Sizes before removal.
    channels : Tensor, shape (kept in,), int64, optional
        Input channels that `inner` reads. None: all.
    rows : Tensor, shape (kept out,), int64, optional
        Output rows that `inner` writes. None: all.
    bias : Tensor, shape (out_channels,), optional
    """

    channels: Tensor | None
    rows: Tensor | None

    def __init__(
        self,
        inner: Layer,
        in_channels: int,
        out_channels: int,
        channels: Tensor | None = None,
        rows: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.register_buffer("channels", channels)
        self.register_buffer("rows", rows)
        self.bias = None if bias is None else _parameter(bias)

    @classmethod
    def from_dense(cls, layer: Layer) -> Self:
        """Return a layer without the rows and input channels of `layer` that are all zero.

        Of a layer that is zero altogether, one row and one channel stay.

        Raises
        ------
        SettingError
            `layer` is a grouped convolution.
        """
        if getattr(layer, "groups", 1) != 1:
            raise SettingError(
                f"a convolution in {layer.groups} groups",
                "one group: a removed channel leaves groups of different sizes",
                "Leave the layer dense.",
            )
        weight = layer.weight.detach()
        rows, channels = kept_slices(weight)
        out_channels, in_channels = weight.shape[:2]
        return cls(
            _resized(layer, weight[rows][:, channels], None),
            in_channels,
            out_channels,
            None if len(channels) == in_channels else channels,
            None if len(rows) == out_channels else rows,
            _copy(layer.bias),
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Apply the layer to an input of the shapes that the whole layer takes."""
        spatial = self.inner.weight.dim() - 2
        dim = -1 - spatial
        if self.channels is not None:
            if input.dim() < -dim or input.shape[dim] != self.in_channels:
                raise _wrong_width(input, f"{self.in_channels} in dimension {dim}")
            input = input.index_select(dim, self.channels)  # noqa: A001
        output: Tensor = self.inner(input)
        bias = None if self.bias is None else self.bias.to(output.dtype).view(-1, *[1] * spatial)
        if self.rows is None:
            return output if bias is None else output + bias
        shape = [*output.shape]
        shape[dim] = self.out_channels
        removed = output.new_zeros(shape) if bias is None else bias.expand(shape)
        return removed.index_add(dim, self.rows, output)

    @property
    def form(self) -> str:
        """``"gathered"``."""
        return "gathered"

    @property
    def weight(self) -> Tensor:
        """The weight with its zeros, shape (out_channels, in_channels, ...)."""
        weight: Tensor = self.inner.weight
        if self.channels is not None:
            shape = (len(weight), self.in_channels, *weight.shape[2:])
            weight = weight.new_zeros(shape).index_copy(1, self.channels, weight)
        if self.rows is not None:
            shape = (self.out_channels, *weight.shape[1:])
            weight = weight.new_zeros(shape).index_copy(0, self.rows, weight)
        return weight

    @property
    def kept(self) -> Tensor:
        """Weight of `inner`."""
        return self.inner.weight

    def entries(self, weight: Tensor) -> Tensor:
        """See `SparseLayer.entries`."""
        if self.rows is not None:
            weight = weight[self.rows.to(weight.device)]
        return weight if self.channels is None else weight[:, self.channels.to(weight.device)]

    def to_dense(self) -> Layer:
        """Return a layer of the inner one's kind that computes the same."""
        return _resized(self.inner, self.weight.detach(), self.bias)

    def extra_repr(self) -> str:
        """Describe the layer as torch prints modules."""
        return f"in_channels={self.in_channels}, out_channels={self.out_channels}"


def kept_slices(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of the rows and of the input channels that are not all zero, one at least.

    Parameters
    ----------
    weight : Tensor, shape (out, in, ...)

    Returns
    -------
    rows, channels : Tensor, int64
    """
    kept = (weight != 0).flatten(2).any(2) if weight.dim() > 2 else weight != 0
    rows, channels = (kept.any(dim).nonzero().flatten() for dim in (1, 0))
    return (rows, channels) if len(rows) else (rows.new_zeros(1), channels.new_zeros(1))


def to_tiles(matrix: Tensor, block: tuple[int, int]) -> Tensor:
    """Cut a matrix into blocks, padding it with zeros where they do not divide it.

    Returns
    -------
    Tensor, shape (block rows, block columns, height, width)
    """
    height, width = block
    rows, columns = matrix.shape
    padded: Tensor = F.pad(matrix, (0, -columns % width, 0, -rows % height))
    down, across = padded.shape[0] // height, padded.shape[1] // width
    return padded.view(down, height, across, width).transpose(1, 2)


def _starts(mask: Tensor) -> Tensor:
    """Compressed row indices of the True entries of a mask."""
    return F.pad(mask.sum(1).cumsum(0), (1, 0)).int()


def _rows(crow_indices: Tensor) -> Tensor:
    rows = torch.arange(len(crow_indices) - 1, device=crow_indices.device)
    return rows.repeat_interleave(crow_indices.diff())


def _parameter(tensor: Tensor) -> nn.Parameter:
    if isinstance(tensor, nn.Parameter):
        return tensor
    return nn.Parameter(tensor)


def _like(tensor: Tensor, parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=parameter.requires_grad)


def _copy(bias: Tensor | None) -> nn.Parameter | None:
    return None if bias is None else _like(bias.detach().clone(), bias)


def _linear(weight: Tensor, kept: nn.Parameter, bias: Tensor | None) -> nn.Linear:
    out_features, in_features = weight.shape
    layer = nn.Linear(in_features, out_features, bias is not None, device="meta", dtype=weight.dtype)
    layer.weight = _like(weight, kept)
    layer.register_parameter("bias", _copy(bias))
    return layer


def _resized(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    """Return a copy of a layer with another weight and bias."""
    copy = deepcopy(layer)
    if isinstance(copy, nn.Linear):
        copy.out_features, copy.in_features = weight.shape
    else:
        copy.out_channels, copy.in_channels = weight.shape[:2]
    copy.weight = _like(weight, layer.weight)
    copy.register_parameter("bias", _copy(bias))
    return copy


def _check_width(input: Tensor, width: int) -> None:  # noqa: A002
    if not input.dim() or input.shape[-1] != width:
        raise _wrong_width(input, f"shape (..., {width})")


def _wrong_width(input: Tensor, expected: str) -> SettingError:  # noqa: A002
    return SettingError(
        f"an input of shape {tuple(input.shape)}", expected, "Pass what the dense layer would take."
    )


def _describe(in_features: int, out_features: int, bias: Tensor | None, kept: str) -> str:
    return f"in_features={in_features}, out_features={out_features}, {kept}, bias={bias is not None}"
