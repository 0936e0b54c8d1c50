import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spectral_dp import BlockCirculantLinear, convert_to_block_circulant, to_block_circulant
from tenfold import SettingError

SIZES = st.integers(1, 9)


@settings(max_examples=40, deadline=None)
@given(inputs=SIZES, outputs=SIZES, block=SIZES, bias=st.booleans())
def test_it_is_a_linear_layer_of_circulant_blocks(inputs: int, outputs: int, block: int, bias: bool) -> None:
    layer = BlockCirculantLinear(inputs, outputs, min(block, max(inputs, outputs)), bias).double()
    x = torch.randn(2, 3, inputs, dtype=torch.float64)
    dense = layer.dense_weight()
    assert dense.shape == (outputs, inputs)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, dense, layer.bias))
    for i in range(1, outputs):
        for j in range(1, inputs):
            if i % layer.block and j % layer.block:
                assert dense[i, j] == dense[i - 1, j - 1]


@settings(max_examples=30, deadline=None)
@given(inputs=SIZES, outputs=SIZES, block=SIZES)
def test_the_conversion_is_the_nearest_in_the_frobenius_norm(inputs: int, outputs: int, block: int) -> None:
    linear = nn.Linear(inputs, outputs).double()
    layer = to_block_circulant(linear, min(block, max(inputs, outputs)))
    loss = (layer.dense_weight() - linear.weight.detach()).square().sum()
    (gradient,) = torch.autograd.grad(loss, layer.weight)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    torch.testing.assert_close(layer.bias, linear.bias)


def test_a_circulant_layer_survives_the_round_trip() -> None:
    layer = BlockCirculantLinear(7, 5, 3)
    linear = nn.Linear(7, 5)
    with torch.no_grad():
        linear.weight.copy_(layer.dense_weight())
    torch.testing.assert_close(to_block_circulant(linear, 3).dense_weight(), layer.dense_weight())


def test_layers_of_a_model_are_replaced_all_or_none() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 4, bias=False)))
    for wrong in ({"0": 2, "1": 2}, {"0": 2, "nowhere": 2}, {"0": 2, "": 2}, {"0": 9}):
        with pytest.raises(SettingError):
            convert_to_block_circulant(model, wrong)
        assert type(model[0]) is nn.Linear
    assert convert_to_block_circulant(model, {"0": 4, "2.0": 2}) is model
    assert isinstance(model[0], BlockCirculantLinear)
    assert isinstance(model[2][0], BlockCirculantLinear)
    assert model[2][0].bias is None
    assert "block=2" in repr(model)
    assert model(torch.ones(3, 8)).shape == (3, 4)


def test_a_layer_that_is_used_twice_is_replaced_twice() -> None:
    model = nn.Sequential(first := nn.Linear(6, 6), nn.Tanh(), first, nn.Sequential(first))
    convert_to_block_circulant(model, {"0": 3})
    assert isinstance(model[0], BlockCirculantLinear)
    assert model[0] is model[2] is model[3][0]


@pytest.mark.parametrize("sizes", [(0, 4, 2), (4, 4, 0), (4, 3, 5)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(SettingError, match="blocks of"):
        BlockCirculantLinear(*sizes)
