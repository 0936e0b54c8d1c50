"""A pruner beside the ``Trainer`` of transformers; needs the extra ``transformers``.

>>> callback = PrunerTrainerCallback(lambda model: SLRPruner(model, 0.9))          # doctest: +SKIP
>>> Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()    # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slr_prune._pruner import Pruner
from slr_prune._schedule import EpochSchedule, check_prune_epochs
from tenfold import CheckpointError, MissingExtraError, SettingError
from tenfold.experiment import load_state, save_state

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingExtraError(
        "slr_prune.transformers was imported and transformers is not installed",
        "transformers 4.57 or later",
        "Install it: pip install 'slr-prune[transformers]'.",
    ) from error

__all__ = ["PrunerTrainerCallback"]

STATE_FILE = "pruner.state"


class PrunerTrainerCallback(TrainerCallback):
    """Prune while the ``Trainer`` of transformers trains.

    The gradient of the penalty is added once per optimizer step, after the batches are
    accumulated and their gradients averaged over processes, unscaled and clipped: the Trainer
    offers no place before clipping, so ``max_grad_norm`` bounds the gradient of the loss alone.
    After the optimizer step the masks are applied, after every epoch the pruner steps with the
    mean loss, and when training ends the model is hard-pruned.

    The Trainer hands callbacks its loss through its log only. So the callback asks for a log
    entry at the end of every epoch and, so that a resumed run knows the loss of the whole
    epoch, before every checkpoint and evaluation; ``logging_nan_inf_filter`` also filters what
    the pruner sees.

    The state is saved as ``pruner.state`` in every checkpoint folder and restored by
    ``trainer.train(resume_from_checkpoint=...)``, which then goes on as if it had never stopped.

    Parameters
    ----------
    make_pruner : callable
        Makes the pruner of the Trainer's model, when its weights are on their device and
        restored. Do not give it a `process_group`: the Trainer's processes already agree.
    prune_epochs : int, optional
        Epochs after which to hard-prune; the epochs that follow retrain under the masks. When not
        given, all epochs prune.
    resume_from : Path, optional
        Checkpoint folder, when it is not where this run would have written it. Without it the
        pruner's state is looked for in ``args.resume_from_checkpoint``, if that is set, and then
        in the folder of that step in ``args.output_dir``.

    Attributes
    ----------
    pruner : Pruner or None
        The pruner of the last run.

    Raises
    ------
    SettingError
        `prune_epochs` is below 1. When training: the model is sharded (FSDP, DeepSpeed).
    CheckpointError
        The run resumes and the pruner's state is missing, corrupt, or of another checkpoint.
    """

    def __init__(
        self,
        make_pruner: Callable[[nn.Module], Pruner],
        prune_epochs: int | None = None,
        *,
        resume_from: Path | str | None = None,
    ) -> None:
        check_prune_epochs(prune_epochs)
        self.make_pruner = make_pruner
        self.prune_epochs = prune_epochs
        self.resume_from = None if resume_from is None else Path(resume_from)
        self._schedule: EpochSchedule | None = None
        self._logged = 0
        self._ending = False

    @property
    def pruner(self) -> Pruner | None:
        """The pruner of the last run."""
        return None if self._schedule is None else self._schedule.pruner

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the pruner, or restore it."""
        if args.fsdp or args.deepspeed:
            raise SettingError(
                "a model sharded by FSDP or DeepSpeed",
                "whole weights in every process",
                "Use DistributedDataParallel, the Trainer's default.",
            )
        schedule = EpochSchedule(self.make_pruner(kwargs["model"]), self.prune_epochs)
        self._schedule, self._logged, self._ending = schedule, state.global_step, False
        if state.global_step:
            schedule.load_state_dict(self._restore(args, state))
            # A checkpoint of an epoch's last step is written before the epoch is ended.
            if schedule.weight and float(state.epoch or 0).is_integer():
                schedule.end_epoch(schedule.mean())

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the gradient of the penalty."""
        optimizer = kwargs["optimizer"]
        scaler = getattr(optimizer, "scaler", None)
        if scaler is not None:
            _unscale(scaler, getattr(optimizer, "optimizer", optimizer))
        self._running().pruner.add_gradient()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply the masks."""
        self._running().pruner.constrain()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for the loss before it is forgotten."""
        if control.should_save or control.should_evaluate:
            control.should_log = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Step the pruner, once the losses up to now are known."""
        if self._logged < state.global_step:
            self._ending = control.should_log = True
        elif self._running().weight:
            self._end_epoch()
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take note of the mean loss since the last entry."""
        steps = state.global_step - self._logged
        if self._schedule is None or logs is None or "loss" not in logs or steps <= 0:
            return
        self._schedule.observe(float(logs["loss"]), steps)
        self._logged = state.global_step
        if self._ending:
            self._end_epoch()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the state in the checkpoint's folder."""
        if state.is_world_process_zero:
            schedule = self._running()
            save_state(
                _folder(args, state) / STATE_FILE,
                {**schedule.state_dict(), "fingerprint": _fingerprint(schedule.pruner)},
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hard-prune."""
        self._running().finalize()

    def _running(self) -> EpochSchedule:
        if self._schedule is None:
            raise SettingError(
                "a callback that did not see on_train_begin", "all events of one run", "Call train."
            )
        return self._schedule

    def _end_epoch(self) -> None:
        schedule = self._running()
        self._ending = False
        schedule.end_epoch(schedule.mean())

    def _restore(self, args: TrainingArguments, state: TrainerState) -> Mapping[str, Any]:
        folders = [_folder(args, state)]
        if isinstance(args.resume_from_checkpoint, str):
            folders.insert(0, Path(args.resume_from_checkpoint))
        if self.resume_from is not None:
            folders = [self.resume_from]
        path = next((folder / STATE_FILE for folder in folders if (folder / STATE_FILE).exists()), None)
        if path is None:
            raise CheckpointError(
                f"no {STATE_FILE} in {' or '.join(map(str, folders))}",
                f"the pruner's state at step {state.global_step}",
                "Name the checkpoint's folder as resume_from.",
            )
        saved: Mapping[str, Any] = load_state(path)
        present = _fingerprint(self._running().pruner)
        if not math.isclose(saved["fingerprint"], present, rel_tol=1e-6):
            raise CheckpointError(
                f"{path} belongs to other weights than those restored",
                "the pruner's state of the same checkpoint",
                "Name the checkpoint's folder as resume_from.",
            )
        return saved


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _fingerprint(pruner: Pruner) -> float:
    with torch.no_grad():
        return math.fsum(weight.double().square().sum().item() for weight in pruner.weights.values())


def _unscale(scaler: Any, optimizer: Any) -> None:
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise
