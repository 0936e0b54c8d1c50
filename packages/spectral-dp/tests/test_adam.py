import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import (
    AdamCorrected,
    DCTLowPass,
    PublicSubspace,
    SpectralDPOptimizer,
    SpectralDPOptimizerFastGradientClipping,
    SpectralPrivacyEngine,
)
from tenfold import SettingError


def gradients(steps: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(steps, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_without_noise_it_is_adam() -> None:
    ends = []
    for kind in (AdamCorrected, torch.optim.Adam):
        p = nn.Parameter(torch.ones(7, dtype=torch.float64))
        optimizer = kind([p], lr=0.03, betas=(0.8, 0.95), eps=1e-6)
        for gradient in gradients(50, 7):
            p.grad = gradient.clone()
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


def test_the_second_moment_is_that_of_the_gradient_without_noise() -> None:
    p = nn.Parameter(torch.zeros(20_000, dtype=torch.float64))
    signal = torch.linspace(0, 3, len(p), dtype=torch.float64)
    optimizer = AdamCorrected([p], lr=1.0, betas=(0.0, 0.99), eps=1e-12, floor=1e-9)
    optimizer.noise_variance = {p: 4.0}
    for noise in gradients(600, len(p)):
        p.grad = signal + 2 * noise
        optimizer.step()
    state = optimizer.state[p]
    unbiased = 1 - 0.99**600
    corrected = (state["exp_avg_sq"] - state["exp_avg_noise"]) / unbiased
    for part, expected in zip(corrected.chunk(10), signal.square().chunk(10), strict=True):
        assert float(part.mean()) == pytest.approx(float(expected.mean()), abs=0.12)
    assert float(state["exp_avg_sq"][:2000].mean()) / unbiased > 3.5  # what Adam would divide by


def test_steps_follow_the_signal_where_adam_follows_the_noise() -> None:
    """Adam's step is lr times the mean over the root mean square, which should not depend on its scale."""
    signal = torch.tensor([0.5, 2.0], dtype=torch.float64).repeat_interleave(200)
    taken = {}
    for kind in (AdamCorrected, torch.optim.Adam):
        p = nn.Parameter(torch.zeros_like(signal))
        optimizer = kind([p], lr=1.0, betas=(0.0, 0.999))
        if isinstance(optimizer, AdamCorrected):
            optimizer.noise_variance = {p: 1.0}
        for step, noise in enumerate(gradients(4000, len(p))):
            if step == 2000:
                settled = p.detach().clone()
            p.grad = signal + noise
            optimizer.step()
        taken[kind] = (settled - p.detach()).view(2, 200).mean(1) / 2000
    torch.testing.assert_close(taken[AdamCorrected], torch.ones(2, dtype=torch.float64), rtol=0.05, atol=0)
    expected = torch.tensor([0.5 / 1.25**0.5, 2 / 5**0.5], dtype=torch.float64)
    torch.testing.assert_close(taken[torch.optim.Adam], expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("kind", [SpectralDPOptimizer, SpectralDPOptimizerFastGradientClipping])
def test_the_variance_it_is_told_is_that_of_the_gradients_it_gets(kind: Any) -> None:
    rows = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64))[0].T
    rows = torch.cat([rows, torch.zeros(2, 2, dtype=torch.float64)], dim=1)  # two inputs get no noise at all
    p = nn.Parameter(torch.zeros(20_000, 8))
    adam = AdamCorrected([p], lr=0.0)
    optimizer = kind(
        adam,
        noise_multiplier=3.0,
        max_grad_norm=0.5,
        expected_batch_size=5,
        projections={p: PublicSubspace(rows, "public")},
    )
    p.grad_sample, p.grad = torch.zeros(1, *p.shape), torch.zeros_like(p)
    optimizer.step()
    told = adam.noise_variance[p]
    assert told.shape == p.shape
    torch.testing.assert_close(p.grad.square().mean(0), told[0], rtol=0.06, atol=1e-12)
    assert not told[:, 6:].any()
    assert float(told[0].sum()) == pytest.approx(2 * (3 * 0.5 / 5) ** 2)


def test_the_floor_bounds_the_step() -> None:
    p = nn.Parameter(torch.zeros(1000, dtype=torch.float64))
    optimizer = AdamCorrected([p], lr=1.0, betas=(0.0, 0.9), eps=1e-12, floor=0.04)
    optimizer.noise_variance = {p: 1.0}
    for gradient in gradients(40, len(p)):
        before = p.detach().clone()
        p.grad = gradient.clone()
        optimizer.step()
        assert bool(((p - before).abs() <= gradient.abs() / 0.2 + 1e-9).all())


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_engine_tells_it_the_variance_of_the_noise(mode: str, reduction: str) -> None:
    model = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 3))
    adam = AdamCorrected(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(torch.randn(40, 10), torch.randint(3, (40,))), batch_size=10)
    projection = DCTLowPass(0.5)
    made = SpectralPrivacyEngine().make_private(
        module=model,
        optimizer=adam,
        data_loader=loader,
        criterion=nn.CrossEntropyLoss(reduction=reduction),
        noise_multiplier=2.0,
        max_grad_norm=0.5,
        loss_reduction=reduction,
        spectrum={"0": projection},
        grad_sample_mode=mode,
    )
    private, optimizer = made[:2]
    criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss(reduction=reduction)
    for x, y in made[-1]:
        optimizer.zero_grad()
        criterion(private(x), y).backward()
        optimizer.step()
    std = 1.0 if reduction == "sum" else 0.1
    weight = model[0].weight
    shares = projection.bind((10,)).diagonal(weight)
    torch.testing.assert_close(adam.noise_variance[weight], std**2 * shares)
    assert float(shares[0].sum()) == pytest.approx(5)
    assert adam.noise_variance[model[2].weight] == pytest.approx(std**2)


def test_it_resumes() -> None:
    ends = []
    for interrupted in (False, True):
        p = nn.Parameter(torch.ones(5, dtype=torch.float64))
        optimizer = AdamCorrected([p], lr=0.1)
        for step, gradient in enumerate(gradients(20, 5)):
            if interrupted and step == 9:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = AdamCorrected([p], lr=0.5)
                optimizer.load_state_dict(state)
            optimizer.noise_variance = {p: 0.3}
            p.grad = gradient.clone()
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [{"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}, {"floor": 0.0}, {"eps": 0.0}, {"lr": float("nan")}],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        AdamCorrected([nn.Parameter(torch.ones(2))], **settings)
