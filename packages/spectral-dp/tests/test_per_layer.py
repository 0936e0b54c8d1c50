"""A bound for each layer: the squares add up, and no sample moves the release by more than C in total."""

import math
from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import FFTLowPass, SpectralDPOptimizer, SpectralPrivacyEngine
from tenfold import SettingError, TenfoldError

BOUND = 0.3
NAMES = ("0", "3", "5")
UNEVEN = {"0": 0.2, "3": 0.1, "5": math.sqrt(BOUND**2 - 0.05)}
X, Y = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 5


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 16), nn.Tanh(), nn.Linear(16, 5)
    )


def layers_of(model: nn.Module) -> list[list[nn.Parameter]]:
    return [list(model.get_submodule(name).parameters()) for name in NAMES]


def optimizer_of(model: nn.Module, bounds: list[float]) -> SpectralDPOptimizer:
    return SpectralDPOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=BOUND,
        expected_batch_size=1,
        loss_reduction="sum",
        projections={},
        layers=list(zip(layers_of(model), bounds, strict=True)),
    )


def release(
    samples: Tensor, labels: Tensor, scale: float, bounds: list[float], mutant: bool = False
) -> list[Tensor]:
    """Return the noiseless sums by layer; the loss is scaled to make gradients small or large."""
    model = net()
    private = GradSampleModule(model, loss_reduction="sum")
    optimizer = optimizer_of(model, bounds)
    if mutant:
        optimizer.shares = [(layer, 1.0) for layer, _ in optimizer.shares]
    (scale * nn.functional.cross_entropy(private(samples), labels, reduction="sum")).backward()
    optimizer.clip_and_accumulate()
    return [torch.cat([p.summed_grad.flatten() for p in layer]) for layer in layers_of(model)]


def largest_moves(scale: float, bounds: list[float], mutant: bool = False) -> tuple[list[float], float]:
    """Return the most that one sample moves each layer's sum, and all of them together."""
    everything = release(X, Y, scale, bounds, mutant)
    moves = []
    for left_out in range(0, 24, 5):
        kept = torch.arange(24) != left_out
        rest = release(X[kept], Y[kept], scale, bounds, mutant)
        moves.append([float((a - b).norm()) for a, b in zip(everything, rest, strict=True)])
    return [max(layer) for layer in zip(*moves, strict=True)], max(math.hypot(*move) for move in moves)


EVEN = [BOUND / math.sqrt(3)] * 3


@pytest.mark.parametrize("bounds", [EVEN, list(UNEVEN.values())])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_no_sample_moves_the_release_by_more_than_the_whole_bound(scale: float, bounds: list[float]) -> None:
    by_layer, total = largest_moves(scale, bounds)
    assert all(move <= bound + 1e-5 for move, bound in zip(by_layer, bounds, strict=True))
    assert total <= BOUND + 1e-5
    if scale == 1e6:  # every layer is at its bound
        assert total == pytest.approx(BOUND, rel=1e-3)


def test_the_whole_bound_for_every_layer_is_caught() -> None:
    _, total = largest_moves(1e6, EVEN, mutant=True)
    assert total == pytest.approx(math.sqrt(3) * BOUND, rel=1e-3)


def test_small_gradients_are_left_alone() -> None:
    model = net()
    nn.functional.cross_entropy(model(X), Y, reduction="sum").mul(1e-3).backward()
    for found, layer in zip(release(X, Y, 1e-3, EVEN), layers_of(model), strict=True):
        torch.testing.assert_close(found, torch.cat([p.grad.flatten() for p in layer]), rtol=1e-4, atol=1e-6)


def test_bounds_stay_in_proportion_when_the_whole_is_scheduled() -> None:
    model = net()
    private = GradSampleModule(model, loss_reduction="sum")
    optimizer = optimizer_of(model, list(UNEVEN.values()))
    optimizer.max_grad_norm = 2 * BOUND
    (1e6 * nn.functional.cross_entropy(private(X[:1]), Y[:1])).backward()
    optimizer.clip_and_accumulate()
    for layer, bound in zip(layers_of(model), UNEVEN.values(), strict=True):
        norm = math.hypot(*(float(p.summed_grad.norm()) for p in layer))
        assert norm == pytest.approx(2 * bound, rel=1e-3)


def private(model: nn.Module, **changes: Any) -> tuple[SpectralPrivacyEngine, tuple[Any, ...]]:
    engine = SpectralPrivacyEngine(not_private=True)
    options: dict[str, Any] = {
        "module": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1.0),
        "data_loader": DataLoader(TensorDataset(X, Y), batch_size=24),
        "noise_multiplier": 0.0,
        "max_grad_norm": UNEVEN,
        "clipping": "per_layer",
        "poisson_sampling": False,
        **changes,
    }
    return engine, engine.make_private(**options)


def step(made: tuple[Any, ...]) -> None:
    made[1].zero_grad()
    nn.functional.cross_entropy(made[0](X), Y).backward()
    made[1].step()


@pytest.mark.parametrize("order", ["filter-clip-noise", "clip-noise-filter"])
def test_the_engine_clips_every_layer_to_its_bound(order: str) -> None:
    model, start = net(), list(net().parameters())
    projection = FFTLowPass(0.3, (72,))
    _, made = private(model, spectrum={"3": projection}, order=order)
    step(made)
    totals = [torch.zeros_like(p) for p in start]
    for x, y in zip(X, Y, strict=True):
        alone = net()
        nn.functional.cross_entropy(alone(x[None]), y[None]).backward()
        if order == "filter-clip-noise":
            alone[3].weight.grad = projection(alone[3].weight.grad)
        for layer, bound in zip(layers_of(alone), UNEVEN.values(), strict=True):
            norm = math.hypot(*(float(p.grad.norm()) for p in layer))
            for p in layer:
                p.grad *= min(1.0, bound / norm)
        alone[3].weight.grad = projection(alone[3].weight.grad)
        for total, p in zip(totals, alone.parameters(), strict=True):
            total += p.grad
    for before, after, total in zip(start, model.parameters(), totals, strict=True):
        torch.testing.assert_close((before - after).detach(), total / 24, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("bounds", [BOUND, UNEVEN])
def test_the_noise_is_that_of_the_whole_bound_and_so_is_the_charge(bounds: Any) -> None:
    # Small gradients: what is released is the noise.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 500), nn.Linear(500, 64), nn.Linear(64, 2))
    if bounds is not BOUND:
        bounds = dict(zip("012", bounds.values(), strict=True))
    engine, made = private(
        model,
        noise_multiplier=2.0,
        max_grad_norm=bounds,
        loss_reduction="sum",
        data_loader=DataLoader(TensorDataset(X.flatten(1), Y % 2), batch_size=24),
    )
    made[1].zero_grad()
    (1e-9 * made[0](X.flatten(1)).sum()).backward()
    made[1].step()
    for layer in model:
        assert float(layer.weight.grad.std()) == pytest.approx(
            2 * BOUND, rel=0.02 if len(layer.weight) > 2 else 0.3
        )
    assert engine.accountant.history == [(2.0, 1.0, 1)]


def test_what_is_not_trained_or_shared_counts_once() -> None:
    model = net()
    model[0].requires_grad_(False)
    again = nn.Linear(72, 16)
    again.weight = model[3].weight
    model.append(nn.Identity())
    model.again = again
    chosen = [*model[3].parameters(), *model[5].parameters()]
    _, made = private(model, max_grad_norm=BOUND, optimizer=torch.optim.SGD(chosen, lr=1.0))
    assert [share for _, share in made[1].shares] == pytest.approx([math.sqrt(0.5)] * 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grad_sample_mode": "ghost", "max_grad_norm": BOUND}, "one clipping factor a sample"),
        ({"clipping": "flat"}, "one positive number"),
        ({"max_grad_norm": {**UNEVEN, "5": 0.0}}, "one positive number"),
        ({"max_grad_norm": {**UNEVEN, "5": math.nan}}, "one positive number"),
        ({"max_grad_norm": list(UNEVEN.values())}, "one positive number"),
        ({"max_grad_norm": {**UNEVEN, "head": 0.1}}, "no layer is named 'head'"),
        ({"max_grad_norm": {"0": 0.1, "3": 0.1}}, "no bound for '5'"),
    ],
)
def test_impossible_bounds_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TenfoldError, match=message):
        private(net(), **changes)


@pytest.mark.parametrize(
    "bounds", [[BOUND] * 3, [0.1] * 3, [BOUND, 0.0, 0.0], [BOUND, math.nan, 0.0], [-BOUND / math.sqrt(3)] * 3]
)
def test_bounds_whose_squares_do_not_add_up_are_refused(bounds: list[float]) -> None:
    with pytest.raises(SettingError, match="root of the sum of their squares"):
        optimizer_of(net(), bounds)


def test_layers_must_have_every_parameter_once() -> None:
    model = net()
    first, second, third = layers_of(model)
    for layers in ([first, second], [first, second, third, third], [first, second, third[:1]]):
        with pytest.raises(SettingError, match="in one layer"):
            SpectralDPOptimizer(
                torch.optim.SGD(model.parameters(), lr=0.1),
                noise_multiplier=0.0,
                max_grad_norm=BOUND,
                expected_batch_size=1,
                projections={},
                layers=[(layer, BOUND / math.sqrt(len(layers))) for layer in layers],
            )
