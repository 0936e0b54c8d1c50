"""Tasks: what a model's outputs are for, how wrong they are, and which targets count.

The paper attacks models that give a segmentation, surface normals, depth, keypoints and edges at once.
A task here is a name, a loss with one value per sample, and metrics; `losses_of` evaluates all tasks
of a batch. Where no entry of a sample's target counts, the sample has loss 0 there, and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from torch import Tensor

from dgba import losses, metrics
from dgba._entries import rows, valid_entries
from dgba.losses import Loss
from dgba.metrics import Metric, SampleMean
from tenfold import DivergedError, SettingError, UnknownNameError

Outputs: TypeAlias = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""What a model returns: a tensor by task name, or in the order of the tasks, or of the only task."""


@dataclass(frozen=True)
class Task:
    """One output of a model.

    Attributes
    ----------
    name : str
        Under which the model returns it, and targets have it.
    loss : callable
        Takes output and target, both with n first, and returns n losses, not below 0 and
        differentiable in the output. A sample's loss must not depend on the other samples.
        It leaves out `ignore_value` itself; it is not asked about samples that have nothing else.
    metrics : mapping of str to Metric or callable
        By name. A callable takes output and target and returns n numbers, of which the mean counts.
    higher_is_better : bool or mapping of str to bool
        Of the metrics that are plain callables; a `Metric` says so itself.
    ignore_value : float or int, optional
        Entries of the target that are equal to it (NaN: that are NaN) do not count.
    """

    name: str
    loss: Loss
    metrics: Mapping[str, Metric | Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] | bool = False
    ignore_value: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SettingError("a task without a name", "the name of a model's output", "Name it.")
        if isinstance(self.higher_is_better, Mapping):
            for name in self.higher_is_better:
                if name not in self.metrics:
                    raise UnknownNameError(f"metric of task {self.name!r}", name, self.metrics)

    def measures(self) -> dict[str, Metric]:
        """Return the metrics by name, each plain callable as the mean over samples that it stands for."""
        return {name: self._measure(name, metric) for name, metric in self.metrics.items()}

    def _measure(self, name: str, metric: Metric | Callable[[Tensor, Tensor], Tensor]) -> Metric:
        if isinstance(metric, Metric):
            return metric
        higher = self.higher_is_better
        return SampleMean(metric, higher.get(name, False) if isinstance(higher, Mapping) else higher)


def losses_of(tasks: Sequence[Task], outputs: Outputs, targets: Outputs) -> dict[str, Tensor]:
    """Return each task's loss of each sample.

    Parameters
    ----------
    tasks : sequence of Task
    outputs, targets : mapping of str to Tensor, sequence of Tensor, or Tensor
        With n first: by task name, in the order of `tasks`, or of the only one. Others are not read.

    Returns
    -------
    dict of str to Tensor
        Shape (n,) each, differentiable in the outputs. A sample has loss 0 in a task that has no
        target of it.

    Raises
    ------
    SettingError
        A task has no output or target, their numbers of samples differ, shapes do not fit, or a loss
        does not return one value per sample.
    DivergedError
        A loss is NaN or infinite.
    """
    found = by_task(tasks, outputs, "outputs")
    aims = by_task(tasks, targets, "targets")
    return {task.name: _loss_of(task, found[task.name], aims[task.name]) for task in tasks}


def by_task(tasks: Sequence[Task], tensors: Outputs, what: str) -> dict[str, Tensor]:
    """Return a model's outputs or targets by the names of the tasks.

    Parameters
    ----------
    tasks : sequence of Task
    tensors : mapping of str to Tensor, sequence of Tensor, or Tensor
        See `losses_of`.
    what : str
        What to call them in errors: ``"outputs"`` or ``"targets"``.

    Raises
    ------
    SettingError
        A task's is missing, or is not a tensor.
    """
    names = [task.name for task in tasks]
    if isinstance(tensors, Mapping):
        named = {name: tensors[name] for name in names if name in tensors}
        came = f"{what} of {', '.join(map(repr, tensors)) or 'no task'}"
    else:
        listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        named = dict(zip(names, listed, strict=True)) if len(listed) == len(names) else {}
        came = f"{len(listed)} {what} without names"
    if len(named) < len(names):
        raise SettingError(
            came,
            f"a mapping with {', '.join(map(repr, names))}, or as many in this order",
            "Return a mapping from task name to tensor, or leave tasks out.",
        )
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.ndim == 0:
            raise SettingError(
                f"{what} of task {name!r} that are {type(tensor).__name__} without dimensions"
                if isinstance(tensor, Tensor)
                else f"{what} of task {name!r} of type {type(tensor).__name__}",
                "a tensor with the samples along its first dimension",
                "Convert it.",
            )
    return named


def _loss_of(task: Task, output: Tensor, target: Tensor) -> Tensor:
    n = output.shape[0]
    if target.shape[0] != n:
        raise SettingError(
            f"{n} outputs and {target.shape[0]} targets of task {task.name!r}", "as many", "Batch them alike."
        )
    present = rows(valid_entries(target, task.ignore_value)).any(1)
    if present.all():
        loss = _checked(task, task.loss(output, target), n)
    elif present.any():
        some = _checked(task, task.loss(output[present], target[present]), int(present.sum()))
        loss = some.new_zeros(n).masked_scatter(present, some)
    else:
        loss = rows(output)[:, :0].sum(1)
    if not loss.isfinite().all():
        sample = int((~loss.isfinite()).nonzero()[0])
        raise DivergedError(
            f"the loss of task {task.name!r} is {loss[sample].item()} for sample {sample}",
            "a finite number",
            "Look for NaN in its target or output; entries without a target need an ignore_value.",
        )
    return loss


def _checked(task: Task, loss: Tensor, n: int) -> Tensor:
    if loss.shape != (n,):
        raise SettingError(
            f"the loss of task {task.name!r} has shape {tuple(loss.shape)} for {n} samples",
            f"one value per sample, shape ({n},)",
            'Average over all dimensions but the first: reduction="none", then .flatten(1).mean(1).',
        )
    return loss


def classification(name: str, classes: int, ignore_value: int | None = None) -> Task:
    """Return the task of telling which class an image is of.

    Outputs are logits (n, classes), targets int64 (n,). Cross-entropy; accuracy.

    Parameters
    ----------
    name : str
    classes : int
        Number of classes.
    ignore_value : int, optional
        Label of images that do not count.

    Raises
    ------
    SettingError
        There are fewer than two classes.
    """
    _check_number(classes)
    return Task(
        name,
        partial(losses.cross_entropy, ignore_value=ignore_value),
        {"accuracy": metrics.Accuracy(ignore_value)},
        ignore_value=ignore_value,
    )


def segmentation(name: str, classes: int, ignore_value: int | None = 255) -> Task:
    """Return the task of telling which class each pixel is of.

    Outputs are logits (n, classes, h, w), targets int64 (n, h, w). Cross-entropy; mean IoU and
    pixel accuracy.

    Parameters
    ----------
    name : str
    classes : int
        Number of classes.
    ignore_value : int, optional
        Label of pixels that do not count.

    Raises
    ------
    SettingError
        There are fewer than two classes.
    """
    _check_number(classes)
    return Task(
        name,
        partial(losses.cross_entropy, ignore_value=ignore_value),
        {
            "mIoU": metrics.MeanIoU(classes, ignore_value),
            "pixel accuracy": metrics.Accuracy(ignore_value),
        },
        ignore_value=ignore_value,
    )


def depth(name: str = "depth", ignore_value: float | None = 0.0) -> Task:
    """Return the task of telling each pixel's depth.

    Outputs and targets are (n, 1, h, w), in any unit. Masked L1 distance; absolute and relative error
    and the shares within factors 1.25, 1.25^2 and 1.25^3.

    Parameters
    ----------
    name : str
    ignore_value : float, optional
        Depth of pixels that do not count.
    """
    return Task(
        name,
        partial(losses.l1, ignore_value=ignore_value),
        {
            "absolute error": metrics.AbsoluteError(ignore_value),
            "relative error": metrics.RelativeError(ignore_value),
            "within 1.25": metrics.RatioWithin(1.25, ignore_value),
            "within 1.25^2": metrics.RatioWithin(1.25**2, ignore_value),
            "within 1.25^3": metrics.RatioWithin(1.25**3, ignore_value),
        },
        ignore_value=ignore_value,
    )


def normals(name: str = "normals", ignore_value: float | None = 0.0) -> Task:
    """Return the task of telling each pixel's surface normal.

    Outputs and targets are (n, 3, h, w), of any length. 1 - cos; mean and median angle and the shares
    within 11.25, 22.5 and 30 degrees.

    Parameters
    ----------
    name : str
    ignore_value : float, optional
        All three components of pixels that do not count.
    """
    return Task(
        name,
        partial(losses.cosine, ignore_value=ignore_value),
        {
            "mean angle": metrics.MeanAngle(ignore_value),
            "median angle": metrics.MedianAngle(ignore_value),
            "within 11.25": metrics.AngleWithin(11.25, ignore_value),
            "within 22.5": metrics.AngleWithin(22.5, ignore_value),
            "within 30": metrics.AngleWithin(30.0, ignore_value),
        },
        ignore_value=ignore_value,
    )


def edges(name: str = "edges", ignore_value: float | None = None) -> Task:
    """Return the task of telling how much of an edge there is at each pixel.

    Outputs and targets are (n, 1, h, w). L1 distance, as loss and as metric.

    Parameters
    ----------
    name : str
    ignore_value : float, optional
        Of pixels that do not count.
    """
    return Task(
        name,
        partial(losses.l1, ignore_value=ignore_value),
        {"absolute error": metrics.AbsoluteError(ignore_value)},
        ignore_value=ignore_value,
    )


def keypoints(name: str = "keypoints", ignore_value: float | None = None) -> Task:
    """Return the task of telling how much of a key point there is at each pixel; otherwise as `edges`."""
    return edges(name, ignore_value)


def _check_number(classes: int) -> None:
    if classes < 2:
        raise SettingError(f"{classes} classes", "2 or more", "Count the classes; ignored labels are none.")
