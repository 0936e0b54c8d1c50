"""Products of a matrix in block sparse row format and a dense one."""

from __future__ import annotations

import torch

from tenfold.kernels._registry import Operator
from tenfold.kernels._sparse import (
    SparseFormat,
    linear,
    matmul,
    native_product,
    native_sampled_product,
    native_transposed_product,
    row_of_entry,
)


def bsr_matmul(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    *,
    implementation: str | None = None,
) -> torch.Tensor:
    """Multiply a BSR matrix A, of m x k entries in blocks of r x c, and a dense matrix.

    Differentiable in `values` and in `dense`. The native result does not depend on the number of
    threads. Blocks of 16 x 16 suit every instruction set.

    Parameters
    ----------
    crow_indices : Tensor, shape (m / r + 1,), int32 or int64
        Block row i of A has the blocks ``crow_indices[i]`` to ``crow_indices[i + 1]``.
    col_indices : Tensor, shape (blocks,), like `crow_indices`
        Block column of each block; blocks at one place add up.
    values : Tensor, shape (blocks, r, c), floating point
        The blocks.
    dense : Tensor, shape (k, n), like `values`
        Right operand, in any memory layout; c divides k.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (m, n)
        The product; a transposed view of a contiguous tensor when `dense` is one.

    Raises
    ------
    SettingError
        Shapes, types, devices or indices do not fit together, or the implementation does not take
        them.
    UnknownNameError
        There is no such implementation.
    MissingExtraError
        The implementation is not built or not installed.

    Notes
    -----
    Index ranges are checked as in `csr_matmul`: once for each index tensor.
    """
    return matmul(_BSR, crow_indices, col_indices, values, dense, implementation)


def bsr_linear(
    input: torch.Tensor,  # noqa: A002
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    implementation: str | None = None,
) -> torch.Tensor:
    """Apply a linear layer whose weight, of shape (out, in), is a BSR matrix.

    Parameters
    ----------
    input : Tensor, shape (..., in)
    crow_indices, col_indices, values : Tensor
        The weight; see `bsr_matmul`.
    bias : Tensor, shape (out,), optional
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (..., out)

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `bsr_matmul`.
    """
    return linear(_BSR, input, crow_indices, col_indices, values, bias, implementation)


_product: Operator[torch.Tensor] = Operator("bsr_matmul", "A D for A in BSR")
_transposed_product: Operator[torch.Tensor] = Operator(
    "bsr_matmul_transposed", "Aᵀ D for A in BSR: gradient of a product by its dense operand"
)
_sampled_product: Operator[torch.Tensor] = Operator(
    "bsr_matmul_sampled", "L Rᵀ at a BSR pattern: gradient of a product by its values"
)
_BSR = SparseFormat("bsr_matmul", _product, _transposed_product, _sampled_product)

_product.implementation("native")(native_product)
_transposed_product.implementation("native")(native_transposed_product)
_sampled_product.implementation("native")(native_sampled_product)


@_product.implementation("reference")
def _reference_product(
    crow_indices: torch.Tensor, col_indices: torch.Tensor, values: torch.Tensor, dense: torch.Tensor
) -> torch.Tensor:
    _, height, width = values.shape
    block_rows, n = crow_indices.shape[0] - 1, dense.shape[1]
    products = values @ dense.reshape(dense.shape[0] // width, width, n)[col_indices.long()]
    out = dense.new_zeros((block_rows, height, n))
    return out.index_add_(0, row_of_entry(crow_indices), products).view(block_rows * height, n)


@_transposed_product.implementation("reference")
def _reference_transposed_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    rows: int,
) -> torch.Tensor:
    _, height, width = values.shape
    n = dense.shape[1]
    products = values.mT @ dense.reshape(dense.shape[0] // height, height, n)[row_of_entry(crow_indices)]
    out = dense.new_zeros((rows // width, width, n))
    return out.index_add_(0, col_indices.long(), products).view(rows, n)


@_sampled_product.implementation("reference")
def _reference_sampled_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    shape: tuple[int, ...],
) -> torch.Tensor:
    _, height, width = shape
    n = left.shape[1]
    rows = left.reshape(left.shape[0] // height, height, n)[row_of_entry(crow_indices)]
    columns = right.reshape(right.shape[0] // width, width, n)[col_indices.long()]
    return rows @ columns.mT


@_product.implementation("triton")
def _triton_product(
    crow_indices: torch.Tensor, col_indices: torch.Tensor, values: torch.Tensor, dense: torch.Tensor
) -> torch.Tensor:
    from tenfold.kernels._triton import sparse

    return sparse.product(crow_indices, col_indices, values, dense)


@_transposed_product.implementation("triton")
def _triton_transposed_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    rows: int,
) -> torch.Tensor:
    from tenfold.kernels._triton import sparse

    return sparse.transposed_product(crow_indices, col_indices, values, dense, rows)


@_sampled_product.implementation("triton")
def _triton_sampled_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    shape: tuple[int, ...],
) -> torch.Tensor:
    from tenfold.kernels._triton import sparse

    return sparse.sampled_product(crow_indices, col_indices, left, right, shape)
