"""The methods that the experiments compare, and the ways to run the Lagrangian ones.

The paper makes one iteration an epoch, with a first step size of a tenth of rho and rho constant.
Each remedy changes one of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from slr_prune._slr import OnReject

CONDITIONS = ("condition 1", "condition 2")
METHODS = ("slr", "admm", "gmp", "oneshot")
NAMES = {"slr": "SLR", "admm": "ADMM", "gmp": "GMP", "oneshot": "one-shot"}


@dataclass(frozen=True)
class Scheme:
    """How the Lagrangian methods iterate; the defaults are the paper's.

    Attributes
    ----------
    title : str
    step : float
        SLR's first step size over rho.
    iterations : int
        Factor of the iterations in an epoch.
    growth : float
        rho in the last epoch over rho in the first; it rises geometrically.
    exact : bool
        Test SLR's conditions on the loss of a pass over the training set, not on the mean loss
        since the last iteration.
    on_reject : {"continue", "return"}
        See `slr_prune.SLRPruner`.
    methods : tuple of str
        Which methods it changes.
    """

    title: str
    step: float = 0.1
    iterations: int = 1
    growth: float = 1.0
    exact: bool = False
    on_reject: OnReject = "continue"
    methods: tuple[str, ...] = ("slr", "admm")


REMEDIES = {
    "step": Scheme("first step size half of rho", step=0.5, methods=("slr",)),
    "iterations": Scheme("eight times the iterations", iterations=8),
    "growth": Scheme("rho grows tenfold", growth=10.0),
    "exact": Scheme(
        "exact conditions, back to training when one fails", exact=True, on_reject="return", methods=("slr",)
    ),
}
"""Changes to SLR, and to ADMM where they apply to it, that ``--set remedies=`` adds to a run."""
