"""Steps in whole pixel values through PuLP: the paper's program, and those that couple tasks or pixels.

With gains g_t = <G_t, d> and weights w_t >= 0, over integers lo <= d <= hi:

    objective "total"   max sum_t w_t g_t              (the paper's, with w = 1)
    objective "worst"   max min_t w_t g_t              over the tasks with w_t > 0
    floors, ceilings    floor_t <= g_t <= ceiling_t    (a ceiling of 0 spares task t, to first order)
    pixels              at most k pixels change: lo_i z_p <= d_i <= hi_i z_p, z_p in {0, 1}, sum_p z_p <= k

The solver is CBC, or HiGHS where that is missing. Its objectives are rounded; what is returned is computed
anew, in float64, from the perturbation it found.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pulp
from numpy.typing import ArrayLike, NDArray

from tenfold import MissingExtraError, SettingError, UnknownNameError

OBJECTIVES = ("total", "worst")


@dataclass(frozen=True, eq=False)
class IntegerStep:
    """A perturbation in pixel values, and what it gains.

    Attributes
    ----------
    delta : ndarray
        int64, shape (n,); float64 if the program was relaxed.
    gains : ndarray of float64
        <G_t, delta>, shape (T,).
    value : float
        The objective.
    optimal : bool
        Whether the solver proved that there is no better; not so if its time ran out.
    """

    delta: NDArray[Any]
    gains: NDArray[np.float64]
    value: float
    optimal: bool


def pixel_box(image: ArrayLike, eps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how far each pixel value may go down and up: max(-eps, -x) and min(eps, 255 - x).

    Parameters
    ----------
    image : array of integers
        Pixel values from 0 to 255, of any shape.
    eps : int
        Bound on the change, in pixel values.

    Returns
    -------
    lo, hi : ndarray of int64
        Flat.

    Raises
    ------
    SettingError
        `eps` is negative, or a pixel value is none.
    """
    x = np.asarray(image)
    if not np.issubdtype(x.dtype, np.integer) or x.size == 0 or x.min() < 0 or x.max() > 255 or eps < 0:
        raise SettingError(
            f"pixels of type {x.dtype} and eps {eps}",
            "integers from 0 to 255, and eps from 0 up",
            "Convert images in [0, 1] with (255 * x).round().",
        )
    values = x.astype(np.int64).ravel()
    return np.maximum(-int(eps), -values), np.minimum(int(eps), 255 - values)


def integer_step(c: ArrayLike, lo: ArrayLike, hi: ArrayLike) -> NDArray[np.int64]:
    """Return argmax of <c, d> over integers lo <= d <= hi, found by the solver.

    The closed form needs no solver: this is what it is held against.

    Parameters
    ----------
    c : array of float
        Shape (n,).
    lo, hi : array of integers
        Shape (n,).

    Raises
    ------
    SettingError, MissingExtraError
        As in `coupled_step`.
    """
    delta: NDArray[np.int64] = coupled_step(np.asarray(c, dtype=np.float64)[np.newaxis], lo, hi).delta
    return delta


def coupled_step(
    gradients: ArrayLike,
    lo: ArrayLike,
    hi: ArrayLike,
    *,
    objective: str = "total",
    weights: Sequence[float] | None = None,
    floors: Sequence[float] | None = None,
    ceilings: Sequence[float] | None = None,
    pixels: int | None = None,
    pixel_of: ArrayLike | None = None,
    relaxed: bool = False,
    time_limit: float | None = None,
) -> IntegerStep:
    """Solve the step's program for one image. See this module for the program.

    Parameters
    ----------
    gradients : array of float
        G, one row a task, shape (T, n).
    lo, hi : array of integers
        Shape (n,), lo <= hi; 0 in between if `pixels` is given.
    objective : {"total", "worst"}
        The weighted sum of the gains, or the least weighted gain.
    weights : sequence of float, optional
        w, one a task, from 0 up; 1 if not given. Tasks of weight 0 are not attacked.
    floors, ceilings : sequence of float, optional
        Bounds on each task's gain; infinite for none.
    pixels : int, optional
        How many pixels may change: the L0 budget.
    pixel_of : array of int, optional
        The pixel that each entry belongs to, shape (n,), so that its channels count once; every entry is
        a pixel of its own if not given.
    relaxed : bool
        Solve the linear program: d need not be whole, nor need a pixel be counted in full.
    time_limit : float, optional
        In seconds.

    Returns
    -------
    IntegerStep

    Raises
    ------
    SettingError
        Shapes do not fit, a number is impossible, no perturbation keeps to floors and ceilings, or none
        was found in time.
    UnknownNameError
        There is no such objective.
    MissingExtraError
        Neither CBC nor HiGHS is installed.
    """
    G, low, high = _checked_box(gradients, lo, hi)
    T, n = G.shape
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    w = _per_task("weights", weights, T, 1.0)
    least, most = _per_task("floors", floors, T, -np.inf), _per_task("ceilings", ceilings, T, np.inf)
    if (w < 0).any() or not w.any() or not np.isfinite(w).all():
        raise SettingError(
            f"weights {w.tolist()}", "numbers from 0 up, not all 0", "Weigh the attacked tasks."
        )
    if (least > most).any():
        raise SettingError(
            f"floors {least.tolist()} above ceilings {most.tolist()}", "none", "Exchange them."
        )

    problem = pulp.LpProblem("step", pulp.LpMaximize)
    kind = pulp.LpContinuous if relaxed else pulp.LpInteger
    d = [problem.add_variable(f"d{i}", int(low[i]), int(high[i]), cat=kind) for i in range(n)]
    gains = [_weighted_sum(g, d) for g in G]
    if objective == "total":
        problem += _weighted_sum(w @ G, d)
    else:
        worst = problem.add_variable("worst")
        problem += worst
        for t in np.flatnonzero(w):
            problem += worst <= float(w[t]) * gains[t]
    for gain, floor, ceiling in zip(gains, least, most, strict=True):
        if np.isfinite(floor):
            problem += gain >= float(floor)
        if np.isfinite(ceiling):
            problem += gain <= float(ceiling)
    if pixels is not None:
        _bound_pixels(problem, d, low, high, pixels, pixel_of, relaxed)

    outcome = problem.solve(_solver(time_limit))
    # Nothing is said of entries that no gradient moves, nor of any entry if no solution was found.
    found = np.array([v.value() or 0.0 for v in d])
    delta = (found if relaxed else np.rint(found)).clip(low, high)
    reached = G @ delta
    slack = 1e-6 * (1 + np.abs(G) @ np.maximum(-low, high))
    if not ((least - slack <= reached) & (reached <= most + slack)).all():
        raise SettingError(
            f"floors {least.tolist()} and ceilings {most.tolist()} that no perturbation was found to keep to",
            "bounds that the box leaves room for",
            "Lower the floors, raise the ceilings, widen the box, or give it more time.",
        )
    weighted = w * reached
    value = weighted.sum() if objective == "total" else weighted[w > 0].min()
    # PuLP 3 returns a number and keeps the status; PuLP 4 returns it. 1 is "optimal" in both.
    status = outcome.status if hasattr(outcome, "status") else problem.sol_status
    return IntegerStep(delta if relaxed else delta.astype(np.int64), reached, float(value), status == 1)


def _weighted_sum(coefficients: NDArray[np.float64], variables: list[Any]) -> Any:
    return pulp.lpSum(float(coefficients[i]) * variables[i] for i in np.flatnonzero(coefficients))


def _bound_pixels(
    problem: Any,
    d: list[Any],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    pixels: int,
    pixel_of: ArrayLike | None,
    relaxed: bool,
) -> None:
    owners = np.arange(len(d)) if pixel_of is None else np.asarray(pixel_of)
    if owners.shape != low.shape or pixels < 0 or (low > 0).any() or (high < 0).any():
        raise SettingError(
            f"{pixels} pixels, owners of shape {owners.shape} for {len(d)} entries",
            "a number from 0 up, an owner for each entry, and lo <= 0 <= hi",
            "Correct them.",
        )
    kind = pulp.LpContinuous if relaxed else pulp.LpInteger
    names, positions = np.unique(owners, return_inverse=True)
    z = [problem.add_variable(f"z{p}", 0, 1, cat=kind) for p in range(len(names))]
    for i, p in enumerate(positions):
        problem += d[i] <= int(high[i]) * z[p]
        problem += d[i] >= int(low[i]) * z[p]
    problem += pulp.lpSum(z) <= int(pixels)


def _checked_box(
    gradients: ArrayLike, lo: ArrayLike, hi: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    G, low, high = np.asarray(gradients, dtype=np.float64), np.asarray(lo), np.asarray(hi)
    if G.ndim != 2 or not G.size or low.shape != G.shape[1:] or high.shape != G.shape[1:]:
        raise SettingError(
            f"gradients of shape {G.shape}, bounds of shapes {low.shape} and {high.shape}",
            "gradients (T, n) and bounds (n,)",
            "Flatten the image.",
        )
    if not np.isfinite(G).all():
        raise SettingError("gradients that are NaN or infinite", "finite numbers", "Look at the losses.")
    for bound in (low, high):
        if not np.array_equal(bound, np.rint(bound)):
            raise SettingError("bounds between whole numbers", "whole pixel values", "Use pixel_box.")
    if (low > high).any():
        raise SettingError("lo above hi", "lo <= hi everywhere", "Exchange them.")
    return G, low.astype(np.int64), high.astype(np.int64)


def _per_task(name: str, given: Sequence[float] | None, T: int, default: float) -> NDArray[np.float64]:
    values = np.full(T, default) if given is None else np.asarray(given, dtype=np.float64)
    if values.shape != (T,) or np.isnan(values).any():
        raise SettingError(f"{name} {given}", f"{T} numbers, one a task", "Give one for every gradient.")
    return values


def _solver(time_limit: float | None) -> Any:
    # PuLP 3 brings a CBC along, and warns that PuLP 4 does not; pulp[cbc] has it for both.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in ("COIN_CMD", "PULP_CBC_CMD", "HiGHS"):
            solver = getattr(pulp, name, None)
            if solver is not None and solver(msg=False).available():
                return solver(msg=False, timeLimit=time_limit)
    raise MissingExtraError("neither CBC nor HiGHS", "a solver that PuLP finds", "Install pulp[cbc].")
