"""The sparse products inside ``torch.compile`` and ``torch.export``."""

from collections.abc import Callable

import pytest
import torch

from tenfold import kernels
from tenfold.kernels import _compiled

Format = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def parts(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return matrix.crow_indices().int(), matrix.col_indices().int(), matrix.values().clone()


def csr() -> Format:
    matrix = (torch.randn(12, 8) * (torch.rand(12, 8) < 0.4)).to_sparse_csr()
    return kernels.csr_linear, (
        matrix.crow_indices().int(),
        matrix.col_indices().int(),
        matrix.values().clone(),
    )


def bsr() -> Format:
    blocks = torch.randn(12, 8) * (torch.rand(3, 4) < 0.6).repeat_interleave(4, 0).repeat_interleave(2, 1)
    matrix = blocks.to_sparse_bsr((4, 2))
    return kernels.bsr_linear, (
        matrix.crow_indices().int(),
        matrix.col_indices().int(),
        matrix.values().clone(),
    )


@pytest.fixture(params=[csr, bsr])
def layer(request: pytest.FixtureRequest) -> Format:
    torch.manual_seed(0)
    made: Format = request.param()
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_graph_gives_the_same_output_and_gradients(layer: Format, dtype: torch.dtype) -> None:
    linear, (crow, col, entries) = layer
    compiled = torch.compile(linear, backend="aot_eager", fullgraph=True)
    found = []
    for function in (linear, compiled):
        values = entries.to(dtype, copy=True).requires_grad_()
        x = torch.linspace(-1, 1, 40, dtype=dtype).view(5, 8).requires_grad_()
        output = function(x, crow, col, values)
        output.square().sum().backward()
        found.append((output.detach(), values.grad, x.grad))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_operators_keep_torchs_rules(layer: Format, transposed: bool) -> None:
    linear, (crow, col, values) = layer
    name = linear.__name__.replace("linear", "matmul")
    dense, gradient = torch.randn(8, 5), torch.randn(12, 5)
    if transposed:
        dense, gradient = dense.mT.contiguous().mT, gradient.mT.contiguous().mT
    for implementation in ("", "reference"):
        wanted = (name, crow, col, values.clone().requires_grad_(), dense, implementation)
        torch.library.opcheck(_compiled.product, wanted)
        torch.library.opcheck(
            _compiled.transposed_product, (name, crow, col, values, gradient, 8, implementation)
        )
        torch.library.opcheck(
            _compiled.sampled_product, (name, crow, col, gradient, dense, list(values.shape), implementation)
        )


def test_a_program_is_exported_with_the_products_in_it(layer: Format) -> None:
    linear, (crow, col, values) = layer

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return linear(x, crow, col, values)

    x = torch.randn(5, 8)
    program = torch.export.export(Layer(), (x,))
    assert "tenfold.sparse_product" in str(program.graph)
    torch.testing.assert_close(program.module()(x), linear(x, crow, col, values))


@pytest.mark.slow
def test_inductor_takes_them(layer: Format) -> None:
    linear, (crow, col, values) = layer
    function = torch.compile(lambda x: linear(torch.relu(x), crow, col, values).tanh(), fullgraph=True)
    x = torch.randn(5, 8)
    torch.testing.assert_close(function(x), linear(torch.relu(x), crow, col, values).tanh())
