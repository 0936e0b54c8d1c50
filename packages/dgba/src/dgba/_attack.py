"""What every attack shares: the model, the tasks, the ball, and the care for one batch of images.

An attack looks for delta within |delta| <= eps, in one of four norms, and images + delta within [0, 1], that
raises what its combination of the tasks' losses says (`dgba._combinations`), or, targeted, lowers it. It
is called as those of torchattacks are: ``attack(images, targets)`` returns adversarial images. Three things
differ. The model's outputs are a mapping of tasks. Every sample is attacked alone: no step, start or
choice depends on what else is in the batch, for a model that treats samples alone, as all do in eval mode.
And each submodule's own mode is restored, so that a frozen batch norm stays frozen.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgba._combinations import Combination, as_combination, gradients_of
from dgba._norms import NORMS, project, random_start, steepest
from dgba._tasks import Outputs, Task, by_task, losses_of
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import write_whole

Targets = Mapping[str, Tensor]
"""Each task's target by its name, n first."""
Goals = Callable[[Tensor, Targets], Outputs]
"""Makes of images (n, c, h, w) in [0, 1] and their targets the outputs to be had."""
ROUNDING = 1e-6
"""How far images may lie outside [0, 1], which undoing a normalisation costs."""


@dataclass(eq=False)
class Attack(ABC):
    """An attack on all tasks of a model at once, or on some.

    To make another, override `perturb`.

    Parameters
    ----------
    model : callable
        Takes images (n, c, h, w) and returns a mapping of task names to outputs, n first, or a sequence of
        outputs in the order of `tasks`. A module is in eval mode for the time of an attack.
    tasks : sequence of Task
    combination : str or Combination
        ``"dgba"``, ``"dgba:clean"``, ``"total"``, ``"signsum"``, ``"single:NAME"``, ``"maxmin"``,
        ``"spare:NAME"``, or an object, such as `dgba.Bounded`.
    norm : {"linf", "l2", "l1", "l0"}
    eps : float
        Radius of the ball, in units of images in [0, 1]; in ``"l0"`` a number of entries.
    random_start : bool
        Start at a random point of the ball, not at the images.
    seed : int
        Of random starts, which depend on it and on each image's content alone.

    Raises
    ------
    SettingError
        No tasks, two of one name, or an impossible `eps`.
    UnknownNameError
        There is no such norm or combination.
    """

    model: Callable[[Tensor], Any] = field(repr=False)
    tasks: Sequence[Task] = field(repr=False)
    _: KW_ONLY
    combination: str | Combination = "dgba"
    norm: str = "linf"
    eps: float = 8 / 255
    random_start: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise SettingError(
                f"the tasks are {names}", "at least one task, each of another name", "Name them apart."
            )
        if self.norm not in NORMS:
            raise UnknownNameError("norm", self.norm, NORMS)
        if not 0 <= self.eps < math.inf:
            raise SettingError(f"eps is {self.eps}", "a number from 0 up", "Give the radius of the ball.")
        if self.norm == "linf" and self.eps > 1:
            raise SettingError(
                f"eps is {self.eps}",
                "at most 1, as images lie in [0, 1]",
                f"Write {self.eps:g} / 255 for grey levels.",
            )
        self.combination = as_combination(self.combination)
        self.targeted = False
        self._goals: Goals | None = None
        self._normalization: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def perturb(self, ascent: Ascent, x: Tensor) -> Tensor:
        """Return adversarial images.

        Parameters
        ----------
        ascent : Ascent
            What to climb, and the steps that stay in the ball.
        x : Tensor (n, c, h, w)
            Where to start.
        """

    def __call__(self, images: Tensor, targets: Outputs, start: Tensor | None = None) -> Tensor:
        """Return adversarial images (n, c, h, w), on the model's device.

        Parameters
        ----------
        images : Tensor (n, c, h, w)
            Of floating point, within [0, 1], or normalised if `set_normalization_used` said so.
        targets : mapping of str to Tensor, sequence of Tensor, or Tensor
            Each task's target, n first: by name, in the order of the tasks, or of the only one. In the
            mode targeted by target, the outputs to be had instead.
        start : Tensor (n, c, h, w), optional
            Where to start, as images; projected into the ball. By default the images, or a random
            start if the attack makes one.

        Raises
        ------
        SettingError
            Images outside [0, 1] or not finite, a task without output or target, or a model that cannot
            be differentiated.
        DivergedError
            A loss or its gradient is NaN or infinite.
        """
        given = images
        with evaluating(self.model), torch.inference_mode(False), torch.enable_grad():
            device = _device_of(self.model, images)
            images = self._checked(images.detach().clone().to(device), "images")
            named = {
                name: target.clone().to(device)
                for name, target in by_task(self.tasks, targets, "targets").items()
            }
            goals = named if self._goals is None else self._goals(images, named)
            ascent = Ascent(self, images, goals, lambda attempt: _generators(given, self.seed, attempt))
            if start is not None:
                start = self._checked(start.detach().clone().to(device), "start")
                if start.shape != images.shape:
                    raise SettingError(
                        f"a start of shape {tuple(start.shape)} for images of {tuple(images.shape)}",
                        "the same shape",
                        "Give one start an image.",
                    )
                x = ascent.project(start)
            else:
                x = ascent.random_start() if self.random_start else images
            adversarial = self.perturb(ascent, x) if len(images) else images
            if self._normalization is not None:
                mean, std = self._normalization
                return (adversarial - mean.to(adversarial)) / std.to(adversarial)
            return adversarial

    def set_mode_default(self) -> None:
        """Raise the losses to the targets that a call gives."""
        self.targeted, self._goals = False, None

    def set_mode_targeted_by_target(self) -> None:
        """Lower the losses to the targets that a call gives: they are the outputs to be had."""
        self.targeted, self._goals = True, None

    def set_mode_targeted_by_function(self, function: Goals) -> None:
        """Lower the losses to what `function` makes of the images in [0, 1] and the targets of a call."""
        self.targeted, self._goals = True, function

    def set_normalization_used(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take and return images normalised as (x - mean) / std, by channel, as the model expects them.

        `eps` and the range [0, 1] remain those of images before normalisation.

        Raises
        ------
        SettingError
            `std` is not positive, or of another length than `mean`.
        """
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise SettingError(
                f"mean is {list(mean)} and std {list(std)}",
                "one of each a channel, std positive",
                "Give those of the model's own preprocessing.",
            )
        self._normalization = (
            torch.tensor(mean, dtype=torch.float64).reshape(1, -1, 1, 1),
            torch.tensor(std, dtype=torch.float64).reshape(1, -1, 1, 1),
        )

    def save(self, loader: Iterable[tuple[Tensor, Outputs]], path: str | Path) -> None:
        """Attack all batches of `loader`; write the images in [0, 1] and the targets with `torch.save`.

        The file holds ``{"images": Tensor, "targets": {task: Tensor}}`` on the CPU, and is there whole or
        not at all.

        Raises
        ------
        SettingError
            The loader is empty.
        OutputError
            The file cannot be written.
        """
        batches = [
            (self(images, targets).cpu(), by_task(self.tasks, targets, "targets"))
            for images, targets in loader
        ]
        if not batches:
            raise SettingError("a loader without batches", "at least one", "Check the data set.")
        images = torch.cat([batch for batch, _ in batches])
        if self._normalization is not None:
            mean, std = self._normalization
            images = (images * std.to(images) + mean.to(images)).clamp(0, 1)
        content = {
            "images": images,
            "targets": {
                task.name: torch.cat([targets[task.name].cpu() for _, targets in batches])
                for task in self.tasks
            },
        }
        write_whole(Path(path), lambda temporary: torch.save(content, temporary))

    def _losses(self, x: Tensor, targets: Outputs) -> dict[str, Tensor]:
        if self._normalization is not None:
            mean, std = self._normalization
            x = (x - mean.to(x)) / std.to(x)
        return losses_of(self.tasks, self.model(x), targets)

    def _checked(self, images: Tensor, what: str) -> Tensor:
        """Return them in [0, 1], without normalisation."""
        if images.ndim != 4 or not images.is_floating_point():
            raise SettingError(
                f"{what} of shape {tuple(images.shape)} and {images.dtype}",
                "(n, c, h, w) of floating point",
                "Convert them, as torchvision's ToTensor does.",
            )
        if self._normalization is not None:
            mean, std = self._normalization
            if images.shape[1] != mean.numel():
                raise SettingError(
                    f"{what} of {images.shape[1]} channels, normalised by {mean.numel()}",
                    "as many of each",
                    "Correct set_normalization_used.",
                )
            images = images * std.to(images) + mean.to(images)
        if images.numel() and not bool(((images >= -ROUNDING) & (images <= 1 + ROUNDING)).all()):
            raise SettingError(
                f"{what} from {images.min():g} to {images.max():g}",
                "finite values within [0, 1]",
                "Divide grey levels by 255, or call set_normalization_used(mean, std) first.",
            )
        return images.clamp(0, 1)


class Ascent:
    """What an attack climbs on one batch: objective and direction at any images, and steps in the ball.

    Made by `Attack`, for `Attack.perturb`.

    Attributes
    ----------
    images : Tensor (n, c, h, w)
        The clean images, in [0, 1].
    generators : callable
        From the number of an attempt to a generator an image, each of which depends on that image alone.
    """

    def __init__(
        self,
        attack: Attack,
        images: Tensor,
        targets: Outputs,
        generators: Callable[[int], Iterator[torch.Generator]],
    ) -> None:
        self.images = images
        self.norm = attack.norm
        self.eps = attack.eps
        self._losses: Callable[[Tensor], dict[str, Tensor]] = partial(attack._losses, targets=targets)
        self.generators = generators
        clean: dict[str, Tensor] = {}
        combination = as_combination(attack.combination)
        if combination.needs_clean:
            with torch.no_grad():
                clean = self._losses(images)
        self.combination = combination.start(clean, attack.targeted, self.room)

    def climb(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the direction to climb (n, c, h, w) at `x`, and the objective there (n,)."""
        x = x.detach().requires_grad_()
        losses = self._losses(x)
        direction = self.combination.gradient(losses, x)
        with torch.no_grad():
            return direction, self.combination.objective(losses)

    def climb_each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients (T, n, c, h, w) of the tasks' terms at `x`, and the objective there (n,)."""
        x = x.detach().requires_grad_()
        losses = self._losses(x)
        gradients = gradients_of(self.combination.gains(losses), x)
        with torch.no_grad():
            return gradients, self.combination.objective(losses)

    def objective(self, x: Tensor) -> Tensor:
        """Return the objective (n,) at `x`, which is cheaper than `climb`."""
        with torch.no_grad():
            return self.combination.objective(self._losses(x))

    def step(self, x: Tensor, direction: Tensor, length: float | Tensor) -> Tensor:
        """Return `x` moved by the steepest step of that `length`, a number or one a sample, in the ball."""
        if self.norm == "l0":
            length = length.clamp(min=1) if isinstance(length, Tensor) else max(length, 1.0)
        return self.project(x + steepest(direction, self.norm, length, -x, 1 - x))

    def project(self, x: Tensor) -> Tensor:
        """Return what is nearest to `x` in the ball and in the range of images."""
        delta = project(x - self.images, self.norm, self.eps, -self.images, 1 - self.images)
        return (self.images + delta).clamp(0, 1)

    def room(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far down and up each entry of `x` may go: in L_inf alone the ball counts, too."""
        lo, hi = -x, 1 - x
        if self.norm == "linf":
            delta = x - self.images
            lo, hi = torch.maximum(lo, -self.eps - delta), torch.minimum(hi, self.eps - delta)
        return lo.clamp(max=0), hi.clamp(min=0)

    def random_start(self, attempt: int = 0) -> Tensor:
        """Return random images in the ball: for each image the same, whatever else is in the batch."""
        lo, hi = -self.images, 1 - self.images
        delta = random_start(self.norm, self.eps, lo, hi, list(self.generators(attempt)))
        return (self.images + delta).clamp(0, 1)


class Best:
    """The best images so far, for every sample alone; those given at first are worse than any.

    Attributes
    ----------
    x : Tensor (n, c, h, w)
    objective : Tensor (n,)
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.objective = x.new_full((len(x),), -math.inf)

    def update(self, x: Tensor, objective: Tensor) -> Tensor:
        """Take those of `x` (n, c, h, w) that are better; return which (n,)."""
        better = objective > self.objective
        self.x = torch.where(better[:, None, None, None], x, self.x)
        self.objective = torch.where(better, objective, self.objective)
        return better


@contextmanager
def evaluating(model: Callable[[Tensor], Any]) -> Iterator[None]:
    """Put a module into eval mode, then every submodule back into its own."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _device_of(model: Callable[[Tensor], Any], images: Tensor) -> torch.device:
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return images.device


def _generators(images: Tensor, seed: int, attempt: int) -> Iterator[torch.Generator]:
    """Yield for each image as given a generator that its content, `seed` and `attempt` determine."""
    for image in images.detach().cpu().contiguous().view(torch.uint8).numpy():
        digest = hashlib.blake2b(image.tobytes(), digest_size=8, key=f"{seed} {attempt}".encode()).digest()
        yield torch.Generator().manual_seed(int.from_bytes(digest, "little"))
