"""DGBA, dynamic gradient balancing (arXiv 2305.12066): all tasks attacked at once, each by its own measure.

To raise the mean relative loss change over the tasks,

    max over |delta|_inf <= eps of  1/T sum_t [L_t(x + delta) - L_t(x)] / L_t(x),

the paper linearises it to max c delta with c = sum_t grad L_t / L_t, an integer program over grey levels. As
nothing couples the pixels, its solution is closed: each entry at its upper bound where c > 0, at its lower
where c < 0. Iterated in steps of eps / steps, with c computed anew at each, this is I-FGSM along c.

As c is the gradient of sum_t log L_t, one backward pass computes it; the authors make T. They return the last
iterate, we each sample's best (``keep_best=False`` for theirs).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dgba._combinations import FLOOR, Combination, GradientBalance, Weights
from dgba._fgsm import IFGSM


@dataclass(eq=False, kw_only=True)
class DGBA(IFGSM):
    """Dynamic gradient balancing: I-FGSM with the combination of `dgba.GradientBalance`.

    Parameters
    ----------
    model, tasks, norm, eps, random_start, seed, alpha, steps, keep_best
        See `dgba.IFGSM`.
    weights : {"current", "clean"}
        Divide each gradient by the loss at this step, as the authors' code does, or by the clean loss, as the
        paper states.
    floor : float
        Added to the losses that divide.

    Examples
    --------
    >>> attack = DGBA(model, tasks, eps=8 / 255, steps=10)  # doctest: +SKIP
    >>> adversarial = attack(images, targets)  # doctest: +SKIP
    """

    combination: str | Combination = field(init=False, repr=False)
    weights: Weights = "current"
    floor: float = FLOOR

    def __post_init__(self) -> None:
        self.combination = GradientBalance(self.weights, self.floor)
        super().__post_init__()
