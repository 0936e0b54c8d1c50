"""Activation compression: the error of a row, the mean over rounding, the gradients."""

import pytest
import torch

from tango_gnn.activation_compression import compress, compress_activations
from tenfold import SettingError


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(5, 7), (4099, 3), (6, 2, 9)])
def test_a_value_comes_back_within_a_step(bits, shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed = compress(tensor, bits, torch.Generator().manual_seed(1))
    rows = tensor.flatten(1)
    step = (rows.amax(1) - rows.amin(1)) / (2**bits - 1)
    error = (packed.decompress() - tensor).flatten(1).abs()
    assert (error <= step[:, None] * (1 + 1e-4) + 1e-6).all()
    assert packed.codes.numel() == shape[0] * -(-rows.shape[1] * bits // 8)


def test_rounding_is_unbiased():
    tensor = torch.linspace(0, 1, 9).repeat(20_000, 1)
    mean = compress(tensor, 2, torch.Generator().manual_seed(2)).decompress().mean(0)
    torch.testing.assert_close(mean, tensor[0], atol=0.005, rtol=0)


def test_a_constant_row_is_exact():
    tensor = torch.full((3, 40), 2.5)
    assert torch.equal(compress(tensor, 2).decompress(), tensor)


def test_gradients_are_near_and_parameters_are_not_touched():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(500, 64, generator=generator)
    weights = [torch.randn(64, 64, generator=generator, requires_grad=True) for _ in range(2)]

    def gradients(context):
        with context:
            hidden = (x @ weights[0]) * 0.1
            loss = ((hidden @ weights[1]) * 0.01).square().sum()
        return torch.autograd.grad(loss, weights)

    exact = gradients(torch.enable_grad())
    for bits, limit in ((2, 0.7), (8, 0.01)):
        near = gradients(compress_activations(bits, generator=torch.Generator().manual_seed(4)))
        for ours, expected in zip(near, exact, strict=True):
            assert 0 < (ours - expected).norm() / expected.norm() < limit


def test_other_numbers_of_bits_are_refused():
    with pytest.raises(SettingError, match="3 bits"):
        compress_activations(bits=3)
