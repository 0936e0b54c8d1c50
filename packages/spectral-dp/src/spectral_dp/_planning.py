"""How private a training will be, and how much noise a wanted privacy takes, before it is run.

Both answers are Opacus's, for the Gaussian mechanism on Poisson samples under the adding or removing
of one record: ``"prv"`` composes privacy losses numerically and gives the upper end of its error
interval, ``"rdp"`` gives a looser upper bound from Renyi divergences, ``"gdp"`` a central limit that can
be too low and is here for comparison only.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier

from tenfold import SettingError, UnknownNameError

Accountant = Literal["prv", "rdp", "gdp"]
ACCOUNTANTS: tuple[Accountant, ...] = ("prv", "rdp", "gdp")

# The grid of "prv" grows with epsilon: beyond this it takes gigabytes, for a number that protects nobody.
HIGHEST_PRV = 64.0


def epsilon(
    noise_multiplier: float, sample_rate: float, steps: int, delta: float, accountant: Accountant = "prv"
) -> float:
    """Return the epsilon that a training spends.

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the noise over the bound on a sample's contribution.
    sample_rate : float
        Probability of a record to be in a batch, above 0 and at most 1.
    steps : int
        Optimizer steps.
    delta : float
        Between 0 and 1, both excluded.
    accountant : {"prv", "rdp", "gdp"}
        Whose answer.

    Raises
    ------
    SettingError
        A number is out of its range, or the accountant cannot compute with it.
    UnknownNameError
        No accountant has that name.
    """
    _check_training(sample_rate, steps, delta, accountant)
    _check_positive("noise_multiplier", noise_multiplier)
    if accountant == "prv":
        bound = epsilon(noise_multiplier, sample_rate, steps, delta, "rdp")
        _check_prv(bound, f"noise multiplier {noise_multiplier:g}, which spends epsilon {bound:.4g} by rdp,")
    with _accounting(accountant, f"noise multiplier {noise_multiplier:g}"):
        account = create_accountant(accountant)
        account.history = [(noise_multiplier, sample_rate, steps)]
        spent = float(account.get_epsilon(delta=delta))
    if not math.isfinite(spent):
        raise _beyond(f"noise multiplier {noise_multiplier:g}", accountant, f"epsilon {spent}")
    return spent


def noise_multiplier(
    epsilon: float, sample_rate: float, steps: int, delta: float, accountant: Accountant = "prv"
) -> float:
    """Return a noise multiplier whose training spends at most `epsilon`, and at most 0.01 less.

    Parameters
    ----------
    epsilon : float
        The budget, above 0.
    sample_rate, steps, delta, accountant
        As for `spectral_dp.epsilon`.

    Raises
    ------
    SettingError
        A number is out of its range, or no noise multiplier up to a million is enough.
    UnknownNameError
        No accountant has that name.
    """
    _check_training(sample_rate, steps, delta, accountant)
    _check_positive("epsilon", epsilon)
    if accountant == "prv":
        _check_prv(epsilon, f"epsilon {epsilon:g}")
    with _accounting(accountant, f"epsilon {epsilon:g}"):
        return float(
            get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant=accountant,
            )
        )


def _check_training(sample_rate: float, steps: int, delta: float, accountant: str) -> None:
    if accountant not in ACCOUNTANTS:
        raise UnknownNameError("accountant", accountant, ACCOUNTANTS)
    if not 0 < sample_rate <= 1:
        raise SettingError(
            f"sample_rate is {sample_rate}", "above 0, at most 1", "Give batch size / number of records."
        )
    if steps < 1:
        raise SettingError(f"steps is {steps}", "1 or more", "Give epochs / sample rate, rounded up.")
    if not 0 < delta < 1:
        raise SettingError(f"delta is {delta}", "a number between 0 and 1, both excluded", "1e-5 is common.")


def _check_prv(epsilon: float, came: str) -> None:
    if epsilon > HIGHEST_PRV:
        raise SettingError(
            f"{came} for the accountant prv",
            f"epsilon up to {HIGHEST_PRV:g}",
            "Take more noise or fewer steps, or the accountant rdp.",
        )


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise SettingError(f"{name} is {value}", "a positive number", f"Raise {name}.")


@contextmanager
def _accounting(accountant: str, came: str) -> Iterator[None]:
    """Turn an accountant's failures into a SettingError.

    Its warnings are about looseness of a bound that stays one, and about the danger of "gdp", which
    this module's users have read of.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
        raise _beyond(came, accountant, error) from error


def _beyond(came: str, accountant: str, cause: object) -> SettingError:
    return SettingError(
        f"{came}, with which the {accountant} accountant fails ({cause})",
        "a budget and noise of the usual size",
        "Take more noise, fewer steps, or the accountant rdp.",
    )
