"""Programs of torch.export compute the same once they have layers again, and can be pruned."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from slr_prune import OneShotPruner, cost, export_program, remove_channels
from slr_prune._exported import read_program, with_layers
from slr_prune._units import prunable_layers
from tenfold import DataError, SettingError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False)
        self.tied = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.norm(self.conv(x))))).mean((2, 3))
        return self.head(F.relu(self.tied(F.relu(self.tied(x)))))


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def exported(model: nn.Module, *arguments: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, arguments)


def test_layers_have_their_names_settings_and_weights_again() -> None:
    model = net()
    found = with_layers(exported(model, X)).eval()
    assert prunable_layers(found) == prunable_layers(model)
    for name in prunable_layers(model):
        assert repr(found.get_submodule(name)) == repr(model.get_submodule(name))
    assert torch.equal(found(X), model(X))
    for name, parameter in model.named_parameters():
        assert torch.equal(found.get_parameter(name), parameter)


def test_a_pruned_program_is_that_of_the_pruned_model(tmp_path: Path) -> None:
    small = []
    for model in (net(), with_layers(exported(net(), X))):
        OneShotPruner(model, 0.5, structure="filter", example_inputs=X).finalize()
        small.append(remove_channels(model, X))
    assert torch.equal(small[0].eval()(X), small[1].eval()(X))
    assert cost(small[0], X).macs == cost(small[1], X).macs < 0.6 * cost(net(), X).macs
    export_program(small[1], tmp_path / "small.pt2", X)
    again = torch.export.load(tmp_path / "small.pt2").module()
    assert torch.allclose(again(X), small[0](X), atol=1e-6)


def test_a_weight_that_is_used_with_two_settings_stays_one_weight() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean() + F.conv2d(x, self.conv.weight, stride=2)

    model = Twice().eval()
    found = with_layers(exported(model, X)).eval()
    OneShotPruner(found, 0.5).finalize()
    OneShotPruner(model, 0.5).finalize()
    assert torch.equal(found(X), model(X))
    assert list(dict(found.named_parameters())) == ["conv.weight"]


def test_joint_projections_stay_operators() -> None:
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    found = with_layers(exported(model, x)).eval()
    assert set(prunable_layers(found)) == {"self_attn.out_proj", "linear1", "linear2"}
    assert torch.allclose(found(x), model(x), atol=1e-6)
    OneShotPruner(found, {"linear1": 0.5}, structure="filter", example_inputs=x).finalize()
    assert remove_channels(found, x).get_parameter("linear1.weight").shape == (16, 16)


def test_sizes_in_the_graph_are_refused() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 8)
            self.two = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).relu().reshape(2, 1, 8).reshape(2, 8))

    x = torch.randn(2, 4)
    found = with_layers(exported(Sized(), x))
    OneShotPruner(found, {"one": 0.5}, structure="filter", example_inputs=x).finalize()
    with pytest.raises(SettingError, match=r"'\[2, 1, 8\]' is invalid.*sizes from their weights"):
        remove_channels(found, x)


def test_a_program_without_layers_is_refused() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    with pytest.raises(SettingError, match="no linear or convolution layer can be told"):
        with_layers(exported(Bare(), torch.randn(2, 3)))


def test_a_file_brings_its_example_inputs(tmp_path: Path) -> None:
    torch.export.save(exported(net(), X), tmp_path / "net.pt2")
    model, example = read_program(tmp_path / "net.pt2")
    assert isinstance(example, Tensor)
    assert torch.equal(example, X)
    assert torch.equal(model.eval()(example), net()(X))


@pytest.mark.parametrize("content", [None, b"", b"not a program"])
def test_a_missing_or_broken_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "net.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a program"):
        read_program(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(exported(net(), X), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot be read as a program"):
        read_program(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg11_bn", "vit_b_32"])
def test_torchvision_programs_get_smaller(name: str) -> None:
    x = torch.randn(1, 3, 224, 224) if name.startswith("vit") else torch.randn(1, 3, 64, 64)
    model = torchvision.models.get_model(name, num_classes=10).eval()
    found = with_layers(exported(model, x))
    assert torch.equal(found.eval()(x), model(x))
    OneShotPruner(found, 0.5, structure="filter", example_inputs=x).finalize()
    assert cost(remove_channels(found, x), x).macs < 0.7 * cost(model, x).macs
