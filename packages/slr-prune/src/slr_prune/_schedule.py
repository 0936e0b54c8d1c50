"""A pruner's epochs in a loop that someone else runs: when it steps, and when it hard-prunes.

The callbacks for Lightning and transformers share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from slr_prune._pruner import Pruner
from tenfold import SettingError


class EpochSchedule:
    """When a pruner steps and hard-prunes in a loop that someone else runs.

    Parameters
    ----------
    pruner : Pruner
        Driven.
    prune_epochs : int, optional
        Epochs after which to hard-prune; those that follow retrain under the masks.

    Attributes
    ----------
    epochs : int
        Epochs ended so far.
    finalized : bool
        Whether the model is hard-pruned.
    total, weight : float
        Weighted sum of the losses observed in the epoch under way, and the sum of their weights.
    """

    def __init__(self, pruner: Pruner, prune_epochs: int | None) -> None:
        self.pruner = pruner
        self.prune_epochs = prune_epochs
        self.epochs = 0
        self.finalized = False
        self.total: float | Tensor = 0.0
        self.weight = 0.0

    def observe(self, loss: float | Tensor, weight: float = 1.0) -> None:
        """Take note of a training loss; a tensor is not read before the epoch's end."""
        if isinstance(loss, Tensor):
            loss = loss.detach().double()
        self.total = self.total + weight * loss
        self.weight += weight

    def mean(self) -> float:
        """Return the mean loss of the epoch under way.

        Raises
        ------
        SettingError
            No loss was observed.
        """
        if not self.weight:
            raise SettingError(
                "an epoch without a training loss", "at least one", "Return the loss from the training step."
            )
        return float(self.total) / self.weight

    def end_epoch(self, loss: float) -> None:
        """Step the pruner, and hard-prune when `prune_epochs` are over."""
        self.total, self.weight = 0.0, 0.0
        self.pruner.step(loss)
        self.epochs += 1
        if self.epochs == self.prune_epochs:
            self.finalize()

    def finalize(self) -> None:
        """Hard-prune; again, if that was done before and other weights were loaded since."""
        if self.finalized:
            self.pruner.constrain()
        else:
            self.pruner.finalize()
            self.finalized = True

    def state_dict(self) -> dict[str, Any]:
        """Return this state and the pruner's."""
        return {
            "pruner": self.pruner.state_dict(),
            "epochs": self.epochs,
            "finalized": self.finalized,
            "total": float(self.total),
            "weight": self.weight,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.pruner.load_state_dict(state["pruner"])
        self.epochs = state["epochs"]
        self.finalized = state["finalized"]
        self.total = state["total"]
        self.weight = state["weight"]


def check_prune_epochs(prune_epochs: int | None) -> None:
    """Raise `SettingError` when a number of epochs is below 1."""
    if prune_epochs is not None and prune_epochs < 1:
        raise SettingError(
            f"prune_epochs is {prune_epochs}", "a whole number from 1 on", "Leave it out to prune at the end."
        )
