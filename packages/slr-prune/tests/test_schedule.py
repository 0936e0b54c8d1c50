"""Epochs of pruning, then epochs of retraining under the masks."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slr_prune import ADMMPruner, GradualPruner, OneShotPruner, Pruner, SLRPruner
from slr_prune._schedule import EpochSchedule, check_prune_epochs
from tenfold import SettingError

METHODS: list[Callable[[nn.Module], Pruner]] = [
    lambda model: SLRPruner(model, 0.7, rho=0.5),
    lambda model: ADMMPruner(model, 0.7, rho=0.5),
    lambda model: GradualPruner(model, 0.7, steps=1000, every=1),
    lambda model: OneShotPruner(model, 0.7),
]
OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-3),
    lambda parameters: torch.optim.AdamW(parameters, 0.01),
]
BATCHES, PRUNE, RETRAIN = 5, 2, 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))


def zeros(model: nn.Module) -> list[Tensor]:
    return [weight == 0 for name, weight in model.named_parameters() if name.endswith("weight")]


@pytest.mark.parametrize("make", METHODS, ids=["slr", "admm", "gradual", "oneshot"])
@pytest.mark.parametrize("make_optimizer", OPTIMIZERS, ids=["momentum", "adamw"])
def test_retraining_moves_only_what_is_kept(
    make: Callable[[nn.Module], Pruner], make_optimizer: Callable[[Any], torch.optim.Optimizer]
) -> None:
    model = network()
    schedule = EpochSchedule(make(model), PRUNE)
    optimizer = make_optimizer(model.parameters())
    x, y = torch.randn(8, 10), torch.randint(3, (8,))
    for epoch in range(PRUNE + RETRAIN):
        if epoch == PRUNE:
            cut = zeros(model)
            weights = [weight.detach().clone() for weight in schedule.pruner.weights.values()]
            assert all(layer.sum() == round(0.7 * layer.numel()) for layer in cut)
            assert any(  # the optimizer would move what was cut
                (buffer[layer] != 0).any()
                for weight, layer in zip(schedule.pruner.weights.values(), cut, strict=True)
                for key, buffer in optimizer.state[weight].items()
                if key in ("momentum_buffer", "exp_avg")
            )
        for _ in range(BATCHES):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            schedule.pruner.add_gradient()
            optimizer.step()
            schedule.pruner.constrain()
            schedule.observe(loss)
            if epoch >= PRUNE:
                assert all(map(torch.equal, zeros(model), cut))
        schedule.end_epoch(schedule.mean())
        assert schedule.finalized is (epoch + 1 >= PRUNE)
    assert schedule.epochs == PRUNE + RETRAIN
    for before, weight in zip(weights, schedule.pruner.weights.values(), strict=True):
        assert not torch.equal(before, weight)


def test_only_the_epochs_of_the_budget_iterate() -> None:
    pruner = SLRPruner(network(), 0.7)
    schedule = EpochSchedule(pruner, PRUNE)
    for _ in range(PRUNE):
        schedule.end_epoch(1.0)
    masks, multipliers = dict(pruner.masks), dict(pruner.multipliers)
    for _ in range(RETRAIN):
        schedule.end_epoch(0.5)
    schedule.finalize()
    assert len(pruner.history) == PRUNE
    assert all(torch.equal(pruner.masks[name], mask) for name, mask in masks.items())
    assert all(torch.equal(pruner.multipliers[name], value) for name, value in multipliers.items())
    assert pruner.penalty().item() == 0


def test_without_a_budget_every_epoch_prunes() -> None:
    pruner = SLRPruner(network(), 0.7)
    schedule = EpochSchedule(pruner, None)
    for _ in range(4):
        schedule.end_epoch(1.0)
    assert not schedule.finalized
    assert len(pruner.history) == 4
    schedule.finalize()
    assert all(layer.sum() == round(0.7 * layer.numel()) for layer in zeros(pruner.model))


def test_the_mean_is_weighted_and_starts_anew_every_epoch() -> None:
    schedule = EpochSchedule(OneShotPruner(network(), 0.5), None)
    schedule.observe(1.0, 3)
    schedule.observe(torch.tensor(5.0, requires_grad=True))
    assert schedule.mean() == 2.0
    schedule.end_epoch(schedule.mean())
    schedule.observe(7.0)
    assert schedule.mean() == 7.0


@pytest.mark.parametrize("epochs", [1, PRUNE, PRUNE + 1])
def test_the_state_is_restored(epochs: int) -> None:
    schedule = EpochSchedule(SLRPruner(network(), 0.7), PRUNE)
    for _ in range(epochs):
        schedule.end_epoch(1.0)
    schedule.observe(3.0, 2)
    other = EpochSchedule(SLRPruner(schedule.pruner.model, 0.7), PRUNE)
    other.load_state_dict(schedule.state_dict())
    assert (other.epochs, other.finalized, other.mean()) == (epochs, epochs >= PRUNE, 3.0)
    other.end_epoch(1.0)
    assert other.finalized is (epochs + 1 >= PRUNE)


def test_an_epoch_without_a_loss_is_refused() -> None:
    with pytest.raises(SettingError, match="without a training loss"):
        EpochSchedule(OneShotPruner(network(), 0.5), None).mean()


@pytest.mark.parametrize("value", [0, -1, -math.inf])
def test_a_budget_below_one_epoch_is_refused(value: Any) -> None:
    check_prune_epochs(None)
    check_prune_epochs(1)
    with pytest.raises(SettingError, match="prune_epochs"):
        check_prune_epochs(value)
