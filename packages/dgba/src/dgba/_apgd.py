"""Auto-PGD (Croce and Hein, ICML 2020, arXiv 2003.01690): a step size that each sample finds for itself.

    z_k     = project(x_k + steepest step of length eta)
    x_{k+1} = project(x_k + 0.75 (z_k - x_k) + 0.25 (x_k - x_{k-1}))

eta starts at 2 eps. At checkpoints, the first after 0.22 of the steps and each next after 0.03 of them fewer,
down to 0.06, a sample's eta is halved if, since the last one, fewer than rho = 0.75 of the steps raised its
objective, or eta was not halved then and its best has not improved; it then goes on from its best point.

The checkpoints and comparisons are those of AutoAttack's code, which torchattacks has: the first step counts
as a rise, and "fewer" as "not more". The code of arXiv 2305.12066 keeps one record for the whole batch, so
that what a sample gets depends on its neighbours. It calls the attack AA without the return to the best
point, here ``return_to_best=False``, and AAR with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgba._attack import Ascent, Attack, Best
from tenfold import SettingError

FRESH = 0.75
"""Share of the new step in a move; the rest repeats the last move."""


@dataclass(eq=False, kw_only=True)
class APGD(Attack):
    """Auto-PGD. Returns each sample's best point.

    Parameters
    ----------
    model, tasks, combination, norm, eps, random_start, seed
        See `Attack`.
    steps : int
    rho : float
        Share of rising steps below which a sample's step size is halved.
    return_to_best : bool
        Go on from the best point when the step size is halved.

    Raises
    ------
    SettingError
        `steps` is below 1, or `rho` not within 0 and 1.
    """

    random_start: bool = True
    steps: int = 10
    rho: float = 0.75
    return_to_best: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not 0 <= self.rho <= 1:
            raise SettingError(
                f"steps is {self.steps} and rho {self.rho}",
                "at least 1 step and rho within 0 and 1",
                "AutoAttack takes 100 and 0.75.",
            )

    def perturb(self, ascent: Ascent, x: Tensor) -> Tensor:
        """Climb from `x`. See `Attack.perturb`."""
        return self._climb(ascent, x).x

    def _climb(self, ascent: Ascent, x: Tensor) -> Best:
        checkpoints = _checkpoints(self.steps)
        gradient, objective = ascent.climb(x)
        best, best_gradient = Best(x), gradient
        best.update(x, objective)
        length = torch.full_like(objective, 2 * self.eps)
        rises = torch.zeros_like(objective)
        best_at_check, halved = best.objective, torch.ones_like(objective, dtype=torch.bool)
        last, since = x, 0

        for step in range(self.steps):
            z = ascent.step(x, gradient, length)
            moved = z if step == 0 else ascent.project(x + FRESH * (z - x) + (1 - FRESH) * (x - last))
            last, x = x, moved
            previous = objective
            gradient, objective = ascent.climb(x)
            best_gradient = _where(best.update(x, objective), gradient, best_gradient)
            rises += (objective > previous) if step else 1
            since += 1
            if step + 1 in checkpoints:
                halved = (rises <= self.rho * since) | (~halved & (best_at_check >= best.objective))
                length = torch.where(halved, length / 2, length)
                if self.return_to_best:
                    x, gradient = _where(halved, best.x, x), _where(halved, best_gradient, gradient)
                best_at_check = best.objective
                rises, since = torch.zeros_like(rises), 0
        return best


@dataclass(eq=False, kw_only=True)
class APGDRestart(APGD):
    """Auto-PGD from several starts; returns each sample's best point of all.

    Parameters
    ----------
    model, tasks, combination, norm, eps, random_start, seed, steps, rho, return_to_best
        See `APGD`; `random_start` is that of the first run, as all later ones start at random.
    restarts : int
        Number of runs.

    Raises
    ------
    SettingError
        `restarts` is below 1.
    """

    restarts: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts < 1:
            raise SettingError(f"restarts is {self.restarts}", "at least 1", "Take one or more.")

    def perturb(self, ascent: Ascent, x: Tensor) -> Tensor:
        """Climb from `x`, then from random starts. See `Attack.perturb`."""
        best = self._climb(ascent, x)
        for attempt in range(1, self.restarts):
            run = self._climb(ascent, ascent.random_start(attempt))
            best.update(run.x, run.objective)
        return best.x


def _checkpoints(steps: int) -> set[int]:
    """Return after how many steps each check comes."""
    period, shortest, decrement = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    checkpoints, at = set(), period
    while at <= steps:
        checkpoints.add(at)
        period = max(period - decrement, shortest)
        at += period
    return checkpoints


def _where(chosen: Tensor, these: Tensor, others: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], these, others)
