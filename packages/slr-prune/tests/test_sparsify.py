"""Which layers become sparse, in which format, and that the model computes the same."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from slr_prune import (
    DeviationError,
    GatheredLayer,
    OneShotPruner,
    SparseLinear,
    densify,
    describe_sparsity,
    sparsify,
)
from slr_prune.models import build
from tenfold import SettingError, UnknownNameError


def pruned(model: nn.Module, sparsity: float, structure: str = "irregular") -> nn.Module:
    OneShotPruner(model, sparsity, structure=structure).finalize()
    return model


def mlp(sparsity: float = 0.9, structure: str = "irregular") -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(300, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))
    return pruned(layers, sparsity, structure)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def formats(model: nn.Module) -> dict[str, str]:
    return {row.layer: row.format for row in describe_sparsity(model)}


@pytest.mark.parametrize(
    ("structure", "sparsity", "chosen"),
    [
        ("irregular", 0.9, "csr"),
        ("irregular", 0.7, "dense"),
        ("irregular", 0.8, "csr"),
        ("block", 0.8, "bsr:16x16"),
        ("block", 0.5, "dense"),
        ("filter", 0.6, "gathered"),
        ("channel", 0.6, "gathered"),
        ("filter", 0.1, "dense"),
        ("2:4", 0.5, "dense"),
    ],
)
def test_the_format_suits_the_zeros(structure: str, sparsity: float, chosen: str) -> None:
    model = mlp(sparsity, structure)
    sparse = sparsify(model, inputs(2, 300))
    assert formats(sparse) == {"0": chosen, "2": chosen, "4": "dense"}
    x = inputs(9, 300)
    torch.testing.assert_close(sparse(x), model(x), rtol=1e-5, atol=1e-5)


def test_scattered_zeros_in_a_convolution_gain_nothing_and_rows_do() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3, groups=2))
    assert formats(sparsify(pruned(copy.deepcopy(model), 0.99), inputs(2, 32, 8, 8)))["0"] == "dense"
    filters = pruned(model, 0.7, "filter")
    sparse = sparsify(filters, inputs(2, 32, 8, 8))
    assert formats(sparse) == {"0": "gathered", "2": "dense"}
    torch.testing.assert_close(sparse(inputs(3, 32, 9, 9)), filters(inputs(3, 32, 9, 9)))


def test_half_precision_has_no_fast_kernel() -> None:
    assert set(formats(sparsify(mlp().double(), inputs(2, 300).double())).values()) == {"dense"}


def test_the_model_is_copied_and_its_modes_are_kept() -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    model[1].eval()
    sparse = sparsify(model, inputs(2, 300))
    assert type(model[0]) is nn.Linear
    assert [module.training for module in sparse] == [module.training for module in model]
    assert sparse.training
    with torch.no_grad():
        for parameter in sparse.parameters():
            parameter.add_(1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_report_names_format_share_and_bytes() -> None:
    row = describe_sparsity(sparsify(mlp(), inputs(2, 300)))[0]
    assert (row.layer, row.format, row.kept) == ("0", "csr", 0.1)
    assert row.bytes == 7680 * 8 + 257 * 4 + 256 * 4
    dense = describe_sparsity(mlp())[0]
    assert (dense.format, dense.bytes) == ("dense", 300 * 256 * 4 + 256 * 4)


def test_formats_by_pattern_and_ignored_layers() -> None:
    model = mlp(0.9, "filter")
    sparse = sparsify(
        model, inputs(2, 300), format={"*": "gathered", "[24]": "bsr:8x4", "4": "csr"}, ignored_layers=["2"]
    )
    assert formats(sparse) == {"0": "gathered", "2": "dense", "4": "csr"}
    assert formats(sparsify(model, inputs(2, 300), format={"2": "bsr:8x4"})) == {
        "0": "dense",
        "2": "bsr:8x4",
        "4": "dense",
    }
    assert formats(sparsify(model, inputs(2, 300), format="bsr"))["0"] == "bsr:16x16"


def test_a_lone_layer_is_a_model() -> None:
    layer = pruned(nn.Sequential(nn.Linear(300, 256)), 0.9)[0]
    sparse = sparsify(layer, inputs(2, 300))
    assert isinstance(sparse, SparseLinear)
    torch.testing.assert_close(sparse(inputs(2, 300)), layer(inputs(2, 300)))
    assert type(densify(sparse)) is nn.Linear


def test_sparse_layers_turn_dense_again() -> None:
    model = mlp(0.8, "block")
    sparse = sparsify(model, inputs(2, 300), format={"0": "csr", "2": "bsr", "4": "csr"})
    dense = densify(sparse)
    assert all(type(layer) is nn.Linear for layer in dense[::2])
    for name, tensor in model.state_dict().items():
        assert torch.equal(dense.state_dict()[name], tensor)
    gathered = sparsify(mlp(0.6, "filter"), inputs(2, 300))
    assert isinstance(densify(gathered, gathered=False)[0], GatheredLayer)
    assert type(densify(gathered)[0]) is nn.Linear


def test_what_is_sparse_already_is_left_alone() -> None:
    once = sparsify(mlp(0.6, "filter"), inputs(2, 300))
    assert formats(sparsify(once, inputs(2, 300))) == formats(once)


class Shared(nn.Module):
    """One layer used in two places, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(256, 256)
        self.again = self.first
        self.tied = nn.Linear(256, 256)
        self.other = nn.Linear(256, 256)
        self.other.weight = self.tied.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.tied(self.again(self.first(x))))


def test_shared_layers_stay_shared_and_tied_weights_dense() -> None:
    torch.manual_seed(0)
    model = pruned(Shared(), 0.9)
    sparse = sparsify(model, inputs(2, 256))
    assert sparse.first is sparse.again
    assert formats(sparse) == {"first": "csr", "tied": "dense", "other": "dense"}
    assert sparse.tied.weight is sparse.other.weight
    torch.testing.assert_close(sparse(inputs(4, 256)), model(inputs(4, 256)))
    with pytest.raises(SettingError, match=r"'csr' for layer 'tied' that shares a parameter"):
        sparsify(model, inputs(2, 256), format={"tied": "csr"})


class Reader(nn.Module):
    """A layer whose weight is read, never called, beside one that is both."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(256, 256)
        self.both = nn.Linear(256, 256)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.linear(x, self.read.weight, self.read.bias)
        return {"out": self.both(x), "norm": self.both.weight.square().sum()}


def test_layers_that_are_read_but_never_called_stay_dense() -> None:
    torch.manual_seed(0)
    model = pruned(Reader(), 0.9)
    sparse = sparsify(model, inputs(2, 256))
    assert formats(sparse) == {"read": "dense", "both": "csr"}
    for name, tensor in model(inputs(4, 256)).items():
        torch.testing.assert_close(sparse(inputs(4, 256))[name], tensor)
    with pytest.raises(SettingError, match=r"layer 'read' that is never called"):
        sparsify(model, inputs(2, 256), format="csr")


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.MultiheadAttention(256, 4, batch_first=True),
        lambda: nn.TransformerEncoderLayer(256, 4, 512, batch_first=True),
    ],
)
def test_attention_of_torch_still_computes_the_same(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = pruned(make(), 0.9).eval()
    x = inputs(2, 5, 256)
    arguments = (x, x, x) if isinstance(model, nn.MultiheadAttention) else (x,)
    sparse = sparsify(model, arguments)
    with torch.no_grad():
        for mode in (True, False):
            expected, output = model(*arguments), sparse(*arguments)
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
            torch.set_grad_enabled(mode)


def test_swin_of_torchvision_keeps_the_attention_that_it_never_calls_dense() -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.SwinTransformer([4, 4], 96, [1, 1], [3, 6], [4, 4], num_classes=5, stochastic_depth_prob=0)
    sparse = sparsify(pruned(model, 0.9, "block"), inputs(2, 3, 32, 32))
    found = formats(sparse)
    assert {name for name in found if "attn" in name and found[name] != "dense"} == set()
    assert found["features.3.0.mlp.0"] == "bsr:16x16"
    x = inputs(3, 3, 32, 32)
    model.eval()
    torch.testing.assert_close(sparse.eval()(x), model(x), rtol=1e-4, atol=1e-5)


def test_layers_with_hooks_or_computed_weights_stay_dense() -> None:
    model = mlp()
    model[0].register_forward_hook(lambda *_: None)
    with torch.no_grad():
        prune.identity(model[2], "weight")
    nn.utils.parametrizations.weight_norm(model[4])
    assert set(formats(sparsify(model, inputs(2, 300))).values()) == {"dense"}
    with pytest.raises(SettingError, match="layer '0' with hooks"):
        sparsify(model, inputs(2, 300), format={"0": "csr"})
    with pytest.raises(SettingError, match="layer '2' whose weight is computed"):
        sparsify(model, inputs(2, 300), format={"2": "csr"})


class ByType(nn.Module):
    """Computes something else when a layer is not of the type it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Linear(256, 256)
        self.odd = nn.Linear(256, 256)

    def forward(self, x: Tensor) -> Tensor:
        x = self.odd(self.fine(x))
        return x if isinstance(self.odd, nn.Linear) else 2 * x


def test_a_layer_that_changes_the_output_is_named() -> None:
    torch.manual_seed(0)
    model = pruned(ByType(), 0.9)
    with pytest.raises(DeviationError, match=r"once layers are sparse \(odd\)"):
        sparsify(model, inputs(2, 256))
    sparse = sparsify(model, inputs(2, 256), ignored_layers=["odd"])
    assert formats(sparse) == {"fine": "csr", "odd": "dense"}


def test_keyword_and_positional_example_inputs() -> None:
    model = mlp()
    for example in ((inputs(2, 300),), [inputs(2, 300)], {"input": inputs(2, 300)}):
        assert formats(sparsify(model, example))["0"] == "csr"
    with pytest.raises(SettingError, match="does not run on example_inputs"):
        sparsify(model, inputs(2, 299))


def test_formats_that_cannot_be_are_refused_by_name() -> None:
    torch.manual_seed(0)
    model = pruned(nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3)), 0.5)
    x = inputs(1, 8, 9, 9)
    with pytest.raises(SettingError, match="'csr' for layer '0' that is a convolution"):
        sparsify(model, x, format="csr")
    with pytest.raises(SettingError, match="'gathered' for layer '0' that is a grouped convolution"):
        sparsify(model, x, format="gathered")
    with pytest.raises(SettingError, match="'gathered' for layer '1' without a row or an input channel"):
        sparsify(model, x, format={"1": "gathered"})


@pytest.mark.parametrize("name", ["coo", "bsr:", "bsr:0x4", "bsr:16", "dense"])
def test_unknown_formats_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="no format is named"):
        sparsify(mlp(), inputs(2, 300), format=name)


def test_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no layer is named 'fc'"):
        sparsify(mlp(), inputs(2, 300), format={"fc": "csr"})
    with pytest.raises(UnknownNameError, match="no layer is named 'fc'"):
        sparsify(mlp(), inputs(2, 300), ignored_layers=["fc"])


def test_a_sparse_lenet_trains_on() -> None:
    model = pruned(build("lenet-300-100", 0), 0.9)
    sparse = sparsify(model, inputs(2, 1, 28, 28))
    assert formats(sparse) == {"fc1": "csr", "fc2": "dense", "fc3": "dense"}
    x, y = inputs(32, 1, 28, 28), torch.arange(32) % 10
    optimizer = torch.optim.Adam(sparse.parameters(), 0.01)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(sparse(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert describe_sparsity(sparse)[0].kept == describe_sparsity(model)[0].kept
