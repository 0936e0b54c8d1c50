"""Coupled steps for whole batches: the relaxed program by its dual, which has one multiplier a coupling.

With gains g_t = <G_t, d> in a box lo <= d <= hi, the worst task's gain is, by the minimax theorem,

    max_d min_t w_t g_t = min_{p in simplex} max_d <sum_t p_t w_t G_t, d>,

a problem in T unknowns, whose inner maximum is the closed form. Floors and ceilings on gains add a
multiplier each, >= 0. The multipliers make of the coupled step an uncoupled one on the single gradient
sum_t W_t G_t, so that an attack in any norm can use the weights W.

With y the perturbation scaled to |y_i| <= 1 and c = (o + C' l) K its gradient at multipliers l, the dual

    min_l  sum_i |c_i| + <a, l>    over l >= 0 that sum to a given mass

has kinks where an entry's c_i is 0. It is solved by a path of smooth problems, mu -> 0:

    sum_i h(c_i) + <a, l> - tau sum_r log l_r,    h(c) = max_y c y + mu (log(1 + y) + log(1 - y)),

with tau = mu N / R for N entries and R multipliers, by Newton's method with a line search. The maximiser
y = c / (mu + sqrt(mu^2 + c^2)) is in the box for any l, so a perturbation and a bound come with every step,
and the gap between the best of each is known. A step costs two products with the gradients and one of
them with themselves, and a system of R equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgba._entries import rows
from tenfold import SettingError, UnknownNameError

OBJECTIVES = ("worst", "total")
# Cost of a unit of shortfall, where a task's unit is the largest gain it can have.
_PENALTY = 1e3
# Of N mu, the gap along the path. Gains are at most 1, so that below it rounding would decide.
_LEAST = 1e-10


@dataclass(frozen=True, eq=False)
class DualStep:
    """Perturbations that solve a batch of relaxed programs, and the proof of how well.

    Attributes
    ----------
    delta : Tensor
        Shape and type of `lo`.
    weights : Tensor
        W, float64, shape (n, T): to the gap, `delta` maximises <sum_t W_t G_t, d> over the box.
    gains : Tensor
        <G_t, delta>, float64, shape (n, T).
    value, bound : Tensor
        The objective of `delta`, and what no perturbation that keeps to floors and ceilings exceeds, float64,
        shape (n,).
    shortfall : Tensor
        By how much `delta` misses its floors or ceilings at most, float64, shape (n,). Above what the
        tolerance explains, they cannot all be met, and `delta` misses them about as little as possible.
    """

    delta: Tensor
    weights: Tensor
    gains: Tensor
    value: Tensor
    bound: Tensor
    shortfall: Tensor

    @property
    def gap(self) -> Tensor:
        """By how much `value` can at most be improved, shape (n,)."""
        return self.bound - self.value


def dual_step(
    gradients: Tensor,
    lo: Tensor,
    hi: Tensor,
    *,
    objective: str = "worst",
    weights: Sequence[float] | None = None,
    floors: Tensor | Sequence[float] | None = None,
    ceilings: Tensor | Sequence[float] | None = None,
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> DualStep:
    """Solve each sample's step, relaxed to real numbers.

    Parameters
    ----------
    gradients : Tensor
        G, shape (n, T, ...).
    lo, hi : Tensor
        Shape (n, ...), lo <= hi.
    objective : {"worst", "total"}
        The least weighted gain, or the weighted sum of the gains.
    weights : sequence of float, optional
        w, one a task, from 0 up; 1 if not given. Tasks of weight 0 are not attacked.
    floors, ceilings : Tensor or sequence of float, optional
        Bounds on each task's gain, shape (T,) or (n, T); infinite for none.
    tolerance : float
        On the gap, relative to the bound (or to 1e-4 of the largest gain of one task, if that is more).
    iterations : int
        Newton steps at most; ten to forty do, more for a finer tolerance. The gap is returned in any case.

    Returns
    -------
    DualStep

    Raises
    ------
    SettingError
        Shapes do not fit, or a number is impossible.
    UnknownNameError
        There is no such objective.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    if gradients.ndim < 3 or not gradients.shape[1] or not gradients[:, 0].shape == lo.shape == hi.shape:
        raise SettingError(
            f"gradients of shape {tuple(gradients.shape)}, bounds {tuple(lo.shape)} and {tuple(hi.shape)}",
            "gradients (n, T, ...) and bounds (n, ...)",
            "Stack the tasks along dimension 1.",
        )
    G, low, high = gradients.flatten(2).double(), rows(lo).double(), rows(hi).double()
    if not G.isfinite().all() or bool((low > high).any()):
        raise SettingError(
            "gradients that are not finite, or lo above hi", "finite ones, lo <= hi", "Look at the losses."
        )
    T = G.shape[1]
    w = torch.as_tensor([1.0] * T if weights is None else weights, dtype=torch.float64, device=G.device)
    if w.shape != (T,) or not ((w >= 0) & w.isfinite()).all() or not w.any():
        raise SettingError(
            f"weights {weights}", f"{T} numbers from 0 up, not all 0", "Give the attacked tasks a weight."
        )
    least, most = _per_task("floors", floors, G, -torch.inf), _per_task("ceilings", ceilings, G, torch.inf)

    middle, half = (low + high) / 2, (high - low) / 2
    program = _program(objective, G * half.unsqueeze(1), _times(G, middle), w, least, most)
    y, bound, multipliers = _solve(program, tolerance, iterations)
    delta = (middle + half * y).to(lo.dtype).reshape(lo.shape).clamp(lo, hi)
    gains = _times(G, rows(delta).double())
    value = (w * gains).sum(1) if objective == "total" else (w * gains)[:, w > 0].amin(1)
    shortfall = torch.maximum(least - gains, gains - most).amax(1).clamp(min=0)
    unit = program.unit
    task_weights = unit.unsqueeze(1) * program.task_weights(multipliers)
    return DualStep(delta, task_weights, gains, value, unit * bound, shortfall)


@dataclass(frozen=True, eq=False)
class _Program:
    """A batch of programs: max over |y_i| <= 1 of the objective less what missed couplings cost.

    With rows q = C K y + a, the first `worst` of them weighted gains, the others zero or more if their
    coupling is kept: the objective is the least weighted gain, or <o, K y> + constant without any.

    Attributes
    ----------
    K, C, a, o, constant : Tensor
        Shapes (n, T, N), (n, R, T), (n, R), (n, T), (n,).
    groups, masses : Tensor
        Multipliers sum to `masses` (E,) over each of the `groups` (E, R): those of weighted gains to 1,
        those of couplings, with one for none of them, to the penalty.
    unit : Tensor
        The true objective over that of the program, shape (n,).
    """

    K: Tensor
    C: Tensor
    a: Tensor
    o: Tensor
    constant: Tensor
    unit: Tensor
    groups: Tensor
    masses: Tensor
    worst: int

    def task_weights(self, multipliers: Tensor) -> Tensor:
        return self.o + _times(self.C.mT, multipliers)

    def gradient(self, multipliers: Tensor) -> Tensor:
        return _times(self.K.mT, self.task_weights(multipliers))

    def rows(self, y: Tensor) -> Tensor:
        return _times(self.C, _times(self.K, y)) + self.a

    def bound(self, c: Tensor, multipliers: Tensor) -> Tensor:
        return c.abs().sum(1) + (self.a * multipliers).sum(1) + self.constant

    def value(self, y: Tensor) -> Tensor:
        q = self.rows(y)
        objective = (self.o * _times(self.K, y)).sum(1) + self.constant
        if self.worst:
            objective = q[:, : self.worst].amin(1)
        if q.shape[1] > self.worst:
            objective = objective + _PENALTY * q[:, self.worst :].amin(1).clamp(max=0)
        return objective

    def part(self, chosen: Tensor) -> _Program:
        batched = (self.K, self.C, self.a, self.o, self.constant, self.unit)
        K, C, a, o, constant, unit = (tensor[chosen] for tensor in batched)
        return _Program(K, C, a, o, constant, unit, self.groups, self.masses, self.worst)


def _program(objective: str, K: Tensor, centre: Tensor, w: Tensor, least: Tensor, most: Tensor) -> _Program:
    """Set the programs up, with gains `centre` in the middle of the box."""
    n, T, _ = K.shape
    reach = _positive(K.abs().sum(2))
    unit = _positive((w * reach).amax(1))
    o, constant = K.new_zeros(n, T), K.new_zeros(n)
    chosen = torch.eye(T, dtype=K.dtype, device=K.device)
    C, a = [], []
    if objective == "worst":
        for t in w.nonzero().flatten().tolist():
            C.append(chosen[t] * (w[t] / unit).unsqueeze(1))
            a.append(w[t] * centre[:, t] / unit)
    else:
        o, constant = w / unit.unsqueeze(1), (w * centre).sum(1) / unit
    worst = len(C)
    for sign, bounds in ((1.0, least), (-1.0, most)):
        # Bounds of each sample's own have a row in every task, whoever is in the batch.
        present = torch.ones_like(w) if bounds.ndim == 2 else bounds.isfinite()
        for t in present.nonzero().flatten().tolist():
            C.append(sign * chosen[t] / reach[:, t : t + 1])
            # Where there is no bound, one that no perturbation comes near.
            a.append((sign * (centre[:, t] - bounds[..., t]) / reach[:, t]).clamp(max=2.0))
    if len(C) > worst:
        C.append(torch.zeros_like(o))
        a.append(torch.zeros_like(constant))
    couplings = len(C) - worst
    groups, masses = [], []
    if worst:
        groups.append([1.0] * worst + [0.0] * couplings)
        masses.append(1.0)
    if couplings:
        groups.append([0.0] * worst + [1.0] * couplings)
        masses.append(_PENALTY)
    return _Program(
        K,
        torch.stack(C, 1) if C else K.new_zeros(n, 0, T),
        torch.stack(a, 1) if a else K.new_zeros(n, 0),
        o,
        constant,
        unit,
        K.new_tensor([group + [0.0] * (len(C) - len(group)) for group in groups]).reshape(
            len(groups), len(C)
        ),
        K.new_tensor(masses),
        worst,
    )


def _solve(program: _Program, tolerance: float, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best y, the best bound, and its multipliers.

    A sample leaves when it has converged, so that none depends on another's pace.
    """
    n, R = program.a.shape
    multipliers = program.a.new_full((n, R), 1 / max(program.worst, 1))
    if program.worst < R:
        multipliers[:, program.worst :] = 1 / R
        multipliers[:, -1] = _PENALTY - (R - program.worst - 1) / R
    best_y, best_multipliers = torch.zeros_like(program.K[:, 0]), multipliers.clone()
    values, bounds = torch.full_like(program.unit, -torch.inf), torch.full_like(program.unit, torch.inf)
    # Not too small a start where the tasks' gradients cancel each other.
    mu = program.gradient(multipliers).abs().mean(1, keepdim=True).clamp(min=0.1 / program.K.shape[2])

    running = torch.arange(n, device=mu.device)
    for _ in range(iterations):
        c = program.gradient(multipliers)
        bound = program.bound(c, multipliers)
        better = bound < bounds[running]
        bounds[running[better]], best_multipliers[running[better]] = bound[better], multipliers[better]
        for y in (_smooth_maximiser(c, mu), c.sign()):
            value = program.value(y)
            better = value > values[running]
            values[running[better]], best_y[running[better]] = value[better], y[better]
        gap = (bounds - values)[running]
        unfinished = gap > tolerance * bounds[running].abs().clamp(min=1e-4)
        if not unfinished.any() or R == 0:
            break
        if not unfinished.all():
            running, program = running[unfinished], program.part(unfinished)
            c, multipliers, mu = c[unfinished], multipliers[unfinished], mu[unfinished]
        multipliers, mu = _newton(program, c, multipliers, mu)
    return best_y, bounds, best_multipliers


def _newton(program: _Program, c: Tensor, multipliers: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """Make a step towards the point of the path at mu, or at a tenth of it if that point is near."""
    groups, E = program.groups, len(program.groups)
    R, N = multipliers.shape[1], c.shape[1]

    def at(mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return tau, the rows, and their slack over what the rows of their group have in common."""
        tau = mu * N / R
        q = program.rows(_smooth_maximiser(c, mu))
        common = ((multipliers * q) @ groups.T - tau * groups.sum(1)) / program.masses
        return tau, q, q - common @ groups

    tau, q, slack = at(mu)
    near = (multipliers * slack / tau - 1).abs().amax(1, keepdim=True) < 0.5
    mu = torch.where(near, 0.1 * mu, mu).clamp(min=_LEAST / N)
    tau, q, slack = at(mu)
    root = (mu.square() + c.square()).sqrt()
    curvature = mu / (root * (mu + root))
    hessian = program.C @ ((program.K * curvature.unsqueeze(1)) @ program.K.mT) @ program.C.mT
    # The barrier's own curvature, tau / l^2, would let no multiplier fall faster than by half.
    diagonal = torch.maximum(slack, tau / multipliers) / multipliers
    # Rounding can leave nothing of it beside the curvature of the few entries that mu leaves in between.
    diagonal = diagonal + 1e-14 * hessian.diagonal(dim1=1, dim2=2).amax(1, keepdim=True)
    hessian = hessian + torch.diag_embed(diagonal)
    descent = tau / multipliers - q
    system = torch.cat(
        [
            torch.cat([hessian, groups.T.expand(len(q), R, E)], 2),
            torch.cat([groups.expand(len(q), E, R), groups.new_zeros(len(q), E, E)], 2),
        ],
        1,
    )
    right = torch.cat([descent, program.masses - multipliers @ groups.T], 1)
    step = torch.linalg.solve(system, right.unsqueeze(2)).squeeze(2)[:, :R]

    length = torch.where(step < 0, -0.95 * multipliers / step, 1.0).amin(1, keepdim=True).clamp(max=1.0)
    along = _times(program.K.mT, _times(program.C.mT, step))
    slope = (descent * step).sum(1, keepdim=True).abs()
    for _ in range(20):
        y = _smooth_maximiser(c + length * along, mu)
        rise = (y * along).sum(1, keepdim=True)
        rise = rise + ((program.a - tau / (multipliers + length * step)) * step).sum(1, keepdim=True)
        too_far = rise > 0.3 * slope
        if not too_far.any():
            break
        length = torch.where(too_far, length * (slope / (slope + rise)).clamp(min=0.1), length)
    return multipliers + length * step, mu


def _smooth_maximiser(c: Tensor, mu: Tensor) -> Tensor:
    """Return argmax of c y + mu (log(1 + y) + log(1 - y))."""
    return c / (mu + (mu.square() + c.square()).sqrt())


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors.unsqueeze(2)).squeeze(2)


def _positive(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, 1.0)


def _per_task(name: str, given: Tensor | Sequence[float] | None, gradients: Tensor, default: float) -> Tensor:
    n, T, _ = gradients.shape
    chosen = [default] * T if given is None else given
    values = torch.as_tensor(chosen, dtype=torch.float64, device=gradients.device)
    if values.shape not in ((T,), (n, T)) or bool(values.isnan().any()):
        raise SettingError(f"{name} {given}", f"{T} numbers, one a task", "Give one for every gradient.")
    return values
