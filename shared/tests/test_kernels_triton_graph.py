"""Triton kernels of graph operators against the reference, through Triton's interpreter.

One test runs all the ``check_`` functions of this file. The graph has destinations without in-edges,
sources without out-edges, and edges that occur twice. Sums of integers are equal bit for bit.
"""

import math

import pytest
import torch
from triton_interpreter import needs_triton, run_checks

from tenfold import kernels

WIDTHS = [(1, 1), (3, 5), (2, 70)]
HEADS = [1, 3, 20]
TYPES = [torch.float32, torch.int8]
CHECKS = 3 * (2 + 2 * 2 + 2 + 2 * 2 + 2 + 1) + 1 + 1 + 1
ROWS, SOURCES, EDGES = 9, 6, 60


@needs_triton
def test_triton_through_its_interpreter():
    run_checks(__file__, CHECKS)


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    in_degrees = torch.tensor([0, 40, 3, 0, 1, 16, 0, 0, 0])
    indptr = torch.cat([torch.zeros(1, dtype=torch.long), in_degrees.cumsum(0)]).int()
    indices = torch.randint(SOURCES - 1, (EDGES,), generator=generator).int()
    return indptr, indices, torch.randperm(EDGES, generator=generator).int()


def _random(kind, *shape):
    generator = torch.Generator().manual_seed(len(shape) + shape[0])
    if kind is torch.int8:
        return torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    return torch.randn(shape, generator=generator)


def _agree(function, *arguments, **settings):
    """Compare, exactly where only one rounding takes place; return our result."""
    ours, expected = (
        function(*arguments, **settings, implementation=name) for name in ("triton", "reference")
    )
    exact = not any(each.is_floating_point() for each in arguments)
    torch.testing.assert_close(
        ours, expected, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-4, equal_nan=True
    )
    return ours


def _scale(*operands):
    return torch.tensor(0.013) if any(each.dtype is torch.int8 for each in operands) else None


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TYPES)
def check_copy_u(graph, width, kind):
    indptr, indices, _ = graph
    x = _random(kind, SOURCES, math.prod(width))
    for row_scale in (None, torch.rand(ROWS)):
        out, absmax = _agree(kernels.spmm_copy_u, indptr, indices, x, scale=_scale(x), row_scale=row_scale)
        assert torch.equal(absmax, out.abs().amax())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("edge_kind", TYPES)
def check_u_mul_e(graph, width, kind, edge_kind):
    indptr, indices, edge_ids = graph
    x, e = _random(kind, SOURCES, *width), _random(edge_kind, EDGES, width[0])
    for order in (None, edge_ids):
        _agree(kernels.spmm_u_mul_e, indptr, indices, x, e, edge_ids=order, scale=_scale(x, e))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TYPES)
def check_u_dot_v(graph, width, kind):
    indptr, indices, edge_ids = graph
    u, v = _random(kind, SOURCES, *width), _random(kind, ROWS, *width)
    for order in (None, edge_ids):
        _agree(kernels.sddmm_u_dot_v, indptr, indices, u, v, edge_ids=order, scale=_scale(u))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("other_kind", TYPES)
def check_u_add_v(graph, width, kind, other_kind):
    indptr, indices, edge_ids = graph
    u, v = _random(kind, SOURCES, width[0]), _random(other_kind, ROWS, width[0])
    for order in (None, edge_ids):
        scales = {"u_scale": _scale(u), "v_scale": _scale(v)}
        _agree(kernels.sddmm_u_add_v, indptr, indices, u, v, edge_ids=order, **scales)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", TYPES)
def check_edge_sum(graph, width, kind):
    indptr, _, edge_ids = graph
    e = _random(kind, EDGES, math.prod(width))
    for order in (None, edge_ids):
        _agree(kernels.edge_sum, indptr, e, edge_ids=order, scale=_scale(e))


@pytest.mark.parametrize("heads", HEADS)
def check_edge_attention(graph, heads):
    indptr, indices, _ = graph
    u, v = 30 * _random(torch.float32, SOURCES, heads), _random(torch.float32, ROWS, heads)
    attention = _agree(kernels.edge_attention, indptr, indices, u, v, slope=0.1)
    gradient = _random(torch.float32, EDGES, heads)
    _agree(kernels.edge_attention_backward, indptr, indices, u, v, attention, gradient, slope=0.1)


def check_int64_indices_and_strided_features(graph):
    indptr, indices, edge_ids = (each.long() for each in graph)
    x, e = _random(torch.int8, SOURCES, 5, 3).mT, _random(torch.int8, 3, EDGES).mT
    _agree(kernels.spmm_u_mul_e, indptr, indices, x, e, edge_ids=edge_ids, scale=_scale(x))


def check_a_graph_without_edges():
    indptr, indices = torch.zeros(4, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
    x, e = torch.ones(3, 2), torch.ones(0, 2)
    out, absmax = _agree(kernels.spmm_copy_u, indptr, indices, x)
    assert not out.any()
    assert absmax == 0
    assert _agree(kernels.edge_attention, indptr, indices, x, x).shape == (0, 2)
    _, d_v = _agree(kernels.edge_attention_backward, indptr, indices, x, x, e, e)
    assert not d_v.any()


def check_what_is_not_finite_propagates(graph):
    indptr, indices, _ = graph
    x = _random(torch.float32, SOURCES, 3)
    x[0, 1], x[1, 2] = math.nan, math.inf
    _, absmax = _agree(kernels.spmm_copy_u, indptr, indices, x)
    assert absmax.isnan()
    _agree(kernels.edge_attention, indptr, indices, x, torch.zeros(ROWS, 3))
