"""The interface that all methods share, and the baselines."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slr_prune import ADMMPruner, GradualPruner, OneShotPruner, Pruner, SLRPruner
from tenfold import SettingError, UnknownNameError

METHODS: list[tuple[type[Pruner], dict[str, Any]]] = [
    (SLRPruner, {}),
    (ADMMPruner, {}),
    (OneShotPruner, {}),
    (GradualPruner, {"steps": 10, "every": 2}),
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(216, 10), nn.Linear(10, 4)
    )


def sparsity_of(weight: Tensor) -> float:
    return (weight == 0).double().mean().item()


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_finalize_reaches_the_target_and_constrain_keeps_it(
    method: type[Pruner], settings: dict[str, Any]
) -> None:
    model = network()
    pruner = method(model, {"0": 0.5, "3": 0.9}, **settings)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(3):
        loss = model(torch.randn(4, 1, 8, 8)).square().mean()
        optimizer.zero_grad()
        (loss + pruner.penalty()).backward()
        optimizer.step()
        pruner.constrain()
        pruner.step(loss.item())
        if epoch == 1:
            pruner.finalize()
            assert pruner.penalty().item() == 0.0
    assert sparsity_of(model[0].weight) == pytest.approx(0.5, abs=1 / 54)
    assert sparsity_of(model[3].weight) == pytest.approx(0.9, abs=1 / 2160)
    assert sparsity_of(model[4].weight) == 0


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_pruned_is_undone_even_after_an_error(method: type[Pruner], settings: dict[str, Any]) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruner = method(model, 0.8, **settings)

    def fail() -> None:
        with pruner.pruned() as inside:
            assert inside is model
            assert sparsity_of(model[3].weight) == pytest.approx(0.8, abs=0.01)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_gradual_follows_the_cubic_ramp() -> None:
    model = nn.Sequential(nn.Linear(100, 100))
    pruner = GradualPruner(model, 0.9, steps=40, every=5)
    for t in range(1, 61):
        pruner.constrain()
        with torch.no_grad():
            weight = model[0].weight.clone()
        if t < 5:
            assert sparsity_of(weight) == 0
        elif t % 5 == 0:
            expected = 0.9 * (1 - (1 - min(t, 40) / 40) ** 3)
            assert sparsity_of(weight) == pytest.approx(expected, abs=1e-4)


def test_gradual_state_is_restored() -> None:
    def run(stop: int) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 20))
        pruner = GradualPruner(model, 0.9, steps=20, every=3)
        for step in range(20):
            with torch.no_grad():
                model[0].weight += torch.randn(20, 20, generator=torch.Generator().manual_seed(step))
            pruner.constrain()
            if step == stop:
                state = pruner.state_dict()
                pruner = GradualPruner(model, 0.9, steps=20, every=3)
                pruner.load_state_dict(state)
        return model[0].weight.detach()

    assert torch.equal(run(stop=-1), run(stop=7))


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.5, {"0": 0.5, "3": 0.5, "4": 0.5}),
        ({"*": 0.5, "4": 0.2}, {"0": 0.5, "3": 0.5, "4": 0.2}),
        ({"[34]": 0.5}, {"3": 0.5, "4": 0.5}),
    ],
)
def test_targets_by_name_and_pattern(sparsity: Any, expected: dict[str, float]) -> None:
    assert OneShotPruner(network(), sparsity).sparsity == expected


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_an_impossible_sparsity_is_refused(value: float) -> None:
    with pytest.raises(SettingError, match="between 0 and 1"):
        SLRPruner(network(), {"0": value})


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no layer is named 'fc1'; expected one of 0, 3, 4"):
        SLRPruner(network(), {"fc1": 0.5})


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(SettingError, match="at least one"):
        SLRPruner(nn.ReLU(), 0.5)


def test_a_parametrized_weight_is_refused() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(SettingError, match="remove_parametrizations"):
        SLRPruner(nn.Sequential(layer), 0.5)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 5, "every": 0}])
def test_an_impossible_ramp_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="from 1 on"):
        GradualPruner(network(), 0.5, **settings)


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_a_structure_that_does_not_apply_is_refused_at_once(
    method: type[Pruner], settings: dict[str, Any]
) -> None:
    with pytest.raises(SettingError, match=r"layer '3': a weight of shape \(10, 216\).*'pattern'"):
        method(network(), {"0": 0.5, "3": 0.9}, structure="pattern", **settings)
