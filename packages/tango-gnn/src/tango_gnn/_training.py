"""Training of one network on one task, and what it costs.

The whole graph is one batch, and the learning rate falls to zero along a cosine. Scores are those of the last
epoch: to choose an epoch by a validation score would add the noise of the choice to the difference of two
trainings. They are measured with the network in evaluation mode, which computes with the training's widths
and rounds to the nearest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tango_gnn._graph import Graph
from tango_gnn.datasets import LinkData, NodeData
from tenfold import DivergedError


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    Attributes
    ----------
    graph : Graph
    features : Tensor
    outputs : int
        Width of the network's result.
    loss : callable
        From the network's result, and a generator of whatever is drawn in an epoch.
    scores : callable
        From the network's result to the validation and the test score, in percent.
    """

    graph: Graph
    features: Tensor
    outputs: int
    loss: Callable[[Tensor, torch.Generator], Tensor]
    scores: Callable[[Tensor], tuple[float, float]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: Adam over `epochs` steps, from `lr` down to 0."""

    epochs: int
    lr: float
    weight_decay: float


@dataclass
class Outcome:
    """What a training gave.

    Attributes
    ----------
    losses : list of float
        Of every epoch.
    validation, test : float
        Scores in percent, after the last epoch.
    kept_bytes : int
        What the first epoch's forward pass keeps for its backward pass, without the parameters, the
        features and the graph.
    seconds : list of float
        Of every epoch's training step.
    """

    losses: list[float] = field(default_factory=list)
    validation: float = 0.0
    test: float = 0.0
    kept_bytes: int = 0
    seconds: list[float] = field(default_factory=list)


def node_task(data: NodeData) -> Task:
    """Return the classification of nodes: cross-entropy on the training nodes, accuracy on the others."""
    labels = {split: data.labels[getattr(data, split)] for split in ("train", "validation", "test")}

    def loss(result: Tensor, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(result[data.train], labels["train"])

    def scores(result: Tensor) -> tuple[float, float]:
        found = [
            100 * float((result[getattr(data, split)].argmax(1) == labels[split]).float().mean())
            for split in ("validation", "test")
        ]
        return found[0], found[1]

    return Task(data.graph, data.features, data.classes, loss, scores)


def link_task(data: LinkData, hidden: int) -> Task:
    """Return the prediction of links by dot products.

    The loss is the logistic one on the training pairs and as many random ones, drawn anew in every epoch; the
    score is the area under the ROC curve.
    """
    truth = torch.cat([torch.ones(data.train.shape[1]), torch.zeros(data.train.shape[1])])

    def loss(result: Tensor, generator: torch.Generator) -> Tensor:
        others = torch.randint(data.nodes, data.train.shape, generator=generator)
        return F.binary_cross_entropy_with_logits(_dots(result, torch.cat([data.train, others], 1)), truth)

    def scores(result: Tensor) -> tuple[float, float]:
        return (
            auc(_dots(result, data.validation), _dots(result, data.validation_negatives)),
            auc(_dots(result, data.test), _dots(result, data.test_negatives)),
        )

    return Task(data.graph, data.features, hidden, loss, scores)


def train(network: nn.Module, task: Task, how: Schedule, seed: int) -> Outcome:
    """Train a network.

    Parameters
    ----------
    network : Module
        Called as ``network(graph, features)``.
    task : Task
    how : Schedule
    seed : int
        Of the dropout and of what the task draws: the same in networks of one architecture.

    Raises
    ------
    DivergedError
        The loss is not finite.
    """
    outcome = Outcome()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, how.epochs))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(how.epochs):
            started = time.perf_counter()
            network.train()
            optimizer.zero_grad()
            if epoch:
                loss = task.loss(network(task.graph, task.features), generator)
            else:
                loss, outcome.kept_bytes = _measured(network, task, generator)
            value = loss.item()
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss in epoch {epoch + 1} is {value}", "a finite number", "Lower the learning rate."
                )
            loss.backward()
            optimizer.step()
            schedule.step()
            outcome.seconds.append(time.perf_counter() - started)
            outcome.losses.append(value)
    network.eval()
    with torch.no_grad():
        outcome.validation, outcome.test = task.scores(network(task.graph, task.features))
    return outcome


def auc(positives: Tensor, negatives: Tensor) -> float:
    """Return the area under the ROC curve in percent: how often a positive is above a negative.

    Equal scores count half.
    """
    ordered = negatives.sort().values
    below = torch.searchsorted(ordered, positives) + torch.searchsorted(ordered, positives, right=True)
    return 50 * float(below.double().mean()) / len(negatives)


def _measured(network: nn.Module, task: Task, generator: torch.Generator) -> tuple[Tensor, int]:
    """Return the loss, and how many bytes are kept for its gradient, a storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (task.features, *network.parameters())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = task.loss(network(task.graph, task.features), generator)
    return loss, sum(size for pointer, size in kept.items() if pointer not in own)


def _dots(result: Tensor, pairs: Tensor) -> Tensor:
    return (result[pairs[0]] * result[pairs[1]]).sum(1)
