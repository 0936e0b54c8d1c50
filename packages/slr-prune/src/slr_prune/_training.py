"""Plain training and evaluation on tensors held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slr_prune._pruner import Pruner


@dataclass(frozen=True, eq=False)
class Examples:
    """Images, float32 (n, c, h, w), and labels, int64 (n,)."""

    x: Tensor
    y: Tensor

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every example once, in an order drawn from `generator`."""
        for index in torch.randperm(len(self.y), generator=generator).split(size):
            yield self.x[index], self.y[index]


def train_epoch(
    model: nn.Module,
    pruner: Pruner | None,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    """Train for one epoch and return the mean cross entropy, without the pruner's penalty."""
    model.train()
    total = torch.zeros((), dtype=torch.float64)
    for x, y in examples.batches(batch_size, generator):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (loss if pruner is None else loss + pruner.penalty()).backward()
        optimizer.step()
        if pruner is not None:
            pruner.constrain()
        total += loss.detach().double() * len(y)
    return total.item() / len(examples.y)


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples, batch_size: int = 1000) -> float:
    """Return the percentage of examples classified correctly."""
    model.eval()
    predicted = torch.cat([model(x).argmax(1) for x in examples.x.split(batch_size)])
    return 100 * (predicted == examples.y).double().mean().item()
