import math

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import (
    BlockCirculantLinear,
    SpectralConv2d,
    SpectralDPOptimizer,
    SpectralPrivacyEngine,
    paper_preset,
)
from tenfold import SettingError

X, Y = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 5


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 16), nn.Tanh(), nn.Linear(16, 5)
    )


def test_the_preset_has_the_papers_layers_and_computes_nearly_the_same() -> None:
    plain = net()
    model, options = paper_preset(net(), X[:1])
    assert isinstance(model[0], SpectralConv2d)
    assert model[0].lags == (13, 13)  # 8 + 6 - 1
    assert [layer.block for layer in model if isinstance(layer, BlockCirculantLinear)] == [8, 10]
    assert options["order"] == "clip-noise-filter"
    assert set(options["spectrum"]) == {"0", "3", "5"}
    torch.testing.assert_close(model[0](X), plain[0](X))


def test_it_trains() -> None:
    model, options = paper_preset(net(), X[:1])
    engine = SpectralPrivacyEngine()
    private, optimizer, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(X, Y), batch_size=8),
        noise_multiplier=1.0,
        max_grad_norm=0.3,
        **options,
    )
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(private(x), y).backward()
        optimizer.step()
    assert engine.get_epsilon(1e-5) > 0


def release(samples: Tensor, labels: Tensor, scale: float) -> list[Tensor]:
    """Return the noiseless sum of clipped gradients, with the loss scaled to make them large."""
    model = net()
    private = GradSampleModule(model, loss_reduction="sum")
    layers = [list(layer.parameters()) for layer in model if list(layer.parameters())]
    optimizer = SpectralDPOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=0.3,
        expected_batch_size=1,
        loss_reduction="sum",
        projections={},
        layers=layers,
    )
    (scale * nn.functional.cross_entropy(private(samples), labels, reduction="sum")).backward()
    optimizer.clip_and_accumulate()
    return [torch.cat([p.summed_grad.flatten() for p in layer]) for layer in layers]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_no_sample_moves_the_release_by_more_than_the_whole_bound(scale: float) -> None:
    everything = release(X, Y, scale)
    for left_out in range(0, 24, 5):
        kept = torch.arange(24) != left_out
        moved = [a - b for a, b in zip(everything, release(X[kept], Y[kept], scale), strict=True)]
        assert all(part.norm() <= 0.3 / math.sqrt(3) + 1e-5 for part in moved)
        total = torch.cat(moved).norm()
        assert total <= 0.3 + 1e-5
        if scale == 1e6:  # every layer is at its bound: with C for each it would be sqrt(3) C
            assert total == pytest.approx(0.3, rel=1e-3)


def test_small_gradients_are_left_alone() -> None:
    model = net()
    nn.functional.cross_entropy(model(X), Y, reduction="sum").mul(1e-3).backward()
    expected = [
        torch.cat([p.grad.flatten() for p in layer.parameters()])
        for layer in model
        if list(layer.parameters())
    ]
    for found, wanted in zip(release(X, Y, 1e-3), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_per_layer_bounds_are_refused_in_ghost_mode() -> None:
    model = net()
    with pytest.raises(SettingError, match="one clipping factor a sample"):
        SpectralPrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=DataLoader(TensorDataset(X, Y), batch_size=8),
            noise_multiplier=1.0,
            max_grad_norm=0.3,
            clipping="per_layer",
            grad_sample_mode="ghost",
        )


def test_models_without_such_layers_and_inputs_that_miss_one_are_refused() -> None:
    with pytest.raises(SettingError, match="without layers to convert"):
        paper_preset(nn.Tanh(), X)

    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = Lazy()
    with pytest.raises(SettingError, match="never reach idle"):
        paper_preset(model, X)
    assert type(model.used) is nn.Conv2d
