"""What every pruning method shares: targets, masks, hard-pruning, resumable state."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slr_prune._structures import get_structure
from tenfold import SettingError, UnknownNameError

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Pruner:
    """Base of the pruning methods; one interface beside any training loop.

    Add `penalty` to the loss of every batch, call `constrain` after every optimizer step and
    `step` after every epoch, and `finalize` at the end.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    sparsity : float or mapping of str to float
        Fraction to remove, in (0, 1): one for every linear and convolution layer, or one for
        each layer name or shell pattern (``"layer3.*.conv2"``); a later pattern overrides an
        earlier one.
    structure : str
        Name of a sparsity structure.

    Attributes
    ----------
    weights : dict of str to Parameter
        The pruned weights by layer name.
    sparsity : dict of str to float
        Target of each of them.
    masks : dict of str to Tensor
        bool, True where a weight is kept. Empty until a method fixes them.

    Raises
    ------
    UnknownNameError
        A name or pattern matches no linear or convolution layer, or no structure has that name.
    SettingError
        A sparsity is outside (0, 1), or the model has no layer to prune.
    """

    def __init__(
        self, model: nn.Module, sparsity: float | Mapping[str, float], *, structure: str = "irregular"
    ) -> None:
        self.model = model
        self.structure = structure
        self.sparsity = _targets(model, sparsity)
        self.weights = {name: _weight(model, name) for name in self.sparsity}
        self.masks: dict[str, Tensor] = {}
        self._structure = get_structure(structure)

    def penalty(self) -> Tensor:
        """Return the scalar to add to a batch's loss: zero, unless the method has a penalty."""
        return torch.zeros((), device=next(iter(self.weights.values())).device)

    def constrain(self) -> None:
        """Set pruned weights back to zero after an optimizer step, where `masks` are fixed."""
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.weights[name].mul_(mask)

    def step(self, loss: float) -> None:
        """End an epoch.

        Parameters
        ----------
        loss : float
            Training loss f(W) of the epoch without `penalty`.
        """

    def finalize(self) -> None:
        """Hard-prune: fix the masks of the present weights and apply them.

        `constrain` keeps them from now on, so training may go on under the masks.
        """
        self.masks = self.current_masks()
        self.constrain()

    def current_masks(self) -> dict[str, Tensor]:
        """Return the masks of the projection of the present weights, bool, True where kept."""
        return {
            name: self._structure(weight.detach(), self.sparsity[name])
            for name, weight in self.weights.items()
        }

    @contextmanager
    def pruned(self) -> Iterator[nn.Module]:
        """Hard-prune the model within a ``with`` block, say to evaluate it, and undo it after."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        with torch.no_grad():
            for name, mask in self.current_masks().items():
                self.weights[name].mul_(mask)
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(before[name])

    def state_dict(self) -> dict[str, Any]:
        """Return what the method has learnt so far; the model's own state is not part of it."""
        return {"masks": dict(self.masks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; the model's weights must be restored first."""
        self.masks = {name: mask.to(self.weights[name].device) for name, mask in state["masks"].items()}


def _targets(model: nn.Module, sparsity: float | Mapping[str, float]) -> dict[str, float]:
    layers = [name for name, module in model.named_modules() if isinstance(module, PRUNABLE)]
    if not layers:
        raise SettingError(
            f"a {type(model).__name__} without linear or convolution layers",
            "a model with at least one nn.Linear or nn.Conv layer",
            "Pass the module that holds the layers.",
        )
    patterns = sparsity if isinstance(sparsity, Mapping) else {"*": sparsity}
    targets = {}
    for pattern, value in patterns.items():
        matched = [name for name in layers if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise UnknownNameError("layer", pattern, layers)
        if not 0 < value < 1:
            raise SettingError(
                f"sparsity {value} for layer {pattern!r}",
                "a fraction to remove between 0 and 1, both excluded",
                "Write 0.9 to remove 90 %; leave a layer out to keep it dense.",
            )
        targets.update(dict.fromkeys(matched, float(value)))
    return {name: targets[name] for name in layers if name in targets}


def _weight(model: nn.Module, layer: str) -> nn.Parameter:
    weight = model.get_submodule(layer).weight
    if not isinstance(weight, nn.Parameter):
        raise SettingError(
            f"layer {layer!r} whose weight is computed, not a parameter",
            "an nn.Parameter",
            "Remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations).",
        )
    return weight
