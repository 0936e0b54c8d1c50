"""A pruner beside Lightning's ``Trainer``; needs the extra ``lightning``.

>>> trainer = Trainer(callbacks=[PrunerCallback(lambda module: SLRPruner(module, 0.9))])  # doctest: +SKIP
>>> trainer.fit(module)                                                                   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from slr_prune._pruner import Pruner
from slr_prune._schedule import EpochSchedule, check_prune_epochs
from tenfold import MissingExtraError, SettingError

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise MissingExtraError(
        "slr_prune.lightning was imported and lightning is not installed",
        "lightning 2.5 or later",
        "Install it: pip install 'slr-prune[lightning]'.",
    ) from error

__all__ = ["PrunerCallback"]


class PrunerCallback(Callback):
    """Prune while a Lightning ``Trainer`` fits; the module's ``training_step`` stays as it is.

    The gradient of the penalty is added once per optimizer step: after the batches are
    accumulated and their gradients averaged over processes and unscaled, and before they are
    clipped. After the optimizer step the masks are applied, after every training epoch the pruner
    steps with the mean of the batches' losses over the epoch and over processes, and when training
    ends the model is hard-pruned.

    The state is part of Lightning's checkpoints: ``trainer.fit(module, ckpt_path=...)`` goes on
    as if it had never stopped. A checkpoint written within an epoch needs a data loader that
    resumes there too.

    Parameters
    ----------
    make_pruner : callable
        Makes the pruner of the module given to ``trainer.fit``, when its weights are on their device
        and restored. Do not give it a `process_group`: the trainer's processes already agree.
    prune_epochs : int, optional
        Epochs after which to hard-prune; the epochs that follow retrain under the masks. When not
        given, all epochs prune.

    Attributes
    ----------
    pruner : Pruner or None
        The pruner of the last module fitted. Fitting the same module again goes on with it.

    Raises
    ------
    SettingError
        `prune_epochs` is below 1. When fitting: the strategy shards the model (FSDP, DeepSpeed,
        model parallel), no optimizer or several hold the pruned weights, or the training step
        returns no loss.
    """

    def __init__(self, make_pruner: Callable[[nn.Module], Pruner], prune_epochs: int | None = None) -> None:
        check_prune_epochs(prune_epochs)
        self.make_pruner = make_pruner
        self.prune_epochs = prune_epochs
        self._module: LightningModule | None = None
        self._schedule: EpochSchedule | None = None
        self._epoch = 0
        self._restored: Mapping[str, Any] | None = None

    @property
    def pruner(self) -> Pruner | None:
        """The pruner of the last module fitted."""
        return None if self._schedule is None else self._schedule.pruner

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the pruner, or restore it."""
        if trainer.strategy.restore_checkpoint_after_setup:
            raise SettingError(
                f"strategy {type(trainer.strategy).__name__}, which shards the model",
                "a strategy that keeps whole weights in every process, like 'ddp'",
                "Choose another strategy.",
            )
        if self._schedule is None or self._module is not pl_module or self._restored is not None:
            self._module = pl_module
            self._schedule = EpochSchedule(self.make_pruner(pl_module), self.prune_epochs)
        if self._restored is not None:
            self._schedule.load_state_dict(self._restored["schedule"])
            self._epoch = self._restored["epoch"]
            self._restored = None
        owner = _owner(self._schedule.pruner, trainer.optimizers)
        owner.register_step_post_hook(self._constrain)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch whose checkpoint was written when its last batch was done, but not its end."""
        schedule = self._running()
        if schedule.weight and trainer.current_epoch > self._epoch:
            self._end_epoch(trainer)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Add the gradient of the penalty."""
        pruner = self._running().pruner
        if not _holds(optimizer, pruner):
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # Lightning leaves it to these optimizers' step.
        pruner.add_gradient()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take note of the batch's loss."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # Automatic optimization reports the loss divided by the number of accumulated batches.
            scale = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self._running().observe(loss * scale)
        self._epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step the pruner, and hard-prune when `prune_epochs` are over."""
        self._end_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hard-prune."""
        self._running().finalize()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hard-prune after a checkpoint that left no epoch to train, when no other hook is called."""
        schedule = self._running()
        if not schedule.finalized:
            if schedule.weight:
                self._end_epoch(trainer)
            schedule.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for Lightning's checkpoint."""
        if self._schedule is None:
            return {}
        return {"schedule": self._schedule.state_dict(), "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of Lightning's checkpoint until fitting starts."""
        self._restored = state_dict or None

    def _running(self) -> EpochSchedule:
        if self._schedule is None:
            raise SettingError(
                "a callback that did not see on_fit_start", "all hooks of one fit", "Call fit."
            )
        return self._schedule

    def _constrain(self, *_: Any) -> None:
        self._running().pruner.constrain()

    def _end_epoch(self, trainer: Trainer) -> None:
        schedule = self._running()
        loss = torch.tensor(schedule.mean(), dtype=torch.float64, device=trainer.strategy.root_device)
        schedule.end_epoch(float(trainer.strategy.reduce(loss, reduce_op="mean")))


def _owner(pruner: Pruner, optimizers: list[Optimizer]) -> Optimizer:
    owners = [optimizer for optimizer in optimizers if _holds(optimizer, pruner)]
    if len(owners) != 1:
        raise SettingError(
            f"pruned weights in {len(owners)} of the module's optimizers",
            "all of them in one",
            "Prune the layers of one optimizer only, or use one for all of them.",
        )
    return owners[0]


def _holds(optimizer: Optimizer, pruner: Pruner) -> bool:
    weights = {id(weight) for weight in pruner.weights.values()}
    return any(id(item) in weights for group in optimizer.param_groups for item in group["params"])
