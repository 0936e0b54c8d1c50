"""Orthogonal projections of a weight's gradient: the filter of Spectral-DP.

The paper filters the spectrum of a gradient. Done correctly that is an orthogonal projection P of the
real gradient: P P = P, P' = P, real in and real out. Here a projection is given by orthonormal real
vectors along each axis of a fibre (the input pixels of a neuron, the kernel of a channel, a block's
first column), stacked as the rows of B:

    P x = B' B x      along every axis in turn.

For the Fourier low-pass these rows are the cosines and sines of the kept frequencies, always in pairs,
so that the mask is symmetric, m(f) = m(-f). No complex number appears, hence no Hermitian bookkeeping.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, Self, TypeVar, get_args

import torch
from torch import Tensor

from tenfold import SettingError, UnknownNameError

Provenance = Literal["fixed", "public", "charged"]
Bound = TypeVar("Bound", bound="Projection")
SMALL = 64
"""Entries of a fibre up to which one product with the basis of all its axes is faster than one an axis."""


class Projection(ABC):
    """An orthogonal projection of the trailing axes of real tensors."""

    @property
    @abstractmethod
    def axes(self) -> tuple[int, ...] | None:
        """The lengths of the axes of a fibre; None until `bind` has set them."""

    @abstractmethod
    def bases(self) -> Sequence[Tensor]:
        """Return the orthonormal rows along each axis, each of shape (kept, length) in float64."""

    @abstractmethod
    def bind(self, *fibres: tuple[int, ...]) -> Projection:
        """Return this projection for a layer, given the shapes that its fibres may take.

        Parameters
        ----------
        *fibres : tuple of int
            Trailing axes of the layer's weight that may be filtered together; the first is the default.

        Raises
        ------
        SettingError
            The projection is of another size than each of `fibres`.
        """

    @property
    def size(self) -> int:
        """Entries of a fibre."""
        return math.prod(_bound(self))

    @property
    def rank(self) -> int:
        """Dimensions of a fibre that are kept."""
        return math.prod(len(basis) for basis in self.bases())

    def __call__(self, x: Tensor) -> Tensor:
        """Project every fibre of `x`.

        Parameters
        ----------
        x : Tensor
            Real, of shape ``(..., *fibre)`` with `size` entries in a fibre, in any folding.

        Returns
        -------
        Tensor
            Of the shape and type of `x`.
        """
        return self.expand(self.coefficients(x), x.shape)

    def expand(self, coefficients: Tensor, shape: Sequence[int]) -> Tensor:
        """Return B' c: the tensor of fibres whose `coefficients` these are.

        Parameters
        ----------
        coefficients : Tensor
            Shape ``(fibres, kept along axis 1, kept along axis 2, ...)``, or of as many entries.
        shape : sequence of int
            Of the result.
        """
        fibres, bases = math.prod(shape) // self.size, self._bases_like(coefficients)
        if self.size <= SMALL:
            return (coefficients.reshape(fibres, self.rank) @ _joint(bases)).reshape(tuple(shape))
        coefficients = coefficients.reshape(fibres, *(len(basis) for basis in bases))
        for axis, basis in enumerate(bases, 1):
            coefficients = _along(coefficients, basis.T, axis)
        return coefficients.reshape(tuple(shape))

    def diagonal(self, weight: Tensor) -> Tensor:
        """Return the diagonal of the projection: the share of white noise that each entry keeps.

        Parameters
        ----------
        weight : Tensor
            Made of fibres, as for a call.

        Returns
        -------
        Tensor
            In [0, 1], of the shape and type of `weight`.
        """
        shares = torch.ones(1, dtype=torch.float64)
        for basis in self.bases():
            shares = torch.outer(shares, basis.square().sum(0)).flatten()
        return shares.to(weight).repeat(weight.numel() // len(shares)).view_as(weight)

    def coefficients(self, x: Tensor) -> Tensor:
        """Return B x for every fibre of `x`: an isometry of the projection's range.

        Returns
        -------
        Tensor
            Shape ``(fibres, kept along axis 1, kept along axis 2, ...)``.

        Raises
        ------
        SettingError
            `x` is complex, or not made of fibres.
        """
        axes = _bound(self)
        if x.is_complex():
            raise SettingError("a complex tensor", "a real one", "Filter real gradients.")
        size = math.prod(axes)
        if size not in {math.prod(x.shape[-n:]) for n in range(1, x.ndim + 1)}:
            raise SettingError(
                f"a tensor of shape {tuple(x.shape)}",
                f"trailing axes of {size} entries",
                "Bind the projection to the layer that it filters.",
            )
        fibres, bases = x.numel() // size, self._bases_like(x)
        if size <= SMALL:
            joined = x.reshape(fibres, size) @ _joint(bases).T
            return joined.view(fibres, *(len(basis) for basis in bases))
        folded = x.reshape(fibres, *axes)
        for axis, basis in enumerate(bases, 1):
            folded = _along(folded, basis, axis)
        return folded

    def _bases_like(self, x: Tensor) -> Sequence[Tensor]:
        """Return the bases in the type and on the device of `x`."""
        key = (x.dtype, x.device)
        if key not in self._converted:
            self._converted[key] = [basis.to(x) for basis in self.bases()]
        return self._converted[key]

    @cached_property
    def _converted(self) -> dict[tuple[torch.dtype, torch.device], Sequence[Tensor]]:
        return {}


@dataclass(frozen=True)
class _LowPass(Projection):
    ratio: float
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise SettingError(
                f"ratio is {self.ratio}", "a number above 0 and at most 1", "Write 0.5 to keep half."
            )
        if self.shape is not None and (not self.shape or min(self.shape) < 1):
            raise SettingError(
                f"shape is {self.shape}", "at least one axis, none of them empty", "Write (28, 28), say."
            )

    @property
    def axes(self) -> tuple[int, ...] | None:
        return self.shape

    def bind(self, *fibres: tuple[int, ...]) -> Self:
        if self.shape is None:
            return dataclasses.replace(self, shape=fibres[0])
        return _checked(self, fibres)


@dataclass(frozen=True)
class FFTLowPass(_LowPass):
    """Keep the frequencies up to a part of the Nyquist frequency, along every axis.

    Parameters
    ----------
    ratio : float
        In (0, 1]: a frequency of f cycles a sample is kept when ``|f| <= ratio / 2``.
    shape : tuple of int, optional
        How a fibre folds out, ``(28, 28)`` for a linear layer that sees such images. By default
        the layer's own: all inputs of a linear layer in a row, the kernel of a convolution, the
        block of a block-circulant layer.

    Raises
    ------
    SettingError
        `ratio` is outside (0, 1], or an axis of `shape` is empty.
    """

    def bases(self) -> Sequence[Tensor]:
        """Return the cosines and sines of the kept frequencies along each axis."""
        return [_fourier(length, self.ratio) for length in _bound(self)]


@dataclass(frozen=True)
class DCTLowPass(_LowPass):
    """Keep the first coefficients of the discrete cosine transform (DCT-II), along every axis.

    Unlike `FFTLowPass` it does not take the ends of an axis for neighbours.

    Parameters
    ----------
    ratio : float
        In (0, 1]: of n coefficients the first ``ceil(ratio n)`` are kept.
    shape : tuple of int, optional
        As for `FFTLowPass`.

    Raises
    ------
    SettingError
        `ratio` is outside (0, 1], or an axis of `shape` is empty.
    """

    def bases(self) -> Sequence[Tensor]:
        """Return the kept cosines along each axis."""
        return [_cosine(length, self.ratio) for length in _bound(self)]


@dataclass(frozen=True, eq=False)
class PublicSubspace(Projection):
    """Keep the span of given orthonormal vectors.

    Parameters
    ----------
    basis : Tensor
        Shape (kept, size), real, with orthonormal rows.
    provenance : {"fixed", "public", "charged"}
        Where the vectors come from: chosen beforehand, computed from public data, or computed from
        private data by a mechanism that the accountant was charged for. There is no default: a
        filter computed from private data and not charged for voids the guarantee.

    Raises
    ------
    SettingError
        `basis` is not a matrix of orthonormal real rows.
    UnknownNameError
        `provenance` is none of the three.
    """

    basis: Tensor
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.provenance not in get_args(Provenance):
            raise UnknownNameError("provenance", str(self.provenance), get_args(Provenance))
        basis = self.basis
        if basis.ndim != 2 or not 1 <= len(basis) <= basis.shape[1] or not basis.is_floating_point():
            raise SettingError(
                f"a basis of shape {tuple(basis.shape)} and type {basis.dtype}",
                "a real matrix with at most as many rows as columns",
                "Stack the vectors as rows.",
            )
        exact = basis.detach().double().cpu()
        error = float((exact @ exact.T - torch.eye(len(exact), dtype=torch.float64)).abs().max())
        # A row that is too long makes the noise too small; written so that NaN is refused as well.
        if not error < 1e-5:
            raise SettingError(
                f"rows whose products are off by {error:.1e}",
                "orthonormal rows",
                "Take the Q of torch.linalg.qr, transposed.",
            )
        # Float32 rows are orthonormal to 1e-7 only; their nearest orthonormal rows are exact in float64.
        left, _, right = torch.linalg.svd(exact, full_matrices=False)
        object.__setattr__(self, "basis", left @ right)

    @property
    def axes(self) -> tuple[int, ...]:
        """The length of a fibre."""
        return (self.basis.shape[1],)

    def bases(self) -> Sequence[Tensor]:
        """Return the basis."""
        return [self.basis]

    def bind(self, *fibres: tuple[int, ...]) -> PublicSubspace:
        """Return this subspace, once its size is checked."""
        return _checked(self, fibres)


def _bound(projection: Projection) -> tuple[int, ...]:
    if projection.axes is None:
        raise SettingError(
            "a projection without a shape", "the lengths of its axes", "Give shape=, or bind it to a layer."
        )
    return projection.axes


def _checked(projection: Bound, fibres: Sequence[tuple[int, ...]]) -> Bound:
    sizes = [math.prod(fibre) for fibre in fibres]
    if projection.size not in sizes:
        raise SettingError(
            f"a projection of shape {projection.axes}, {projection.size} entries",
            " or ".join(f"{size} entries" for size in dict.fromkeys(sizes)),
            "Declare the axes of the layer's input or kernel.",
        )
    return projection


def _joint(bases: Sequence[Tensor]) -> Tensor:
    """Return the basis of all axes together, of shape (kept, size)."""
    joint = bases[0]
    for basis in bases[1:]:
        joint = torch.kron(joint, basis)
    return joint


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if axis == x.ndim - 2:  # without copies
        return matrix @ x
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


@lru_cache(maxsize=256)
def _fourier(length: int, ratio: float) -> Tensor:
    angles = 2 * math.pi * torch.arange(length, dtype=torch.float64) / length
    rows = [torch.full((length,), length**-0.5, dtype=torch.float64)]
    # The slack keeps a frequency that equals the limit up to rounding, as 0.3 * 10 / 2.
    for frequency in range(1, math.floor(ratio * length / 2 + 1e-9) + 1):
        if 2 * frequency == length:
            rows.append(torch.cos(frequency * angles) * length**-0.5)
        else:
            scale = math.sqrt(2 / length)
            rows += [torch.cos(frequency * angles) * scale, torch.sin(frequency * angles) * scale]
    return torch.stack(rows)


@lru_cache(maxsize=256)
def _cosine(length: int, ratio: float) -> Tensor:
    frequencies = torch.arange(math.ceil(ratio * length - 1e-9), dtype=torch.float64)[:, None]
    positions = torch.arange(length, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi * frequencies * positions / length) * math.sqrt(2 / length)
    rows[0] = length**-0.5
    return rows
