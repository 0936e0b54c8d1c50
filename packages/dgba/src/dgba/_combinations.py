"""How an attack combines the tasks: what it climbs, and in which direction.

With the per-sample losses L_t(x) of the tasks t = 1..T, a combination climbs, for every sample alone,

    single    L_s for one task s
    total     sum_t L_t
    signsum   sum_t L_t, in the direction sum_t sign(grad L_t)
    dgba      sum_t log(L_t + floor), or sum_t L_t / (L_t(clean) + floor)
    maxmin    min_t w_t r_t, with the relative rises r_t = log (L_t + floor) / (L_t(clean) + floor)
    bounded   sum of r_t over some tasks, while those of others stay within bounds

The paper states the second form of dgba, the sum of the relative changes (L_t - L_t(clean)) / L_t(clean);
its code divides each gradient by the loss at this step, which gives the gradient of the first, a sum of logs.
Both are one backward pass here; the authors make one a task. The floor keeps a loss that is zero from
dividing: a task whose loss and gradient are zero contributes nothing.

The last two, not in the paper, couple the tasks. Their directions are sum_t w_t grad r_t, with the
multipliers w of the step's program, "max to first order within the room that is left" (`dgba._programs`),
computed anew at each step, at a backward pass a task.

Under a targeted attack every term changes its sign.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Self, TypeVar, get_args

import torch
from torch import Tensor

from dgba._programs import dual_step
from tenfold import DivergedError, SettingError, UnknownNameError

Weights = Literal["current", "clean"]
Room = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Tells how far down and up each entry of images x (n, c, h, w) may go."""
Maker = TypeVar("Maker", bound=Callable[..., "Combination"])
FLOOR = 1e-6
"""What `GradientBalance` adds to every loss before it divides by it or takes its logarithm."""


def _range_of_images(x: Tensor) -> tuple[Tensor, Tensor]:
    return -x, 1 - x


class Combination(ABC):
    """What an attack climbs: the sum of one term a task, and its direction, the gradient of that sum.

    To make another, override `terms`, and `gradient` where the direction is not that of the sum.

    Attributes
    ----------
    clean : mapping of str to Tensor (n,)
        The losses at the clean images, once started; empty where they are not needed.
    sign : float
        1, or -1 under a targeted attack, which lowers what an untargeted one raises.
    room : callable
        How far images may still go: takes x (n, c, h, w), returns the bounds on its change, lo and hi.
    """

    clean: Mapping[str, Tensor] = MappingProxyType({})
    sign: float = 1.0
    room: Room = staticmethod(_range_of_images)

    @property
    def needs_clean(self) -> bool:
        """Whether `start` needs the losses at the clean images."""
        return False

    def start(self, clean: Mapping[str, Tensor], targeted: bool = False, room: Room | None = None) -> Self:
        """Return this combination for one batch of images.

        Parameters
        ----------
        clean : mapping of str to Tensor (n,)
            The losses at the clean images, without gradient; empty unless `needs_clean`.
        targeted : bool
            Lower the losses instead of raising them.
        room : callable, optional
            As the attribute; by default the range of images.
        """
        started = copy.copy(self)
        started.clean = clean
        started.sign = -1.0 if targeted else 1.0
        if room is not None:
            started.room = room
        return started

    @abstractmethod
    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one term (n,) for each task that takes part, differentiable in its loss (n,)."""

    def gains(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the signed terms as one tensor (T, n).

        Raises
        ------
        SettingError
            Gradients are wanted, and a loss has none.
        """
        terms = self.terms(losses)
        if torch.is_grad_enabled():
            for name, term in terms.items():
                if not term.requires_grad:
                    raise _no_gradient(f"the loss of task {name!r}")
        return self.sign * torch.stack(list(terms.values()))

    def objective(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return what the attack raises, one value a sample (n,)."""
        return self.gains(losses).sum(0)

    def gradient(self, losses: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the direction to climb (n, c, h, w), of `x`, from which `losses` were computed."""
        return gradient_of(self.objective(losses), x)


def gradient_of(values: Tensor, x: Tensor, *, keep_graph: bool = False) -> Tensor:
    """Return the gradient in `x` (n, c, h, w) of per-sample `values` (n,), for each sample of its own value.

    Raises
    ------
    SettingError
        No differentiable path leads from `x` to the values.
    DivergedError
        The gradient is NaN or infinite.
    """
    (gradient,) = torch.autograd.grad(values.sum(), x, retain_graph=keep_graph, allow_unused=True)
    if gradient is None:
        raise _no_gradient("what the attack climbs")
    if not gradient.isfinite().all():
        sample = int((~gradient.isfinite()).flatten(1).any(1).nonzero()[0])
        raise DivergedError(
            f"the gradient of what the attack climbs is NaN or infinite for sample {sample}",
            "finite numbers",
            "Look for square roots, logarithms and divisions at 0 in the model and the losses.",
        )
    return gradient


def gradients_of(gains: Tensor, x: Tensor) -> Tensor:
    """Return the gradients (T, n, c, h, w) of `gains` (T, n): one backward pass a task."""
    return torch.stack([gradient_of(gain, x, keep_graph=True) for gain in gains])


_makers: dict[str, Callable[..., Combination]] = {}


def register_combination(name: str) -> Callable[[Maker], Maker]:
    """Decorate a class or function that makes a `Combination`, so that attacks know it by `name`."""

    def register(maker: Maker) -> Maker:
        _makers[name] = maker
        return maker

    return register


def combination_names() -> list[str]:
    """Return the names that `as_combination` knows."""
    return sorted(_makers)


def as_combination(choice: str | Combination) -> Combination:
    """Return the combination of that name; what follows a colon goes to its maker, as in ``single:depth``.

    Raises
    ------
    UnknownNameError
        No combination has this name.
    """
    if isinstance(choice, Combination):
        return choice
    name, _, argument = choice.partition(":")
    if name not in _makers:
        raise UnknownNameError("combination of tasks", name, _makers)
    return _makers[name](argument) if argument else _makers[name]()


@register_combination("single")
@dataclass(eq=False)
class Single(Combination):
    """Climb one task's loss alone.

    Parameters
    ----------
    task : str
        Its name; may be left out where there is only one.
    """

    task: str = ""

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of that task. See `Combination.terms`."""
        if not self.task and len(losses) == 1:
            return dict(losses)
        if not self.task:
            raise SettingError(
                f"combination 'single' without a task, among {len(losses)}",
                "one task",
                f"Name it: 'single:{next(iter(losses))}'.",
            )
        return {self.task: _loss(losses, self.task)}


@register_combination("total")
@dataclass(eq=False)
class Total(Combination):
    """Climb the sum of the losses."""

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses. See `Combination.terms`."""
        return dict(losses)


@register_combination("signsum")
@dataclass(eq=False)
class SignSum(Total):
    """Go where the signs of the tasks' gradients agree; judged, as by the authors, by the total loss."""

    def gradient(self, losses: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the sum over tasks of the signs of the gradients. See `Combination.gradient`."""
        return gradients_of(self.gains(losses), x).sign().sum(0)


@register_combination("dgba")
@dataclass(eq=False)
class GradientBalance(Combination):
    """Dynamic gradient balancing: climb the sum of the losses' relative changes.

    Parameters
    ----------
    weights : {"current", "clean"}
        Divide each gradient by the loss at this step, thus climb the sum of log losses, as the authors'
        code does; or by the loss at the clean image, which is the paper's stated objective.
    floor : float
        Added to the losses that divide.

    Raises
    ------
    SettingError
        `weights` is another word, or `floor` not positive.
    """

    weights: Weights = "current"
    floor: float = FLOOR

    def __post_init__(self) -> None:
        if self.weights not in get_args(Weights):
            raise SettingError(f"weights is {self.weights!r}", "'current' or 'clean'", "Choose one of them.")
        _check_floor(self.floor)

    @property
    def needs_clean(self) -> bool:
        """Whether `start` needs the losses at the clean images."""
        return self.weights == "clean"

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return log losses, or losses over clean losses. See `Combination.terms`."""
        if self.weights == "current":
            return {name: torch.log(loss + self.floor) for name, loss in losses.items()}
        return {name: loss / (self.clean[name] + self.floor) for name, loss in losses.items()}


@register_combination("maxmin")
@dataclass(eq=False)
class MaxMin(Combination):
    """Climb the least relative rise among the tasks, so that none is left out.

    A task whose clean loss is 0 in a sample takes no part in it.

    Parameters
    ----------
    weights : mapping of str to float
        Of the tasks' rises, 1 where it does not say. The same rise of a loss does not do the same harm in
        every task: `dgba.evaluation.damage_per_rise` measures weights that make rises comparable.
    floor : float
        Added to the losses before they are divided.
    tolerance : float
        Relative gap to which each step's program is solved; a finer one leaves more to the worst task
        and less to the others, and gains nothing once several steps are made.

    Raises
    ------
    SettingError
        A weight, `floor` or `tolerance` is not positive.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    floor: float = FLOOR
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        _check_floor(self.floor)
        for task, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise SettingError(
                    f"a weight of {weight} for task {task!r}",
                    "a finite number above 0",
                    "Leave a task out of the attack's tasks to attack the others alone.",
                )
        if not self.tolerance > 0:
            raise SettingError(f"tolerance is {self.tolerance}", "a number above 0", "Leave it out.")

    @property
    def needs_clean(self) -> bool:
        """Whether `start` needs the losses at the clean images."""
        return True

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted relative rises. See `Combination.terms`."""
        for task in self.weights:
            _loss(losses, task)
        rises = _rises(losses, self.clean, self.floor)
        return {name: self.weights.get(name, 1.0) * rise for name, rise in rises.items()}

    def objective(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the least rise of the tasks that take part (n,); 0 where none does."""
        absent = self._absent(losses)
        least = self.gains(losses).masked_fill(absent, torch.inf).amin(0)
        return torch.where(absent.all(0), 0, least)

    def gradient(self, losses: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the tasks' gradients, weighted to raise the least rise most. See `Combination.gradient`."""
        gains = self.gains(losses)
        gradients = gradients_of(gains, x).transpose(0, 1)
        lo, hi = self.room(x.detach())
        # What each is ahead of the last, as the gain of one more entry that is always 1.
        sofar = (gains - self.objective(losses)).detach().mT
        beyond = sofar.amax(1) + (gradients.abs() * (hi - lo)[:, None]).flatten(1).sum(1)
        sofar = torch.where(self._absent(losses).mT, beyond[:, None], sofar)
        one = torch.ones_like(sofar[:, :1])
        step = dual_step(
            torch.cat([gradients.flatten(2), sofar[:, :, None]], 2),
            torch.cat([lo.flatten(1), one], 1),
            torch.cat([hi.flatten(1), one], 1),
            tolerance=self.tolerance,
        )
        return torch.einsum("nt,nt...->n...", step.weights.to(gradients), gradients)

    def _absent(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([self.clean[name] == 0 for name in losses])


@dataclass(eq=False)
class Bounded(Combination):
    """Climb the sum of some tasks' relative rises, while those of others stay within bounds.

    Bounds are kept to first order at each step; the objective, by which best points are chosen, takes off
    `penalty` times what is missing of them. Where floors and ceilings cannot all be met, each is missed
    by as little as possible.

    Parameters
    ----------
    attacked : sequence of str
        The tasks to attack; by default all without a ceiling.
    floors : mapping of str to float
        By how much these tasks' losses must rise: 0.5 for half of the clean loss.
    ceilings : mapping of str to float
        By how much these tasks' losses may rise at most; 0 spares a task.
    penalty : float
        Per unit of log loss outside the bounds.
    floor : float
        Added to the losses before they are divided.

    Raises
    ------
    SettingError
        There are no bounds, one is -1 or less, or `floor` is not positive.
    """

    attacked: Sequence[str] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    penalty: float = 100.0
    floor: float = FLOOR

    def __post_init__(self) -> None:
        _check_floor(self.floor)
        if not self.floors and not self.ceilings:
            raise SettingError("neither floors nor ceilings", "at least one", "Take 'dgba', or give bounds.")
        for bound in (*self.floors.values(), *self.ceilings.values()):
            if not bound > -1:
                raise SettingError(
                    f"a loss bounded by a rise of {bound}",
                    "a number above -1",
                    "Give 0.5 for half of it.",
                )

    @property
    def needs_clean(self) -> bool:
        """Whether `start` needs the losses at the clean images."""
        return True

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the relative rises of the attacked tasks. See `Combination.terms`."""
        names = self.attacked or [name for name in losses if name not in self.ceilings]
        return _rises({name: _loss(losses, name) for name in names}, self.clean, self.floor)

    def objective(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the attacked tasks' rises, less the penalty. See `Combination.objective`."""
        rises, least, most = self._bounded(losses)
        missing = (least - rises).clamp(min=0) + (rises - most).clamp(min=0)
        return self.gains(losses).sum(0) - self.penalty * missing.sum(0)

    def gradient(self, losses: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the gradients weighted so that the step keeps the bounds. See `Combination.gradient`."""
        rises, least, most = self._bounded(losses)
        attack = self.gains(losses).sum(0, keepdim=True)
        gradients = gradients_of(torch.cat([attack, rises]), x).transpose(0, 1)
        sofar = rises.detach()
        free = torch.full_like(attack.detach(), torch.inf)
        step = dual_step(
            gradients,
            *self.room(x.detach()),
            objective="total",
            weights=[1.0] + [0.0] * len(rises),
            floors=torch.cat([-free, least - sofar]).mT,
            ceilings=torch.cat([free, most - sofar]).mT,
        )
        return torch.einsum("nt,nt...->n...", step.weights.to(gradients), gradients)

    def _bounded(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return rises of the tasks with bounds (B, n), and the bounds, none where the clean loss is 0."""
        names = list(dict.fromkeys((*self.floors, *self.ceilings)))
        rises = _rises({name: _loss(losses, name) for name in names}, self.clean, self.floor)
        present = torch.stack([self.clean[name] > 0 for name in names])
        least, most = (
            present.new_tensor(
                [math.log1p(bounds[name]) if name in bounds else none for name in names], dtype=torch.float64
            )[:, None]
            for bounds, none in ((self.floors, -math.inf), (self.ceilings, math.inf))
        )
        return (
            torch.stack(list(rises.values())),
            torch.where(present, least, -torch.inf),
            torch.where(present, most, torch.inf),
        )


@register_combination("spare")
def spare(task: str) -> Bounded:
    """Return the combination that attacks all tasks but one, whose loss is not to rise."""
    return Bounded(ceilings={task: 0.0})


def _check_floor(floor: float) -> None:
    if not floor > 0:
        raise SettingError(f"floor is {floor}", "a number above 0", "Leave it out for the default.")


def _rises(losses: Mapping[str, Tensor], clean: Mapping[str, Tensor], floor: float) -> dict[str, Tensor]:
    return {name: torch.log((loss + floor) / (clean[name] + floor)) for name, loss in losses.items()}


def _loss(losses: Mapping[str, Tensor], task: str) -> Tensor:
    if task not in losses:
        raise UnknownNameError("task", task, losses)
    return losses[task]


def _no_gradient(what: str) -> SettingError:
    return SettingError(
        f"{what} does not depend on the images in a way that can be differentiated",
        "a differentiable path from the images to each attacked task's loss",
        "Look for detach, no_grad, argmax or rounding in the model, or attack the other tasks.",
    )
