"""What every pruning method shares: targets, masks, hard-pruning, resumable state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slr_prune._example import ExampleInputs
from slr_prune._units import build_units, intersect

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Pruner:
    """Base of the pruning methods; one interface beside any training loop.

    Add `penalty` to the loss of every batch, or call `add_gradient` before every optimizer step;
    call `constrain` after every optimizer step, `step` after every epoch, `finalize` at the end.

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
    ignored_layers : sequence of str
        Names or patterns of layers to leave dense.
    example_inputs : Tensor, sequence or mapping, optional
        What one call of the model takes: a tensor, positional or keyword arguments. With it,
        structures ``"filter"`` and ``"bn-filter"`` work on groups of coupled channels: a channel goes
        from every layer that writes it, with its bias and the affine terms of the batch
        normalisations after it, so that `compact` can remove it. A group is pruned when a
        sparsity names one of its layers, and left dense when one of them is ignored. Attention
        heads go whole.
    round_to : int
        Keep a multiple of this many channels in each group; only with `example_inputs`.
    num_heads : mapping of str to int, optional
        Attention heads of linear layers by name or pattern, for models that do not reshape the
        outputs of these layers to heads; only with `example_inputs`.
    process_group : torch.distributed.ProcessGroup, optional
        The processes that train copies of this model together, say
        ``torch.distributed.group.WORLD`` under ``DistributedDataParallel``; pass the bare module
        as `model`. Each has its own pruner, and all of them call `step`, which takes the mean of
        their losses, so that all decide alike. Without it, `step` sees this process alone:
        processes may train different models, or only one of them may prune.

    Attributes
    ----------
    units : list of Unit
        What is projected together.
    sparsity : dict of str to float
        Target of each unit by its name.
    weights : dict of str to Parameter
        The constrained parameters by name.
    masks : dict of str to Tensor
        bool, True where a weight is kept. Empty until a method fixes them.

    Raises
    ------
    UnknownNameError
        A name or pattern matches no linear or convolution layer, or no structure has that name.
    SettingError
        A sparsity is outside (0, 1), the structure does not apply to a layer, or the model has no
        layer to prune, does not run on `example_inputs`, or has coupled layers with several
        sparsities.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float | Mapping[str, float],
        *,
        structure: str = "irregular",
        ignored_layers: Sequence[str] = (),
        example_inputs: ExampleInputs | None = None,
        round_to: int = 1,
        num_heads: Mapping[str, int] | None = None,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.model = model
        self.structure = structure
        self.process_group = process_group
        self.units = build_units(
            model,
            sparsity,
            structure=structure,
            ignored_layers=ignored_layers,
            example_inputs=example_inputs,
            round_to=round_to,
            num_heads=num_heads,
        )
        self.sparsity = {unit.name: unit.sparsity for unit in self.units}
        self.weights = {name: model.get_parameter(name) for unit in self.units for name in unit.parameters}
        self.masks: dict[str, Tensor] = {}
        self.current_masks()  # refuses now what a structure cannot make of a layer

    def penalty(self) -> Tensor:
        """Return the scalar to add to a batch's loss: zero, unless the method has a penalty."""
        return torch.zeros((), device=next(iter(self.weights.values())).device)

    def add_gradient(self) -> None:
        """Add the gradient of `penalty` to the ``grad`` of the weights, in place.

        Instead of adding `penalty` to the loss, and cheaper: call it once per optimizer step, after
        the last backward pass. So it is not divided by the number of accumulated batches, needs no
        autograd, and is the same in every process of ``DistributedDataParallel``. With a
        ``GradScaler``, call ``scaler.unscale_(optimizer)`` before. Call it before the gradients
        are clipped to clip those of loss and penalty together, as with `penalty`.

        Weights that do not require a gradient are left out.
        """

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
            Training loss f(W) of the epoch without `penalty`; its mean over `process_group`.
        """

    def mean_over_processes(self, loss: float) -> float:
        """Return the mean of `loss` over `process_group`; `loss` itself when there is none."""
        if self.process_group is None:
            return loss
        device = next(iter(self.weights.values())).device
        total = torch.tensor(loss, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total, group=self.process_group)
        return total.item() / torch.distributed.get_world_size(self.process_group)

    def finalize(self) -> None:
        """Hard-prune: fix the masks of the present weights and apply them.

        `constrain` keeps them from now on, so training may go on under the masks.
        """
        self.masks = self.current_masks()
        self.constrain()

    def current_masks(self) -> dict[str, Tensor]:
        """Return the masks of the projection of the present weights, bool, True where kept."""
        return self.project_masks({name: weight.detach() for name, weight in self.weights.items()})

    def project_masks(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks of the projection of `tensors`, one for every constrained parameter.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            Values in place of `weights`.
        """
        return intersect(unit.masks(tensors, unit.sparsity) for unit in self.units)

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
