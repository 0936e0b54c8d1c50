"""How an attack combines the tasks: what it climbs, and in which direction.

With the per-sample losses L_t(x) of the tasks t = 1..T, a combination climbs, for every sample alone,

    single    L_s for one task s
    total     sum_t L_t
    signsum   sum_t L_t, in the direction sum_t sign(grad L_t)
    dgba      sum_t log(L_t + floor), or sum_t L_t / (L_t(clean) + floor)

The paper states the last one's second form, the sum of the relative changes (L_t - L_t(clean)) / L_t(clean);
its code divides each gradient by the loss at this step, which gives the gradient of the first, a sum of logs.
Both are one backward pass here; the authors make one a task. The floor keeps a loss that is zero from
dividing: a task whose loss and gradient are zero contributes nothing.

Under a targeted attack every term changes its sign.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self, TypeVar, get_args

import torch
from torch import Tensor

from tenfold import SettingError, UnknownNameError

Weights = Literal["current", "clean"]
Maker = TypeVar("Maker", bound=Callable[..., "Combination"])
FLOOR = 1e-6
"""What `GradientBalance` adds to every loss before it divides by it or takes its logarithm."""


class Combination(ABC):
    """What an attack climbs: the sum of one term a task, and its direction, the gradient of that sum.

    To make another, override `terms`, and `gradient` where the direction is not that of the sum.

    Attributes
    ----------
    clean : mapping of str to Tensor (n,)
        The losses at the clean images, once started; empty where they are not needed.
    sign : float
        1, or -1 under a targeted attack, which lowers what an untargeted one raises.
    """

    clean: Mapping[str, Tensor] = MappingProxyType({})
    sign: float = 1.0

    @property
    def needs_clean(self) -> bool:
        """Whether `start` needs the losses at the clean images."""
        return False

    def start(self, clean: Mapping[str, Tensor], targeted: bool = False) -> Self:
        """Return this combination for one batch of images.

        Parameters
        ----------
        clean : mapping of str to Tensor (n,)
            The losses at the clean images, without gradient; empty unless `needs_clean`.
        targeted : bool
            Lower the losses instead of raising them.
        """
        started = copy.copy(self)
        started.clean = clean
        started.sign = -1.0 if targeted else 1.0
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
    """
    (gradient,) = torch.autograd.grad(values.sum(), x, retain_graph=keep_graph, allow_unused=True)
    if gradient is None:
        raise _no_gradient("what the attack climbs")
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
        if not self.floor > 0:
            raise SettingError(f"floor is {self.floor}", "a number above 0", "Leave it out for the default.")

    @property
    def needs_clean(self) -> bool:
        """Whether `start` needs the losses at the clean images."""
        return self.weights == "clean"

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return log losses, or losses over clean losses. See `Combination.terms`."""
        if self.weights == "current":
            return {name: torch.log(loss + self.floor) for name, loss in losses.items()}
        return {name: loss / (self.clean[name] + self.floor) for name, loss in losses.items()}


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
