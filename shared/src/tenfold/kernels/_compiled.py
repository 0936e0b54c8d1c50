"""The sparse products as operators that ``torch.compile`` and ``torch.export`` take into a graph.

Outside a graph nothing goes through here: calling such an operator takes longer than a small product.
The implementation is chosen when the graph runs, and arguments are checked then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tenfold.kernels._checks import check_sparse_times_dense
from tenfold.kernels._registry import get_operator
from tenfold.kernels._selection import choose


@torch.library.custom_op("tenfold::sparse_product", mutates_args=())
def product(
    name: str,
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    implementation: str,
) -> torch.Tensor:
    """Multiply; `name` is that of the product's operator, `implementation` empty for the default."""
    check_sparse_times_dense(name, crow_indices, col_indices, values, dense)
    function = choose(get_operator(name), values, implementation).of(get_operator(name))
    return _like(_empty(values, dense, crow_indices), function(crow_indices, col_indices, values, dense))


@torch.library.custom_op("tenfold::sparse_transposed_product", mutates_args=())
def transposed_product(
    name: str,
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    rows: int,
    implementation: str,
) -> torch.Tensor:
    """Multiply by the transposed matrix, of `rows` rows."""
    function = choose(get_operator(name), values, implementation).of(get_operator(f"{name}_transposed"))
    found = function(crow_indices, col_indices, values, dense, rows)
    return _like(empty_like_layout(dense, rows), found)


@torch.library.custom_op("tenfold::sparse_sampled_product", mutates_args=())
def sampled_product(
    name: str,
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    shape: Sequence[int],
    implementation: str,
) -> torch.Tensor:
    """Multiply two dense matrices where the sparse one has entries."""
    function = choose(get_operator(name), right, implementation).of(get_operator(f"{name}_sampled"))
    found: torch.Tensor = function(crow_indices, col_indices, left, right, tuple(shape))
    return found.contiguous()


product.register_fake(
    lambda name, crow_indices, col_indices, values, dense, implementation: _empty(values, dense, crow_indices)
)
transposed_product.register_fake(
    lambda name, crow_indices, col_indices, values, dense, rows, implementation: empty_like_layout(
        dense, rows
    )
)
sampled_product.register_fake(
    lambda name, crow_indices, col_indices, left, right, shape, implementation: right.new_empty(shape)
)


def empty_like_layout(dense: torch.Tensor, rows: int) -> torch.Tensor:
    """Uninitialised (rows, n) result in the layout of `dense`, row after row or column after column."""
    columns = dense.shape[1]
    if dense.stride(0) == 1 and dense.stride(1) != 1:
        return dense.new_empty((columns, rows)).mT
    return dense.new_empty((rows, columns))


def _empty(values: torch.Tensor, dense: torch.Tensor, crow_indices: torch.Tensor) -> torch.Tensor:
    height = values.shape[1] if values.dim() == 3 else 1
    return empty_like_layout(dense, (crow_indices.shape[0] - 1) * height)


def _like(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Return `found` with the strides that a graph was compiled for."""
    return found if found.stride() == expected.stride() else expected.copy_(found)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.name, *tensors, ctx.implementation = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    crow_indices, col_indices, values, dense = ctx.saved_tensors
    d_values = d_dense = None
    if ctx.needs_input_grad[3]:
        d_values = sampled_product(
            ctx.name, crow_indices, col_indices, gradient, dense, values.shape, ctx.implementation
        )
    if ctx.needs_input_grad[4]:
        d_dense = transposed_product(
            ctx.name, crow_indices, col_indices, values, gradient, dense.shape[0], ctx.implementation
        )
    return None, None, None, d_values, d_dense, None


product.register_autograd(_backward, setup_context=_setup_context)
