"""Training and evaluation on tensors held in memory, beside any pruner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slr_prune._pruner import Pruner

Precision = Literal["float32", "bfloat16"]

PADDING = 4
PASS = 1 / 3
"""What a forward pass over the training set costs, in epochs: a backward pass is two forward ones."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images, float32 (n, c, h, w), and labels, int64 (n,)."""

    x: Tensor
    y: Tensor

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every example once, in an order drawn from `generator`."""
        for index in torch.randperm(len(self.y), generator=generator).split(size):
            yield self.x[index], self.y[index]


@dataclass(frozen=True)
class Loop:
    """How an epoch of training goes.

    Attributes
    ----------
    batch_size : int
    precision : {"float32", "bfloat16"}
        Of the forward pass. With ``"bfloat16"`` it runs under autocast; weights, gradients,
        multipliers and evaluation stay float32.
    augment : bool
        Shift and mirror the images; see `augmented`.
    iterations : int
        Calls of the pruner's ``step`` in an epoch, at equal distances.
    exact : bool
        Give the pruner the loss of a pass over all examples instead of the mean loss of the
        batches since the last call.
    """

    batch_size: int
    precision: Precision = "float32"
    augment: bool = False
    iterations: int = 1
    exact: bool = False

    @property
    def cost(self) -> float:
        """Passes over the training set beyond the training itself, in epochs an epoch."""
        return PASS * self.iterations if self.exact else 0.0


def train_epoch(
    model: nn.Module,
    pruner: Pruner | None,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    loop: Loop,
) -> float:
    """Train for one epoch, with the pruner's steps, and return the mean cross entropy."""
    batches = -(-len(examples.y) // loop.batch_size)
    ends = {round(batches * part / loop.iterations) for part in range(1, loop.iterations + 1)}
    model.train()
    total = torch.zeros((), dtype=torch.float64)
    before, seen_before, seen = total, 0, 0
    for batch, (x, y) in enumerate(examples.batches(loop.batch_size, generator), start=1):
        if loop.augment:
            x = augmented(x, generator)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=loop.precision == "bfloat16"):
            output = model(x)
        loss = F.cross_entropy(output.float(), y)
        optimizer.zero_grad()
        loss.backward()
        if pruner is not None:
            pruner.add_gradient()
        optimizer.step()
        total = total + loss.detach().double() * len(y)
        seen += len(y)
        if pruner is None:
            continue
        pruner.constrain()
        if batch in ends:
            mean = (total - before).item() / (seen - seen_before)
            pruner.step(mean_loss(model, examples) if loop.exact else mean)
            model.train()
            before, seen_before = total, seen
    return total.item() / len(examples.y)


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift every image by up to four pixels, filling with zeros, and mirror every other one.

    Parameters
    ----------
    x : Tensor
        Images, (n, c, h, w).
    generator : torch.Generator
        Draws the shifts and the mirroring of each image.
    """
    n, channels, height, width = x.shape
    shift = torch.randint(2 * PADDING + 1, (2, n, 1), generator=generator)
    mirror = torch.randint(2, (n, 1), generator=generator).bool()
    rows = shift[0] + torch.arange(height)
    columns = shift[1] + torch.arange(width)
    columns = torch.where(mirror, columns.flip(1), columns)
    padded = F.pad(x, [PADDING] * 4)
    return padded[
        torch.arange(n)[:, None, None, None],
        torch.arange(channels)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


@torch.no_grad()
def mean_loss(model: nn.Module, examples: Examples, batch_size: int = 1000) -> float:
    """Return the mean cross entropy over all examples, in evaluation mode and float32."""
    losses = [
        F.cross_entropy(output, y, reduction="sum").double()
        for output, y in zip(
            _outputs(model, examples.x, batch_size), examples.y.split(batch_size), strict=True
        )
    ]
    return torch.stack(losses).sum().item() / len(examples.y)


def annealed_sgd(
    model: nn.Module, lr: float, epochs: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return SGD with momentum 0.9, and what anneals its rate to a twentieth along a cosine."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=lr / 20)


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples, batch_size: int = 1000) -> float:
    """Return the percentage of examples classified correctly, in evaluation mode and float32."""
    predicted = torch.cat([output.argmax(1) for output in _outputs(model, examples.x, batch_size)])
    return 100 * (predicted == examples.y).double().mean().item()


def _outputs(model: nn.Module, x: Tensor, batch_size: int) -> Iterator[Tensor]:
    model.eval()
    for batch in x.split(batch_size):
        yield model(batch.contiguous(memory_format=torch.channels_last))
