"""Steps, projections and random starts in the norms that bound a perturbation, within the image range.

The paper's step is the solution of max <c, d> over |d|_inf <= eps and lo <= d <= hi, which has a closed
form. Here also, exact as well, for each sample by itself, with b_i the bound on the side of c_i
(hi_i where c_i > 0, -lo_i where c_i < 0):

    linf   |d_i| = min(b_i, eps)
    l2     |d_i| = min(b_i, t |c_i|), t such that |d|_2 = eps, or infinite where the box binds first
    l1     the budget eps is spent on the largest |c_i| first, b_i on each
    l0     |d_i| = b_i at the eps entries with the largest gain b_i |c_i|; entries, not pixels, are counted

and the Euclidean projections onto the same sets. Boxes hold 0: lo <= 0 <= hi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dgba._entries import rows
from tenfold import SettingError, UnknownNameError

NORMS = ("linf", "l2", "l1", "l0")


def steepest(gradient: Tensor, norm: str, eps: float | Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Return argmax of <gradient, d> over |d| <= eps and lo <= d <= hi, for each sample.

    Entries where the gradient is 0 stay 0.

    Parameters
    ----------
    gradient : Tensor
        Shape (n, ...).
    norm : str
        One of `NORMS`.
    eps : float or Tensor
        Bound on the norm: one, or one a sample, shape (n,). In "l0", a number of entries.
    lo, hi : Tensor
        Of the gradient's shape, lo <= 0 <= hi: in an attack, what the image range leaves of x, -x and 1 - x.

    Returns
    -------
    Tensor
        Of the gradient's shape and type; in the box exactly, and within eps to the rounding of the type.

    Raises
    ------
    SettingError
        `eps` is negative or NaN, shapes differ, or 0 is outside the box.
    UnknownNameError
        There is no such norm.
    """
    budget = _checked(norm, eps, gradient, lo, hi)
    if norm == "linf":
        return (_per_sample(budget, gradient) * gradient.sign()).clamp(lo, hi)
    room, sizes = _room(gradient, lo, hi), _rows(gradient).abs()
    if norm == "l2":
        lengths = torch.minimum(room, _scale(sizes, room, budget, most=math.inf) * sizes)
        lengths = torch.where(sizes > 0, lengths, 0)
    elif norm == "l1":
        lengths = _spend(sizes, room, budget)
    else:
        lengths = torch.where(_among_largest(sizes * room, budget), room, 0)
    return _signed(lengths, gradient, lo, hi)


def project(delta: Tensor, norm: str, eps: float | Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Return the point nearest to `delta` in |d| <= eps and lo <= d <= hi, for each sample.

    Parameters
    ----------
    delta : Tensor
        Shape (n, ...).
    norm, eps, lo, hi
        As in `steepest`.

    Returns
    -------
    Tensor
        Of the shape and type of `delta`.

    Raises
    ------
    SettingError, UnknownNameError
        As in `steepest`.
    """
    budget = _checked(norm, eps, delta, lo, hi)
    if norm == "linf":
        bound = _per_sample(budget, delta)
        return delta.clamp(-bound, bound).clamp(lo, hi)
    room, sizes = _room(delta, lo, hi), _rows(delta).abs()
    kept = torch.minimum(sizes, room)
    if norm == "l2":
        lengths = torch.minimum(room, _scale(sizes, room, budget, most=1.0) * sizes)
    elif norm == "l1":
        lengths = _shrink(sizes, room, budget)
    else:
        saved = sizes.square() - (sizes - kept).square()
        lengths = torch.where(_among_largest(saved, budget), kept, 0)
    return _signed(lengths, delta, lo, hi)


def random_start(
    norm: str, eps: float | Tensor, lo: Tensor, hi: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    """Return a point drawn uniformly from |d| <= eps and then projected onto lo <= d <= hi as well.

    In "l0" it is a random choice of entries, each drawn uniformly from its box.

    Parameters
    ----------
    norm, eps
        As in `steepest`.
    lo, hi : Tensor
        Shape (n, ...), lo <= 0 <= hi.
    generators : sequence of torch.Generator
        One a sample, on the CPU, so that a sample's start does not depend on the others in its batch.

    Returns
    -------
    Tensor
        Of the shape, type and device of `lo`.

    Raises
    ------
    SettingError
        As in `steepest`, or there are not as many generators as samples.
    UnknownNameError
        There is no such norm.
    """
    budget = _checked(norm, eps, lo, lo, hi)
    n = lo.shape[0]
    if len(generators) != n:
        raise SettingError(f"{len(generators)} generators for {n} samples", "one a sample", "Make as many.")
    size = rows(lo).shape[1]
    # One number more than entries: the radius.
    draws = torch.zeros(n, 2, size + 1, dtype=torch.float64)
    for draw, generator in zip(draws, generators, strict=True):
        draw.uniform_(generator=generator)
    first, second = draws.to(lo.device).unbind(1)
    signs, radius = torch.where(second[:, :-1] < 0.5, -1.0, 1.0), second[:, -1:]
    if norm == "linf":
        delta = budget * (2 * first[:, :-1] - 1)
    elif norm == "l2":
        direction = torch.special.ndtri(first[:, :-1].clamp(min=1e-300))
        delta = budget * radius ** (1 / max(size, 1)) * direction / direction.norm(dim=1, keepdim=True)
    elif norm == "l1":
        waits = -torch.log1p(-first)
        delta = budget * signs * waits[:, :-1] / waits.sum(1, keepdim=True)
    else:
        low, high = _rows(lo), _rows(hi)
        anywhere = low + (high - low) * first[:, :-1]
        delta = torch.where(_among_largest(second[:, :-1] + 1, budget), anywhere, 0)
    return project(delta.reshape(lo.shape).to(lo.dtype), norm, eps, lo, hi)


def _checked(norm: str, eps: float | Tensor, vector: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Return the budgets as a column, float64."""
    if norm not in NORMS:
        raise UnknownNameError("norm", norm, NORMS)
    if not vector.shape == lo.shape == hi.shape:
        raise SettingError(
            f"shapes {tuple(vector.shape)}, {tuple(lo.shape)} and {tuple(hi.shape)} of vector, lo and hi",
            "the same",
            "Expand the bounds.",
        )
    n = vector.shape[0]
    budget = torch.as_tensor(eps, dtype=torch.float64, device=vector.device)
    if budget.shape not in ((), (n,)) or not ((budget >= 0) & budget.isfinite()).all():
        raise SettingError(f"eps is {eps}", f"a finite number from 0 up, or {n} of them", "Correct it.")
    if lo.numel() and not bool((lo.amax() <= 0) & (hi.amin() >= 0)):
        raise SettingError("a box without 0", "lo <= 0 <= hi everywhere", "Clamp the images to their range.")
    return budget.reshape(-1, 1).expand(n, 1)


def _per_sample(budget: Tensor, vector: Tensor) -> Tensor:
    """Return budgets in the vector's type, with its number of dimensions."""
    return budget.to(vector.dtype).reshape(-1, *[1] * (vector.ndim - 1))


def _rows(tensor: Tensor) -> Tensor:
    return rows(tensor).double()


def _room(vector: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Return how far each entry may go to the side of the vector's, b; 0 where that is 0."""
    v = _rows(vector)
    return torch.where(v > 0, _rows(hi), torch.where(v < 0, -_rows(lo), 0))


def _signed(lengths: Tensor, vector: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    d = (lengths * _rows(vector).sign()).to(vector.dtype).reshape(vector.shape)
    return d.clamp(lo, hi)


def _scale(sizes: Tensor, room: Tensor, budget: Tensor, most: float) -> Tensor:
    """Return t up to `most` with |min(room, t sizes)|_2 = budget, as a column; `most` if it is never reached.

    Entries at their bound for one t are so for every larger one. So t is solved for with those known to
    be at their bound, which makes it no larger than the solution; new ones are found with it, until none
    is: Newton's method on t^2, exact after finitely many steps.
    """
    bound = torch.zeros_like(sizes, dtype=torch.bool)
    while True:
        left = budget.square() - torch.where(bound, room, 0).square().sum(1, keepdim=True)
        free = torch.where(bound, 0, sizes).square().sum(1, keepdim=True)
        t = torch.where(free > 0, (left.clamp(min=0) / free).sqrt(), math.inf).clamp(max=most)
        more = ~bound & (sizes > 0) & (t * sizes >= room)
        if not more.any():
            return t
        bound |= more


def _spend(sizes: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """Return what each entry gets of the budget, the largest sizes first, up to their room."""
    order = sizes.argsort(dim=1, descending=True, stable=True)
    wanted = room.gather(1, order)
    spent = wanted.cumsum(1) - wanted
    given = torch.minimum(wanted, (budget - spent).clamp(min=0))
    return torch.zeros_like(sizes).scatter_(1, order, given)


def _shrink(sizes: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """Return clip(sizes - threshold, 0, room), with the least threshold from 0 up that keeps the budget.

    The sum falls in the threshold, linearly between its corners at sizes and at sizes - room.
    """
    corners = torch.cat([sizes, (sizes - room).clamp(min=0), torch.zeros_like(sizes[:, :1])], 1)
    turns = torch.cat([torch.ones_like(sizes), -torch.ones_like(sizes), torch.zeros_like(sizes[:, :1])], 1)
    corners, order = corners.sort(dim=1, descending=True)
    slopes = turns.gather(1, order).cumsum(1)
    steps = slopes[:, :-1] * -corners.diff(dim=1)
    sums = torch.cat([torch.zeros_like(budget), steps.cumsum(1)], 1)
    # The last corner at which the budget is still kept; below it the sum goes on with this slope.
    last = (sums <= budget).sum(1, keepdim=True).clamp(min=1) - 1
    slope = slopes.gather(1, last)
    further = torch.where(slope > 0, (budget - sums.gather(1, last)) / slope.clamp(min=1), 0)
    threshold = (corners.gather(1, last) - further).clamp(min=0)
    return torch.minimum((sizes - threshold).clamp(min=0), room)


def _among_largest(values: Tensor, budget: Tensor) -> Tensor:
    """Return whether each value is above 0 and among the `budget` largest of its row."""
    order = values.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return (ranks + 1 <= budget) & (values > 0)
