"""How much an attack damages every task, and how far it carries from the task that it aims at.

The paper measures the damage of task t as the mean over its metrics M of

    D_t = 100 s_M (M(x + delta) - M(x)) / M(x),

with s_M = 1 where higher is better and -1 where lower is, so that a negative figure is harm; the mean over
the tasks is the average damage. It is of the whole data set, not of an image. Two figures of the losses
stand beside it: the relative change of the mean loss, and the mean over images and tasks of
``log((L' + f) / (L + f))`` with the floor f, which no single image and no single task can dominate.

Metrics are kept as additive statistics of every image. So data sets stream, the worst of several attacks
can be chosen image by image, and a bootstrap over images is one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgba._attack import Targets, evaluating
from dgba._tasks import Task, by_task, losses_of
from dgba.metrics import Metric, SampleMean
from tenfold import DataError, SettingError

LOSS_FLOOR = 1e-6
"""Added to a loss before its logarithm is taken, or before it divides."""

Batches: TypeAlias = Iterable[tuple[Tensor, Targets]]
Crafter: TypeAlias = Callable[[Tensor, Targets], Tensor]
"""What makes adversarial images of images and targets: any attack of this package."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model does to the images of a data set, image by image.

    Attributes
    ----------
    tasks : tuple of Task
    statistics : dict of str to dict of str to Tensor
        By task and metric the additive statistics of every image, float64, shape (n, k).
    losses : dict of str to Tensor
        By task the loss of every image, float64, shape (n,).
    """

    tasks: tuple[Task, ...]
    statistics: Mapping[str, Mapping[str, Tensor]]
    losses: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.losses[self.tasks[0].name])

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return the value of every metric over all images, by task and metric."""
        every = np.ones((1, len(self)))
        return {
            task.name: {
                name: float(self.resampled(task, name, every)[0]) for name in self.statistics[task.name]
            }
            for task in self.tasks
        }

    def mean_losses(self) -> dict[str, float]:
        """Return the mean over images of every task's loss."""
        return {name: float(values.mean()) for name, values in self.losses.items()}

    def score(self) -> Tensor:
        """Return the sum over tasks of log losses of every image, shape (n,): what DGBA climbs."""
        return torch.stack([(values + LOSS_FLOOR).log() for values in self.losses.values()]).sum(0)

    def resampled(self, task: Task, metric: str, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a metric's value on resampled data sets.

        Parameters
        ----------
        task : Task
        metric : str
        counts : ndarray of float64, shape (b, n)
            How often each image is in each of them.

        Returns
        -------
        ndarray of float64, shape (b,)
            NaN where nothing was valid.
        """
        totals = torch.from_numpy(counts) @ self.statistics[task.name][metric]
        values: NDArray[np.float64] = measures_of(task)[metric].values(totals).numpy()
        return values


@dataclass(frozen=True)
class Damage:
    """Damage by task, in percent, negative where the task suffers, and its average over the tasks."""

    tasks: Mapping[str, float]

    @property
    def average(self) -> float:
        """Mean over the tasks."""
        return float(np.mean(list(self.tasks.values())))

    @property
    def mildest(self) -> float:
        """Damage of the task that suffers least."""
        return max(self.tasks.values())


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """Damage of every task under an attack on every task.

    Attributes
    ----------
    tasks : tuple of str
    damages : ndarray of float64, shape (T, T)
        Percent, attacked task by damaged task.
    """

    tasks: tuple[str, ...]
    damages: NDArray[np.float64]

    @property
    def diagonal(self) -> float:
        """Mean damage of the task that is attacked."""
        return float(np.diag(self.damages).mean())

    @property
    def off_diagonal(self) -> float:
        """Mean damage of the tasks that are not attacked."""
        others = ~np.eye(len(self.tasks), dtype=bool)
        return float(self.damages[others].mean())


def evaluate(
    model: nn.Module, tasks: Sequence[Task], loader: Batches, attack: Crafter | None = None
) -> Evaluation:
    """Measure a model on a data set, as it is or under an attack.

    Parameters
    ----------
    model : Module
        Is in evaluation mode meanwhile.
    tasks : sequence of Task
    loader : iterable of (images, targets)
        Images float32 in [0, 1], shape (n, c, h, w); targets by task name. Evaluations are compared
        image by image, so that every pass must give the same images in the same order.
    attack : callable, optional
        From images and targets to adversarial images: an attack on this model, or on another one.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        The loader gives nothing.
    """
    return compare(model, tasks, loader, {"": attack})[""]


def compare(
    model: nn.Module, tasks: Sequence[Task], loader: Batches, attacks: Mapping[str, Crafter | None]
) -> dict[str, Evaluation]:
    """Measure a model under several attacks in one pass over a data set.

    Parameters
    ----------
    model, tasks, loader
        As for `evaluate`; the order of the images does not matter.
    attacks : mapping of str to callable
        None stands for the images as they are.

    Returns
    -------
    dict of str to Evaluation
        By the names of `attacks`.
    """
    comparison = Comparison(model, tasks, attacks)
    for images, targets in loader:
        comparison.add(images, targets)
    return comparison.evaluations()


class Comparison:
    """The evaluations of `compare` while the batches come; its state dict goes into a checkpoint.

    Parameters
    ----------
    model, tasks, attacks
        As for `compare`.
    """

    def __init__(
        self, model: nn.Module, tasks: Sequence[Task], attacks: Mapping[str, Crafter | None]
    ) -> None:
        self._model = model
        self._tasks = tuple(tasks)
        self._attacks = attacks
        self._statistics: dict[str, list[dict[str, dict[str, Tensor]]]] = {name: [] for name in attacks}
        self._losses: dict[str, list[dict[str, Tensor]]] = {name: [] for name in attacks}

    def add(self, images: Tensor, targets: Targets) -> None:
        """Craft and measure one batch."""
        parameter = next(self._model.parameters(), images)
        images = images.to(parameter.device)
        targets = {name: target.to(parameter.device) for name, target in targets.items()}
        for name, attack in self._attacks.items():
            seen = images if attack is None else attack(images, targets)
            with evaluating(self._model), torch.no_grad():
                outputs = by_task(self._tasks, self._model(seen), "outputs")
            losses = losses_of(self._tasks, outputs, targets)
            self._losses[name].append({key: values.double().cpu() for key, values in losses.items()})
            self._statistics[name].append(
                {
                    task.name: {
                        key: measure.statistics(outputs[task.name], targets[task.name]).double().cpu()
                        for key, measure in measures_of(task).items()
                    }
                    for task in self._tasks
                }
            )

    def evaluations(self) -> dict[str, Evaluation]:
        """Return the evaluations of all batches so far, by attack."""
        if not all(self._losses.values()):
            raise DataError("a loader without images", "one batch at least", "Look for an empty data set.")
        return {
            name: Evaluation(
                self._tasks,
                {
                    task.name: {
                        key: torch.cat([part[task.name][key] for part in self._statistics[name]])
                        for key in measures_of(task)
                    }
                    for task in self._tasks
                },
                {
                    task.name: torch.cat([part[task.name] for part in self._losses[name]])
                    for task in self._tasks
                },
            )
            for name in self._attacks
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured so far."""
        return {"statistics": self._statistics, "losses": self._losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._statistics, self._losses = state["statistics"], state["losses"]


def damage(clean: Evaluation, attacked: Evaluation) -> Damage:
    """Return the damage that an attack did, task by task.

    A metric whose clean value is zero, or that no pixel was valid for, has no relative change and is
    left out of its task's mean. A task without metrics is measured by its loss.

    Raises
    ------
    DataError
        No metric of a task has a relative change.
    SettingError
        The two are of different tasks or numbers of images.
    """
    changes = _damages(clean, attacked, np.ones((1, len(clean))))[0]
    for task, change in zip(clean.tasks, changes, strict=True):
        if np.isnan(change):
            values = ", ".join(f"{name} {value:g}" for name, value in clean.metrics()[task.name].items())
            raise DataError(
                f"clean metrics of task {task.name!r}: {values}",
                "one at least that is neither zero nor undefined",
                "Measure on more images, or with a better model.",
            )
    return Damage({task.name: float(change) for task, change in zip(clean.tasks, changes, strict=True)})


def damage_interval(
    clean: Evaluation,
    attacked: Evaluation,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return intervals of the damage of every task and, as ``"average"``, of their mean.

    Percentiles of a bootstrap over images, the same draws for clean and attacked images.
    """
    count = len(clean)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    changes = _damages(clean, attacked, draws.astype(np.float64))
    columns = [*changes.T, changes.mean(1)]
    tail = 50 * (1 - confidence)
    names = [*(task.name for task in clean.tasks), "average"]
    return {
        name: (float(np.nanpercentile(column, tail)), float(np.nanpercentile(column, 100 - tail)))
        for name, column in zip(names, columns, strict=True)
    }


def relative_loss_change(clean: Evaluation, attacked: Evaluation) -> dict[str, float]:
    """Return 100 (mean L' - mean L) / (mean L + f) of every task, in percent."""
    _check_alike(clean, attacked)
    before, after = clean.mean_losses(), attacked.mean_losses()
    return {name: 100 * (after[name] - before[name]) / (before[name] + LOSS_FLOOR) for name in before}


def log_ratio(clean: Evaluation, attacked: Evaluation) -> float:
    """Return the mean over images and tasks of log((L' + f) / (L + f))."""
    _check_alike(clean, attacked)
    return float((attacked.score() - clean.score()).mean()) / len(clean.tasks)


def damage_per_rise(clean: Evaluation, attacked: Evaluation) -> dict[str, float]:
    """Measure what harm a rise of each task's loss stands for, as weights of `dgba.MaxMin`.

    Take the weights on images that nothing is judged by.

    Returns
    -------
    dict of str to float
        Damage over the mean of log((L' + f) / (L + f)), by task, relative to the mean over the tasks.

    Raises
    ------
    DataError
        The loss of a task did not rise, or the task took no harm.
    """
    _check_alike(clean, attacked)
    harm = damage(clean, attacked).tasks
    ratios = {}
    for name, before in clean.losses.items():
        rise = float(((attacked.losses[name] + LOSS_FLOOR) / (before + LOSS_FLOOR)).log().mean())
        if not (rise > 0 > harm[name]):
            raise DataError(
                f"a damage of {harm[name]:.3g} % at a mean log ratio of {rise:.3g} of the loss of {name!r}",
                "a loss that rises and a task that suffers",
                "Measure with a stronger attack, or on more images.",
            )
        ratios[name] = -harm[name] / rise
    mean = sum(ratios.values()) / len(ratios)
    return {name: ratio / mean for name, ratio in ratios.items()}


def transfer_matrix(
    model: nn.Module, tasks: Sequence[Task], loader: Batches, attack: Callable[[str], Crafter]
) -> TransferMatrix:
    """Attack every task alone, and measure the damage of all.

    Parameters
    ----------
    model, tasks, loader
        As for `compare`.
    attack : callable
        From the name of a task to an attack on that task.
    """
    crafters = {task.name: attack(task.name) for task in tasks}
    found = compare(model, tasks, loader, {"": None, **crafters})
    return transfer_of(found[""], {task.name: found[task.name] for task in tasks})


def transfer_of(clean: Evaluation, attacked: Mapping[str, Evaluation]) -> TransferMatrix:
    """Make a transfer matrix of evaluations under an attack on each task, by its name."""
    rows = [list(damage(clean, attacked[task.name]).tasks.values()) for task in clean.tasks]
    return TransferMatrix(tuple(task.name for task in clean.tasks), np.array(rows))


def eps_curve(
    model: nn.Module,
    tasks: Sequence[Task],
    loader: Batches,
    attack: Callable[[float], Crafter],
    epsilons: Sequence[float],
) -> dict[float, Damage]:
    """Measure the damage over the size of the perturbation.

    Parameters
    ----------
    model, tasks, loader
        As for `compare`.
    attack : callable
        From eps to an attack.
    epsilons : sequence of float

    Returns
    -------
    dict of float to Damage
        By eps.
    """
    found = compare(model, tasks, loader, {"clean": None, **{str(eps): attack(eps) for eps in epsilons}})
    return {eps: damage(found["clean"], found[str(eps)]) for eps in epsilons}


def worst_case(evaluations: Sequence[Evaluation], task: str = "") -> Evaluation:
    """Choose for every image the evaluation in which it fares worst.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        Of the same images in the same order.
    task : str
        Choose by this task's loss; by the sum over tasks of log losses when empty.
    """
    for other in evaluations[1:]:
        _check_alike(evaluations[0], other)
    harm = torch.stack([item.losses[task] if task else item.score() for item in evaluations])
    place = (harm.argmax(0), torch.arange(harm.shape[1]))
    first = evaluations[0]
    return Evaluation(
        first.tasks,
        {
            name: {
                metric: torch.stack([item.statistics[name][metric] for item in evaluations])[place]
                for metric in metrics
            }
            for name, metrics in first.statistics.items()
        },
        {name: torch.stack([item.losses[name] for item in evaluations])[place] for name in first.losses},
    )


def measures_of(task: Task) -> dict[str, Metric]:
    """Return the metrics of a task by name; its loss where it has none."""
    return task.measures() or {"loss": SampleMean(task.loss)}


def _damages(clean: Evaluation, attacked: Evaluation, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the damage of every task on resampled data sets, shape (b, T); NaN where it has none."""
    _check_alike(clean, attacked)
    columns = []
    for task in clean.tasks:
        changes = []
        for name, measure in measures_of(task).items():
            before, after = (item.resampled(task, name, counts) for item in (clean, attacked))
            with np.errstate(divide="ignore", invalid="ignore"):
                change = (after - before) / before
            change[before == 0] = np.nan
            changes.append(100 * change if measure.higher_is_better else -100 * change)
        usable = np.isfinite(changes)
        total = np.where(usable, changes, 0.0).sum(0)
        number = usable.sum(0)
        columns.append(np.where(number > 0, total / np.maximum(number, 1), np.nan))
    return np.stack(columns, 1)


def _check_alike(clean: Evaluation, attacked: Evaluation) -> None:
    names = [[task.name for task in item.tasks] for item in (clean, attacked)]
    if names[0] != names[1] or len(clean) != len(attacked):
        raise SettingError(
            f"evaluations of {len(clean)} images for {', '.join(names[0])} and of {len(attacked)} "
            f"for {', '.join(names[1])}",
            "the same tasks and images",
            "Evaluate both on the same data.",
        )
