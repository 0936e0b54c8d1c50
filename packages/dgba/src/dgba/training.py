"""Training of multi-task models, on clean images or on adversarial ones as well.

The loss is the sum over tasks of the mean loss; the optimizer Adam with betas .5 and .999 and weight decay
1e-4, whose rate is halved after every fifth of the iterations: the paper's 4,000 of 20,000. Adversarial
training makes a clean step and then an adversarial one on every batch, as the paper does; two cheaper
variants come from the literature:

- standard: step on x, then on attack(x).
- fast: step on x, then on x + clip(u + 1.25 eps sign(g)), with u uniform in the ball and g the gradient there
  (Wong et al., ICLR 2020): one step of the attack's combination.
- free: step on x + delta four times, from delta = 0, moving delta by eps sign(gradient of the training loss),
  which the backward pass of the step gives for free (Shafahi et al., NeurIPS 2019).

Free training thus follows the sum of the losses, whatever the attack combines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dgba._attack import Attack
from dgba._pgd import PGD
from dgba._tasks import Task, losses_of
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Run

Targets = Mapping[str, Tensor]
Variant = Literal["standard", "fast", "free"]
Inputs = Callable[[Tensor, Targets], Iterator[Tensor]]
"""From a batch to the images of its optimizer steps, the clean ones first."""

PHASES = 5
REPLAYS = 4
OVERSHOOT = 1.25


def train(
    model: nn.Module,
    tasks: Sequence[Task],
    data: Dataset[tuple[Tensor, dict[str, Tensor]]],
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    adversarial: Callable[[nn.Module], Attack] | None = None,
    variant: Variant = "standard",
    seed: int = 0,
    run: Run[Any] | None = None,
    stage: str = "train",
) -> dict[str, list[float]]:
    """Train a model where it stands, and leave it in eval mode.

    Parameters
    ----------
    model : Module
        Takes images and returns the outputs of all tasks.
    tasks : sequence of Task
    data : Dataset
        Of known length, of an image (c, h, w) in [0, 1] and its targets by task.
    epochs, batch_size : int
    learning_rate : float
        Of the first fifth of the iterations; half of that in the second, and so on.
    adversarial : callable, optional
        Makes an attack on the model; without it, training is on clean images alone.
    variant : {"standard", "fast", "free"}
        How adversarial images are made. The last two take from the attack its eps, in L_inf, and the fast
        one its combination.
    seed : int
        Of the order of the images and of random starts.
    run : Run, optional
        Checkpoints every epoch as a stage of this run, which goes on from there when resumed.
    stage : str
        Names the stage and the histories.

    Returns
    -------
    dict of str to list of float
        The history of the run, if one came: at each epoch the mean loss of every task in training, under
        ``"<stage> <task>"``, and on adversarial images under ``"<stage> adversarial <task>"``.

    Raises
    ------
    SettingError
        There are no data, a number is not positive, or a fast or free variant is to attack in another
        norm.
    UnknownNameError
        There is no such variant.
    DivergedError
        A loss became NaN or infinite.
    """
    size = len(data)  # type: ignore[arg-type]
    if size < 1 or epochs < 1 or batch_size < 1 or not learning_rate > 0:
        raise SettingError(
            f"{size} images, {epochs} epochs, batches of {batch_size}, learning rate {learning_rate:g}",
            "all above 0",
            "Correct them.",
        )
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(data, batch_size, shuffle=True, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, betas=(0.5, 0.999), weight_decay=1e-4)
    phase = max(1, epochs * len(loader) // PHASES)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, phase, gamma=0.5)
    inputs = _inputs(model, tasks, adversarial, variant, generator)
    device = next(model.parameters()).device

    history: dict[str, list[float]] = {}
    steps: Iterable[int] = range(epochs)
    if run is not None:
        steps = run.stage(
            stage, epochs, model=model, optimizer=optimizer, scheduler=scheduler, generator=generator
        )
    for _ in steps:
        sums: dict[str, float] = {}
        for batch, batch_targets in loader:
            images = batch.to(device)
            targets = {name: target.to(device) for name, target in batch_targets.items()}
            met: dict[str, dict[str, Tensor]] = {}
            for x in inputs(images, targets):
                model.train()
                losses = losses_of(tasks, model(x), targets)
                optimizer.zero_grad()
                torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
                optimizer.step()
                met[f"{stage} adversarial" if met else stage] = losses
            scheduler.step()
            for kind, losses in met.items():
                for task, loss in losses.items():
                    name = f"{kind} {task}"
                    sums[name] = sums.get(name, 0.0) + loss.detach().sum().item()
        for name, total in sums.items():
            if run is None:
                history.setdefault(name, []).append(total / size)
            else:
                run.log(name, total / size)
    model.eval()
    return history if run is None else run.history


def _inputs(
    model: nn.Module,
    tasks: Sequence[Task],
    adversarial: Callable[[nn.Module], Attack] | None,
    variant: Variant,
    generator: torch.Generator,
) -> Inputs:
    if variant not in get_args(Variant):
        raise UnknownNameError("variant of adversarial training", variant, get_args(Variant))
    if adversarial is None:
        return lambda images, targets: iter((images,))
    attack = adversarial(model)
    if variant == "standard":
        return partial(_crafted, attack, generator)
    if attack.norm != "linf":
        raise SettingError(
            f"{variant} adversarial training with an attack in {attack.norm}",
            "an attack in linf",
            'Take variant="standard".',
        )
    if variant == "free":
        return partial(_free, attack.eps)
    step = PGD(
        model,
        tasks,
        combination=attack.combination,
        eps=attack.eps,
        alpha=OVERSHOOT * attack.eps,
        steps=1,
        keep_best=False,
    )
    return partial(_crafted, step, generator)


def _crafted(
    attack: Attack, generator: torch.Generator, images: Tensor, targets: Targets
) -> Iterator[Tensor]:
    yield images
    # The random start of an image is the same whenever the seed is: draw another one every time.
    attack.seed = int(torch.randint(2**62, (), generator=generator))
    yield attack(images, targets)


def _free(eps: float, images: Tensor, targets: Targets) -> Iterator[Tensor]:
    delta = torch.zeros_like(images)
    for _ in range(REPLAYS):
        x = (images + delta).clamp(0, 1).requires_grad_()
        yield x
        assert x.grad is not None
        delta = (delta + eps * x.grad.sign()).clamp(-eps, eps)
