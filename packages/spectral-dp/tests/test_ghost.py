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
    module, _, criterion, _ = private(network(), reduction, spectrum=spectrum)
    criterion(module(x), y).backward()
    for (name, p), total in zip(module._module.named_parameters(), expected, strict=True):
        # What the release removes of the others does not matter.
        layer = name.split(".")[0]
        gradient = (
            spectrum[layer].bind(SHAPES[layer])(p.grad)
            if name == f"{layer}.weight" and layer in spectrum
            else p.grad
        )
        torch.testing.assert_close(gradient, total, rtol=1e-4, atol=1e-6)


def test_a_filtered_linear_layer_has_no_gradient_outside_what_is_kept() -> None:
    projection = DCTLowPass(0.3)
    module, _, criterion, _ = private(network(), spectrum={"4": projection})
    x, y = batch(5)
    criterion(module(x), y).backward()
    gradient = module._module[4].weight.grad
    torch.testing.assert_close(projection.bind((64,))(gradient), gradient, rtol=1e-4, atol=1e-6)


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

    def counted(self: SpectralGhostModule, losses: Tensor, outputs: Any) -> None:
        calls.append(len(outputs))
        clip(self, losses, outputs)

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
