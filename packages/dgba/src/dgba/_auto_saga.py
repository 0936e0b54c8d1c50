"""Auto-SAGA (Rathbun et al., 2022, arXiv 2211.14669): a sum of the tasks' gradients with learnt weights.

Every task t has a weight a_t for each entry of each image, 1 at first. At each step, with the gradients
g_t of the tasks' terms at x,

    x'   = project(x + alpha sign(sum_t a_t g_t))
    a_t += rate (sum_s g_s)(x') . phi alpha g_t sech^2(phi sum_s a_s g_s)
    x    = project(x + alpha sign(sum_t a_t g_t))

where the second line is gradient ascent on the objective at x', the sign's derivative taken for that of
tanh(phi .). It is the baseline AS of arXiv 2305.12066, whose code sums the gradient at x' over T
copies of the last task, and divides all gradients by the size of the batch, with which its weights learn.
Here the sum is over the tasks, each once, and each sample has its own gradients. At the authors' rate the
weights hardly move where gradients are small: the attack is then I-FGSM along the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgba._attack import Ascent, Best
from dgba._combinations import Combination
from dgba._fgsm import IFGSM
from tenfold import SettingError


@dataclass(eq=False, kw_only=True)
class AutoSAGA(IFGSM):
    """I-FGSM along a sum of the tasks' gradients with a learnt weight for each entry.

    Parameters
    ----------
    model, tasks, norm, eps, random_start, seed, alpha, steps, keep_best
        See `dgba.IFGSM`.
    combination : str or Combination
        Its terms are weighted; its direction at x' teaches the weights.
    rate : float
        Learning rate of the weights.
    fitting : float
        phi, how closely tanh fits the sign.

    Raises
    ------
    SettingError
        `rate` is negative, or `fitting` not positive.
    """

    combination: str | Combination = "total"
    rate: float = 10.0
    fitting: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate >= 0 or not self.fitting > 0:
            raise SettingError(
                f"rate is {self.rate} and fitting {self.fitting}",
                "rate from 0 up and fitting above 0",
                "The authors' are 10 and 50.",
            )

    def perturb(self, ascent: Ascent, x: Tensor) -> Tensor:
        """Climb from `x`. See `Attack.perturb`."""
        best = Best(x)
        weights: Tensor | float = 1.0
        for _ in range(self.steps):
            gradients, objective = ascent.climb_each(x)
            best.update(x, objective)
            combined = (weights * gradients).sum(0)
            ahead, _ = ascent.climb(ascent.step(x, combined, self.step_length))
            slope = self.fitting * self.step_length * (1 - torch.tanh(self.fitting * combined).square())
            weights = weights + self.rate * ahead * slope * gradients
            x = ascent.step(x, (weights * gradients).sum(0), self.step_length)
        if not self.keep_best:
            return x
        best.update(x, ascent.objective(x))
        return best.x
