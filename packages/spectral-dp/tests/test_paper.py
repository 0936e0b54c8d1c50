import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import (
    BlockCirculantLinear,
    SpectralConv2d,
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
