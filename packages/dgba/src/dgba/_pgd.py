"""Projected gradient ascent (Madry et al., ICLR 2018, arXiv 1706.06083).

    x_0     = a random point of the ball around the clean image
    x_{k+1} = project(x_k + steepest step of length alpha)

The steepest step is alpha sign(g) in L_inf, and in the other norms the step of that length within the range
of images that the direction g gains most by. The paper returns the last iterate; here each sample's best one
is returned, which costs one more forward pass, unless ``keep_best=False``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dgba._attack import Ascent, Attack, Best
from tenfold import SettingError


@dataclass(eq=False, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent from a random start.

    Parameters
    ----------
    model, tasks, combination, norm, eps, random_start, seed
        See `Attack`.
    alpha : float, optional
        Length of a step, in the norm and unit of `eps`; by default ``2.5 * eps / steps``, Madry et al.'s.
    steps : int
    keep_best : bool
        Return each sample's best iterate, not its last.

    Raises
    ------
    SettingError
        `steps` is below 1 or `alpha` negative.
    """

    alpha: float | None = None
    steps: int = 10
    random_start: bool = True
    keep_best: bool = True

    reach: ClassVar[float] = 2.5
    """All steps of the default length together, over eps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise SettingError(f"steps is {self.steps}", "at least 1", "Take one or more.")
        if not self.step_length >= 0:
            raise SettingError(
                f"alpha is {self.alpha}", "a number from 0 up", "Leave it out for the default."
            )

    @property
    def step_length(self) -> float:
        """`alpha`, or its default."""
        return self.reach * self.eps / self.steps if self.alpha is None else self.alpha

    def perturb(self, ascent: Ascent, x: Tensor) -> Tensor:
        """Climb from `x`. See `Attack.perturb`."""
        best = Best(x)
        momentum = torch.zeros_like(x)
        for _ in range(self.steps):
            gradient, objective = ascent.climb(x)
            if self.keep_best:
                best.update(x, objective)
            momentum = self.accumulate(momentum, gradient)
            x = ascent.step(x, momentum, self.step_length)
        if not self.keep_best:
            return x
        best.update(x, ascent.objective(x))
        return best.x

    def accumulate(self, momentum: Tensor, gradient: Tensor) -> Tensor:
        """Return the direction of the next step, given that of the last: here the gradient alone."""
        return gradient
