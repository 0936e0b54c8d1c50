"""Clipped gradients of one backward pass, against those of two and of a loop over single samples."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectral_dp import DCTLowPass, FFTLowPass, SpectralGhostModule, SpectralPrivacyEngine
from tenfold import SettingError

C = 0.3
SHAPES = {"0": (3, 3), "4": (64,)}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.Tanh(),
        nn.Linear(12, 5, bias=False),
    )


class Twice(nn.Module):
    """Its normalisation is called twice in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.norm(torch.tanh(self.norm(x))).flatten(1))
        return out


class Rows(nn.Module):
    """Its layer takes the rows of an image for samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 2)).view(len(x), 8, 5).sum(1)


def private(model: nn.Module, reduction: str = "mean", **options: Any) -> tuple[Any, ...]:
    dataset = torch.utils.data.TensorDataset(torch.randn(8, 1, 8, 8), torch.zeros(8).long())
    return SpectralPrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        data_loader=torch.utils.data.DataLoader(dataset, batch_size=4),
        noise_multiplier=1.0,
        max_grad_norm=C,
        grad_sample_mode="ghost",
        loss_reduction=reduction,
        **options,
    )


def batch(samples: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 1, 8, 8, generator=generator)
    return x, torch.randint(5, (samples,), generator=generator)


def by_a_loop(model: nn.Module, x: Tensor, y: Tensor, spectrum: dict[str, Any]) -> list[Tensor]:
    """Clip and add up the filtered gradients of one sample after the other."""
    projections = {f"{name}.weight": p.bind(SHAPES[name]) for name, p in spectrum.items()}
    sums = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        filtered = [
            projections[name](g) if name in projections else g
            for (name, _), g in zip(model.named_parameters(), gradients, strict=True)
        ]
        norm = torch.stack([g.norm() for g in filtered]).norm()
        for total, g in zip(sums, filtered, strict=True):
            total += g * min(1.0, C / float(norm + 1e-6))
    return sums


@pytest.mark.parametrize("spectrum", [{}, {"0": FFTLowPass(0.5), "4": DCTLowPass(0.3)}])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("samples", [5, 1])
def test_one_pass_gives_the_clipped_sum(spectrum: dict[str, Any], reduction: str, samples: int) -> None:
    x, y = batch(samples)
    expected = by_a_loop(network(), x, y, spectrum)
    module, optimizer, criterion, _ = private(network(), reduction, spectrum=spectrum)
    criterion(module(x), y).backward()
    optimizer.accumulate()
    for (name, p), total in zip(module._module.named_parameters(), expected, strict=True):
        layer, kind = name.split(".")
        found = p.summed_grad
        if kind == "weight" and layer in spectrum:
            projection = spectrum[layer].bind(SHAPES[layer])
            assert found.numel() == p.numel() // projection.size * projection.rank
            found = projection.expand(found, p.shape)
        torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)


class Branches(nn.Module):
    """Two first layers, neither of which lies behind the other, and one that no loss depends on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.unused = (nn.Linear(64, 6) for _ in range(3))
        self.out = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        self.unused(x)
        out: Tensor = self.out(torch.tanh(self.left(x)) * torch.tanh(self.right(x)))
        return out


def test_layers_side_by_side_and_one_that_is_not_used() -> None:
    x, y = batch(5)
    module, optimizer, criterion, _ = private(Branches())
    model = Branches()
    used = [p for name, p in model.named_parameters() if not name.startswith("unused")]
    expected = [torch.zeros_like(p) for p in used]
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, used)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        for total, g in zip(expected, gradients, strict=True):
            total += g * min(1.0, C / float(norm + 1e-6))
    for _ in range(2):  # The second pass knows the first layers.
        optimizer.zero_grad()
        criterion(module(x), y).backward()
        assert not module._module.unused.weight.grad.any()
        found = [p.grad for name, p in module._module.named_parameters() if not name.startswith("unused")]
        for gradient, total in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, total, rtol=1e-4, atol=1e-6)


def test_a_layer_that_is_called_twice_takes_two_passes() -> None:
    x, y = batch(5)
    expected = by_a_loop(Twice(), x, y, {})
    module, _, criterion, _ = private(Twice())
    criterion(module(x), y).backward()
    for p, total in zip(module._module.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, total, rtol=1e-4, atol=1e-6)


def test_a_multiple_of_the_losses_is_clipped_as_a_whole() -> None:
    x, y = batch(5)
    module, _, criterion, _ = private(network())
    (criterion(module(x), y) * 1e4).backward()
    # Every sample is clipped, to the direction of its gradient.
    directions = by_a_loop(network(), x, y, {})
    assert torch.stack([g.norm() for g in directions]).norm() <= 5 * C
    for p, total in zip(module._module.parameters(), directions, strict=True):
        torch.testing.assert_close(p.grad, total, rtol=1e-3, atol=1e-5)


def test_it_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    clip = SpectralGhostModule.set_clipped_gradients

    def counted(self: SpectralGhostModule, losses: Tensor, outputs: Any) -> Any:
        calls.append(len(outputs))
        return clip(self, losses, outputs)

    monkeypatch.setattr(SpectralGhostModule, "set_clipped_gradients", counted)
    x, y = batch(5)
    for model in (network(), Twice()):
        made = private(model)
        made[2](made[0](x), y).backward()
    assert calls == [4]


def test_rows_that_are_not_samples_are_refused() -> None:
    module, _, criterion, _ = private(Rows())
    x, y = batch(5)
    with pytest.raises(SettingError, match="one loss for each sample"):
        criterion(module(x), y).backward()
