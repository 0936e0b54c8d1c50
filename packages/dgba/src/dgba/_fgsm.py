"""The fast gradient sign method, in one step and in several.

FGSM (Goodfellow et al., ICLR 2015, arXiv 1412.6572) takes from the clean image the one step that gains most
to first order within the ball and the range of images:

    x = clean + argmax_d <g, d>,    |d| <= eps,  0 <= clean + d <= 1,

in L_inf clip(clean + eps sign(g)). I-FGSM (Kurakin et al., ICLR 2017, arXiv 1607.02533) takes it in steps of
eps / steps, the gradient computed anew at each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dgba._attack import Ascent, Attack
from dgba._pgd import PGD


@dataclass(eq=False, kw_only=True)
class FGSM(Attack):
    """One step of length eps. For the parameters see `Attack`."""

    def perturb(self, ascent: Ascent, x: Tensor) -> Tensor:
        """Take the step from `x`. See `Attack.perturb`."""
        direction, _ = ascent.climb(x)
        return ascent.step(x, direction, self.eps)


@dataclass(eq=False, kw_only=True)
class IFGSM(PGD):
    """Several steps of the fast gradient sign method from the clean images.

    Parameters
    ----------
    model, tasks, combination, norm, eps, random_start, seed, steps, keep_best
        See `PGD`.
    alpha : float, optional
        Length of a step; by default ``eps / steps``.
    """

    random_start: bool = False

    reach: ClassVar[float] = 1.0
