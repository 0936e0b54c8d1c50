"""Compacted models read back from their files compute the same."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from slr_prune import OneShotPruner, compact, load_compacted, remove_channels, save
from tenfold import DataError, SettingError

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_compacted_classifier_is_read_back(name: str, tmp_path: Path) -> None:
    dense = torchvision.models.get_model(name, num_classes=10).eval()
    pruned = torchvision.models.get_model(name, num_classes=10).eval()
    OneShotPruner(pruned, 0.5, structure="filter", example_inputs=X).finalize()
    small = compact(pruned, X)
    save(small, tmp_path / "small.pt")
    before = dense.state_dict()["features.0.0.weight" if name == "mobilenet_v2" else "conv1.weight"].clone()
    again = load_compacted(tmp_path / "small.pt", dense)
    assert torch.allclose(again(X), small(X), atol=1e-6)
    assert sum(p.numel() for p in again.parameters()) < 0.5 * sum(p.numel() for p in dense.parameters())
    assert torch.equal(next(dense.parameters()), before)
    # The sizes that the layers declare are those of their weights, so that training may go on.
    again.train()(X).sum().backward()


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def network() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        model[4].weight = model[2].weight
        return model

    small = network()
    for index in (0, 2, 4):
        small[index] = nn.Linear(4 if index == 0 else 5, 5)
    small[4].weight = small[2].weight
    save(small, tmp_path / "small.pt")
    again = load_compacted(tmp_path / "small.pt", network())
    x = torch.randn(3, 4)
    assert torch.equal(again(x), small(x))
    assert isinstance(again, nn.Sequential)
    assert again[4].weight is again[2].weight


def test_removed_heads_are_refused(tmp_path: Path) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads = 4
            self.value = nn.Linear(8, 8)
            self.out = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = self.value(x).view(len(x), self.num_heads, -1)
            return self.out(heads.flatten(1))

    model, x = Attention(), torch.randn(2, 8)
    OneShotPruner(model, {"value": 0.5}, structure="filter", example_inputs=x).finalize()
    save(remove_channels(model, x), tmp_path / "small.pt")
    with pytest.raises(SettingError, match="fewer heads"):
        load_compacted(tmp_path / "small.pt", Attention())


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    save(nn.Sequential(nn.Linear(4, 8)), tmp_path / "a.pt")
    for other in (nn.Sequential(nn.Linear(4, 6)), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))):
        with pytest.raises(DataError):
            load_compacted(tmp_path / "a.pt", other)
    with pytest.raises(DataError, match="cannot be read"):
        load_compacted(tmp_path / "none.pt", nn.Linear(2, 2))
