"""Low-rank adapters on frozen weights, against a loop over single samples."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import DCTLowPass, Projection, SpectralPrivacyEngine
from tenfold import SettingError

BOUND = 0.05
Y = torch.arange(6) % 3
KEPT = DCTLowPass(0.5)


class Adapted(nn.Module):
    """A linear layer with an adapter of two linear layers, as peft makes them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Linear(inputs, 2, bias=False)
        self.up = nn.Linear(2, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.up(self.down(x))
        return self.base(x) + change


class BareAdapted(nn.Module):
    """The same with parameters of its own beside the frozen layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, inputs) / 4)
        self.up = nn.Parameter(torch.randn(outputs, 2) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


class Network(nn.Module):
    """Two adapted layers at every position, and the mean over positions."""

    def __init__(self, kind: type[Any]) -> None:
        super().__init__()
        self.first: Any = kind(12, 10)
        self.second: Any = kind(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(torch.tanh(self.first(x)))
        return logits.mean(1)


def network(kind: type[Any]) -> Network:
    torch.manual_seed(0)
    return Network(kind)


def inputs(positions: int) -> Tensor:
    return torch.randn(6, positions, 12, generator=torch.Generator().manual_seed(1))


def brute_force(model: nn.Module, x: Tensor, spectrum: dict[str, Projection]) -> dict[str, Tensor]:
    """Return the sum of filtered, clipped gradients, sample by sample."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in trained.items()}
    for sample, label in zip(x, Y, strict=True):
        loss = nn.functional.cross_entropy(model(sample[None]), label[None])
        gradients = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
        for layer, projection in spectrum.items():
            weight = trained[f"{layer}.weight"]
            gradients[f"{layer}.weight"] = projection.bind((weight.shape[1],))(gradients[f"{layer}.weight"])
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        assert norm > BOUND
        for name, gradient in gradients.items():
            total[name] += gradient * BOUND / norm
    return total


def private(model: nn.Module, x: Tensor, mode: str, **changes: Any) -> tuple[Any, ...]:
    made = SpectralPrivacyEngine(not_private=True).make_private(
        module=model,
        criterion=nn.CrossEntropyLoss(reduction="sum"),
        data_loader=DataLoader(TensorDataset(x, Y), batch_size=len(Y)),
        max_grad_norm=BOUND,
        loss_reduction="sum",
        grad_sample_mode=mode,
        **{
            "optimizer": torch.optim.SGD(model.parameters(), lr=1.0),
            "noise_multiplier": 0.0,
            **changes,
        },
    )
    return (*made[:2], made[2] if mode == "ghost" else nn.CrossEntropyLoss(reduction="sum"))


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("positions", [1, 7])
@pytest.mark.parametrize(
    ("kind", "spectrum"),
    [(Adapted, {}), (Adapted, {"first.down": KEPT, "second.down": KEPT}), (BareAdapted, {})],
)
def test_an_update_is_the_sum_over_single_samples_and_frozen_weights_stay(
    kind: type[Any], spectrum: dict[str, Projection], positions: int, mode: str
) -> None:
    model, x = network(kind), inputs(positions)
    expected = brute_force(network(kind), x, spectrum)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    module, optimizer, criterion = private(model, x, mode, spectrum=spectrum)
    criterion(module(x), Y).backward()
    optimizer.step()
    assert len(expected) == 4
    for name, p in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(before[name] - p, expected[name], atol=1e-6, rtol=1e-4)
            assert (before[name] - p).norm() > 1e-3
        else:
            assert torch.equal(p, before[name])


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_frozen_weights_stay_under_noise_and_weight_decay(mode: str) -> None:
    model, x = network(Adapted), inputs(3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    module, optimizer, criterion = private(
        model,
        x,
        mode,
        noise_multiplier=1.0,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1),
    )
    for _ in range(3):
        optimizer.zero_grad()
        criterion(module(x), Y).backward()
        optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == ("base" in name), name


def test_weights_that_thaw_after_the_model_was_made_private_are_refused() -> None:
    model, x = network(Adapted), inputs(3)
    module, optimizer, criterion = private(model, x, "ghost")
    model.first.base.requires_grad_(True)
    before = model.first.base.weight.detach().clone()
    criterion(module(x), Y).backward()
    with pytest.raises(SettingError, match="were frozen"):
        optimizer.step()
    assert torch.equal(model.first.base.weight, before)
