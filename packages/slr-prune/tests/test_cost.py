"""Counts of parameters, bytes and MACs against closed forms and another counter."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
import torchvision
from torch import Tensor, nn

from slr_prune import Cost, OneShotPruner, cost, remove_channels, sparsify
from tenfold import SettingError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )


IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def summed(found: Cost) -> tuple[int, int, int, int]:
    parts = [(part.parameters, part.nonzero, part.bytes, part.macs) for part in found.layers]
    a, b, c, d = (sum(column) for column in zip(*parts, strict=True))
    return a, b, c, d


def test_a_small_network_costs_what_its_closed_form_says() -> None:
    found = cost(network(), IMAGES)
    convolution, linear = 8 * 3 * 9, 5 * 8 * 36
    assert found.parameters == convolution + 8 + 16 + linear + 5
    # The batch normalisation's shift starts at zero.
    assert found.nonzero == found.parameters - 8
    # Running mean, running variance, and a 64-bit counter of batches.
    assert found.bytes == 4 * (found.parameters + 16) + 8
    assert found.macs == 2 * (convolution * 36 + linear)
    assert [(part.layer, part.macs) for part in found.layers] == [
        ("0", 2 * convolution * 36),
        ("1", 0),
        ("4", 2 * linear),
    ]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_costs_kernel_times_positions(groups: int) -> None:
    layer = nn.Conv2d(4, 8, (3, 2), stride=2, groups=groups, bias=False)
    found = cost(layer, torch.randn(3, 4, 9, 8))
    assert found.macs == 3 * (4 * 4) * 8 * (4 // groups) * 6
    assert found.layers[0].layer == ""


def test_what_a_module_computes_itself_is_its_own() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 6, bias=False)
            self.outer = nn.Parameter(torch.ones(6, 2))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.inner.weight) @ self.outer + self.inner(x) @ self.outer

    found = cost(Bilinear(), torch.randn(3, 4))
    assert {part.layer: part.macs for part in found.layers} == {"": 3 * (24 + 12 + 12), "inner": 3 * 24}
    assert summed(found) == (found.parameters, found.nonzero, found.bytes, found.macs)


def test_a_shared_layer_is_stored_once_and_computed_twice() -> None:
    layer = nn.Linear(4, 4)
    found = cost(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(1, 4))
    assert (found.parameters, found.macs) == (20, 32)


def test_resnet18_against_torch_pruning() -> None:
    model, x = torchvision.models.resnet18(), torch.randn(1, 3, 64, 64)
    operations, parameters, by_layer, _ = torch_pruning.utils.count_ops_and_params(model, x, layer_wise=True)
    found = cost(model, x)
    assert found.parameters == parameters
    theirs = {name: by_layer[module] for name, module in model.named_modules()}
    for part in found.layers:
        if part.kind == "Conv2d":
            assert part.macs == theirs[part.layer]
        elif part.kind == "Linear":
            assert part.macs == theirs[part.layer] - 1000  # it counts the bias as well
    # It counts normalisation, pooling and activations as well.
    assert 0.97 * operations < found.macs < operations


def test_attention_is_counted_with_its_products() -> None:
    layer = nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.randn(2, 5, 16)
    projections, products = 4 * 16 * 16 * 5, 2 * 5 * 5 * 16
    assert cost(layer, {"query": x, "key": x, "value": x}).macs == 2 * (projections + products)


def test_a_transformer_layer_is_counted_by_its_parts() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    by_layer = {part.layer: part.macs for part in cost(layer, torch.randn(2, 5, 16)).layers}
    assert by_layer["self_attn"] == 2 * (4 * 16 * 16 * 5 + 2 * 5 * 5 * 16)
    assert by_layer["linear1"] == by_layer["linear2"] == 2 * 5 * 16 * 32


@pytest.mark.parametrize("form", ["csr", "bsr:4x4", "gathered"])
def test_sparse_layers_compute_what_they_keep(form: str) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(16, 8)
    with torch.no_grad():
        dense.weight[:, 3:] = 0
        dense.weight[5:] = 0
    x = torch.randn(3, 2, 16)
    model = nn.Sequential(dense, nn.ReLU(), nn.Linear(8, 2))
    found = cost(sparsify(model, x, format={"0": form}), x)
    kept = {"csr": 3 * 5, "bsr:4x4": 2 * 16, "gathered": 3 * 5}[form]
    assert sum(part.macs for part in found.layers if part.layer.startswith("0")) == 6 * kept
    assert found.macs == 6 * (kept + 16)
    assert found.parameters == kept + 8 + 18
    assert found.nonzero == 15 + 8 + 18
    assert found.bytes > 4 * found.parameters  # and indices
    assert summed(found) == (found.parameters, found.nonzero, found.bytes, found.macs)


def test_masks_change_nonzero_and_compaction_everything() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    x = torch.randn(4, 10)
    masked = copy.deepcopy(dense)
    OneShotPruner(masked, 0.5, structure="filter", example_inputs=x).finalize()
    before, middle, after = (cost(model, x) for model in (dense, masked, remove_channels(masked, x)))
    assert (middle.parameters, middle.macs) == (before.parameters, before.macs)
    assert middle.nonzero == before.nonzero - 10 * 10 - 10
    assert after.parameters == 10 * 10 + 10 + 10 * 3 + 3
    assert after.macs == 4 * (100 + 30)
    table = before.compare(after).markdown()
    assert "| MACs | 1,040 | 520 | 2.00x |" in table
    assert "| parameters | 283 | 143 | 1.98x |" in table


def test_the_table_has_a_row_a_layer_and_the_total() -> None:
    found = cost(network(), IMAGES)
    lines = found.table().markdown().splitlines()
    assert lines[2] == "| layer | kind | parameters | nonzero | bytes | MACs |"
    assert lines[4].startswith("| 0 | Conv2d | 224 | 224 | 896 |")
    assert lines[-1].endswith(f"| {found.macs:,} |")
    assert len(lines) == 4 + len(found.layers) + 1


def test_a_model_is_left_as_it_was() -> None:
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    cost(model, IMAGES)
    assert model.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_model_that_does_not_run_is_refused() -> None:
    model = network()
    with pytest.raises(SettingError, match="does not run on example_inputs"):
        cost(model, torch.randn(2, 4, 6, 6))
    assert all(not module._forward_hooks for module in model.modules())
