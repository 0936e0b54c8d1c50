"""Gradients of parts of a batch, accumulated to one step."""

from typing import Any

import pytest
import torch
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import DCTLowPass, FFTLowPass, SpectralPrivacyEngine, convert_to_spectral_conv
from tenfold import SettingError

X, Y = torch.randn(30, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 5
PARTS = (7, 1, 13, 9)


def private(mode: str, batch: int = 30, not_private: bool = True, **changes: Any) -> tuple[Any, ...]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 5))
    convert_to_spectral_conv(model, {"0": (6, 6)})
    engine = SpectralPrivacyEngine(not_private=not_private)
    made = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        data_loader=DataLoader(TensorDataset(X, Y), batch_size=batch),
        noise_multiplier=1.0,
        max_grad_norm=0.3,
        spectrum={"0": FFTLowPass(0.5), "3": DCTLowPass(0.5)},
        grad_sample_mode=mode,
        noise_generator=torch.Generator().manual_seed(1) if not_private else None,
        **changes,
    )
    criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()
    return engine, *made[:2], criterion, made[-1]


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(p.detach().clone() for p in model.parameters())


def whole(mode: str, **changes: Any) -> tuple[Tensor, list[Any]]:
    engine, model, optimizer, criterion, _ = private(mode, **changes)
    criterion(model(X), Y).backward()
    optimizer.step()
    return weights(model), engine.accountant.history


@pytest.mark.parametrize("order", ["filter-clip-noise", "clip-noise-filter"])
@pytest.mark.parametrize(("mode", "clipping"), [("hooks", "flat"), ("hooks", "per_layer"), ("ghost", "flat")])
def test_virtual_steps_equal_one_whole_batch(mode: str, clipping: str, order: str) -> None:
    engine, model, optimizer, criterion, _ = private(mode, clipping=clipping, order=order)
    start = weights(model)
    for number, (x, y) in enumerate(zip(X.split(PARTS), Y.split(PARTS), strict=True), 1):
        optimizer.signal_skip_step(number < len(PARTS))
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        assert torch.equal(weights(model), start)
        optimizer.step()
    expected, charged = whole(mode, clipping=clipping, order=order)
    torch.testing.assert_close(weights(model), expected, rtol=1e-5, atol=1e-6)
    assert (expected - start).norm() > 0.02
    assert engine.accountant.history == charged == [(1.0, 1.0, 1)]


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_the_memory_manager_equals_one_whole_batch(mode: str) -> None:
    engine, model, optimizer, criterion, loader = private(mode)
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=7, optimizer=optimizer) as parts:
        sizes = []
        for x, y in parts:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            sizes.append(len(x))
    assert len(sizes) == 5
    expected, charged = whole(mode)
    torch.testing.assert_close(weights(model), expected, rtol=1e-5, atol=1e-6)
    assert engine.accountant.history == charged


def test_backward_passes_before_one_step_equal_one_whole_batch_in_hooks_mode() -> None:
    engine, model, optimizer, criterion, loader = private("hooks", batch=6, poisson_sampling=False)
    for x, y in loader:
        criterion(model(x), y).backward()
    optimizer.step()
    expected, charged = whole("hooks")
    torch.testing.assert_close(weights(model), expected, rtol=1e-5, atol=1e-6)
    assert engine.accountant.history == charged


@pytest.mark.parametrize("not_private", [True, False])
def test_ghost_mode_refuses_to_forget_a_gradient(not_private: bool) -> None:
    engine, model, _, criterion, _ = private("ghost", not_private=not_private)
    criterion(model(X[:9]), Y[:9]).backward()
    with pytest.raises(SettingError, match="BatchMemoryManager"):
        (criterion(model(X[9:]), Y[9:]) / 2).backward()
    assert not engine.accountant.history


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_a_gradient_may_be_thrown_away(mode: str) -> None:
    _, model, optimizer, criterion, _ = private(mode)
    criterion(model(3 * X[:9]), Y[:9]).backward()
    optimizer.zero_grad()
    criterion(model(X), Y).backward()
    optimizer.step()
    torch.testing.assert_close(weights(model), whole(mode)[0], rtol=1e-5, atol=1e-6)


def test_ghost_mode_needs_no_zero_grad_between_steps() -> None:
    ends = []
    for explicit in (True, False):
        _, model, optimizer, criterion, _ = private("ghost")
        for _ in range(3):
            if explicit:
                optimizer.zero_grad()
            criterion(model(X), Y).backward()
            optimizer.step()
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_batches_that_share_samples_are_not_added_up() -> None:
    """Each is a Poisson sample of its own: who is in two of them would count twice."""
    *_, loader = private("hooks", not_private=False)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    made = SpectralPrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        data_loader=loader,
        noise_multiplier=1.0,
        max_grad_norm=0.3,
        poisson_sampling=False,
    )
    nn.functional.cross_entropy(made[0](X), Y).backward()
    with pytest.raises(ValueError, match="step"):
        nn.functional.cross_entropy(made[0](X), Y).backward()
