"""Gradual magnitude pruning (GMP; Zhu and Gupta, 2017, arXiv 1710.01878).

Between optimizer steps 0 and T the sparsity rises as s_t = s (1 - (1 - t/T)^3); every few steps
the masks are taken anew from the present magnitudes. Masked weights stay at zero but may return
at a later update, since their gradients are not masked.

Where we differ. N:M and ``pattern`` cannot be made below a sparsity of their own. Until the ramp
gets there, the masks are relaxed ones: of the entries that the structure would remove at its least
sparsity, the smallest go first, as many as the ramp asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from slr_prune._pruner import Pruner
from slr_prune._units import intersect
from tenfold import SettingError, kernels


class GradualPruner(Pruner):
    """Raise the sparsity along a cubic ramp.

    Parameters
    ----------
    model, sparsity, **settings
        See `Pruner`.
    steps : int
        Length T of the ramp in optimizer steps, counted by `constrain`.
    every : int
        Optimizer steps between mask updates.

    Raises
    ------
    SettingError
        `steps` or `every` is below 1; or as `Pruner`.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float | Mapping[str, float],
        *,
        steps: int,
        every: int = 20,
        **settings: Any,
    ) -> None:
        super().__init__(model, sparsity, **settings)
        for name, value in (("steps", steps), ("every", every)):
            if value < 1:
                raise SettingError(f"{name} is {value}", "a whole number from 1 on", f"Raise {name}.")
        self.steps = steps
        self.every = every
        self.t = 0

    def constrain(self) -> None:
        """Count an optimizer step, update the masks when one is due, and apply them."""
        self.t += 1
        if self.t <= self.steps and (self.t % self.every == 0 or self.t == self.steps):
            self.masks = self._ramp_masks(1 - (1 - self.t / self.steps) ** 3)
        super().constrain()

    def finalize(self) -> None:
        """Hard-prune at the full target and end the ramp. See `Pruner.finalize`."""
        self.t = self.steps
        super().finalize()

    def state_dict(self) -> dict[str, Any]:
        """See `Pruner.state_dict`."""
        return {**super().state_dict(), "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Pruner.load_state_dict`."""
        super().load_state_dict(state)
        self.t = state["t"]

    def _ramp_masks(self, progress: float) -> dict[str, Tensor]:
        """Return the masks at a share of the target sparsity, relaxed where the structure has a floor."""
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        found = []
        for unit in self.units:
            sparsity, floor = progress * unit.sparsity, min(unit.least_sparsity, unit.sparsity)
            masks = unit.masks(weights, max(sparsity, floor))
            if sparsity < floor:
                masks = {name: _relax(weights[name], mask, sparsity / floor) for name, mask in masks.items()}
            found.append(masks)
        return intersect(found)


def _relax(weight: Tensor, mask: Tensor, share: float) -> Tensor:
    """Return `mask` with the largest of the removed entries kept; a `share` of them stays removed."""
    magnitudes = weight.abs().masked_fill(mask, math.inf)
    removed = round(share * int((~mask).sum()))
    return kernels.topk_mask(magnitudes, mask.numel() - removed)
