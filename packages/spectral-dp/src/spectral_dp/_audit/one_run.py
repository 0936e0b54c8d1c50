"""A lower bound on epsilon from a single training run (Steinke, Nasr and Jagielski, NeurIPS 2023).

Each of m canaries is put into the training data by its own fair coin. After training the auditor
guesses r of the m coins, abstaining from the others, and v guesses are right. If the training is
(eps, delta)-DP under the adding or removing of one record, then (as their Appendix D computes it)

    P[V >= v] <= beta + 2 m delta alpha,
    beta = P[W >= v],  alpha = max_i P[v - i <= W < v] / i,  W ~ Binomial(r, e^eps / (1 + e^eps)).

The largest eps whose right side stays below 1 - confidence is refuted, and so is every smaller one.
The bound holds for whatever scores the training function gives; good scores make it near the truth.
It is valid for a number of guesses fixed beforehand: choosing the best of several numbers afterwards
voids it, and so does keeping the best of several runs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from spectral_dp._audit._gaussian import check_delta
from tenfold import DataError, SettingError

Train = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class OneRunAudit:
    """What a one-run audit found.

    Attributes
    ----------
    canaries, guesses, correct : int
        m, r and v above.
    delta, confidence : float
        What the bound is for.
    epsilon : float
        With this confidence the training is not (eps, delta)-DP for any smaller eps.
    attainable : float
        The bound if every guess had been right: no training could have been refuted beyond it.
    """

    canaries: int
    guesses: int
    correct: int
    delta: float
    confidence: float
    epsilon: float
    attainable: float


def one_run_audit(
    train: Train,
    *,
    canaries: int,
    guesses: int,
    delta: float = 1e-5,
    confidence: float = 0.95,
    generator: np.random.Generator | None = None,
) -> OneRunAudit:
    """Audit a training function in one run of it.

    Parameters
    ----------
    train : callable
        Given bool (m,), which canaries to add to the training data, trains and returns float (m,):
        for every canary a score that is high when the result looks trained on it (such as the
        negative loss, or the summed product of the canary's gradient with the noisy updates).
        It may use `included` for nothing but to choose the data, or the audit means nothing.
    canaries : int
        m. Each has to be one record in the sense of the claim.
    guesses : int
        r, from 1 to `canaries`, fixed before the run: the highest half of r scores are guessed
        included, the lowest excluded, the rest are abstained from. Of an odd r the highest have one more.
    delta : float
        Of the (eps, delta) that is claimed.
    confidence : float
        Of the bound.
    generator : numpy.random.Generator, optional
        For the coins. Without one they come from the system's entropy.

    Returns
    -------
    OneRunAudit

    Raises
    ------
    SettingError
        A number is out of its range.
    DataError
        The scores are not m finite numbers.
    """
    _check_counts(canaries, guesses, guesses, confidence)
    check_delta(delta)
    included = (generator or np.random.default_rng()).random(canaries) < 0.5
    scores = np.asarray(train(included.copy()), dtype=np.float64)
    if scores.shape != (canaries,) or not np.isfinite(scores).all():
        raise DataError(
            f"scores of shape {scores.shape}, {np.isfinite(scores).sum()} of them finite",
            f"{canaries} finite numbers, one a canary",
            "Return one score for each canary, whether it was included or not.",
        )
    order = np.argsort(scores, kind="stable")
    lowest, highest = order[: guesses // 2], order[canaries - (guesses + 1) // 2 :]
    correct = int(included[highest].sum() + (~included[lowest]).sum())
    bounds = [
        epsilon_lower_bound(canaries, guesses, right, delta=delta, confidence=confidence)
        for right in (correct, guesses)
    ]
    return OneRunAudit(canaries, guesses, correct, delta, confidence, *bounds)


def one_run_p_value(canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float) -> float:
    """Bound the probability of so many right guesses against an (epsilon, delta)-DP training.

    Parameters
    ----------
    canaries, guesses, correct : int
        m >= r >= v >= 0, and r >= 1.
    epsilon, delta : float
        The claim; `delta` may be 0.

    Raises
    ------
    SettingError
        A number is out of its range.
    """
    _check_counts(canaries, guesses, correct, 0.95)
    if not (epsilon >= 0 and 0 <= delta < 1):
        raise SettingError(
            f"epsilon {epsilon} and delta {delta}", "epsilon >= 0 and 0 <= delta < 1", "Give a claim of DP."
        )
    accuracy = expit(epsilon)
    beta = float(binom.sf(correct - 1, guesses, accuracy))
    if delta == 0 or correct == 0:
        return min(1.0, beta)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, accuracy))
    alpha = float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest epsilon that so many right guesses refute.

    Parameters
    ----------
    canaries, guesses, correct : int
        m >= r >= v >= 0, and r >= 1.
    delta : float
        Of the claim; may be 0.
    confidence : float
        Between 0 and 1, both excluded.

    Returns
    -------
    float
        0 when nothing is refuted.

    Raises
    ------
    SettingError
        A number is out of its range.
    """
    _check_counts(canaries, guesses, correct, confidence)

    def refuted(epsilon: float) -> bool:
        return one_run_p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta) < 1 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _check_counts(canaries: int, guesses: int, correct: int, confidence: float) -> None:
    if not (0 <= correct <= guesses <= canaries and guesses >= 1):
        raise SettingError(
            f"{correct} right of {guesses} guesses for {canaries} canaries",
            "right <= guesses <= canaries, and one guess or more",
            "Guess fewer, or use more canaries.",
        )
    if not 0 < confidence < 1:
        raise SettingError(
            f"confidence is {confidence}", "a number between 0 and 1, both excluded", "0.95 is common."
        )
