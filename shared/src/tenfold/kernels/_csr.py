"""Products of a matrix in compressed sparse row format and a dense one."""

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


def csr_matmul(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    *,
    implementation: str | None = None,
) -> torch.Tensor:
    """Multiply a CSR matrix A of shape (m, k) and a dense matrix.

    Differentiable in `values` (at the pattern of A) and in `dense`. The native result does not
    depend on the number of threads.

    Parameters
    ----------
    crow_indices : Tensor, shape (m + 1,), int32 or int64
        Row i of A has the entries ``crow_indices[i]`` to ``crow_indices[i + 1]``.
    col_indices : Tensor, shape (entries,), like `crow_indices`
        Column of each entry, in any order within a row; entries at one place add up.
    values : Tensor, shape (entries,), floating point
        Value of each entry.
    dense : Tensor, shape (k, n), like `values`
        Right operand, in any memory layout.
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
    That indices are in range is checked once for each index tensor and remembered until torch
    counts a change to it: keep the index tensors of a layer, do not make them anew in every call.
    int32 indices are faster.
    """
    return matmul(_CSR, crow_indices, col_indices, values, dense, implementation)


def csr_linear(
    input: torch.Tensor,  # noqa: A002
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    implementation: str | None = None,
) -> torch.Tensor:
    """Apply a linear layer whose weight, of shape (out, in), is a CSR matrix.

    Parameters
    ----------
    input : Tensor, shape (..., in)
    crow_indices, col_indices, values : Tensor
        The weight; see `csr_matmul`.
    bias : Tensor, shape (out,), optional
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (..., out)

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `csr_matmul`.
    """
    return linear(_CSR, input, crow_indices, col_indices, values, bias, implementation)


_product: Operator[torch.Tensor] = Operator("csr_matmul", "A D for A in CSR")
_transposed_product: Operator[torch.Tensor] = Operator(
    "csr_matmul_transposed", "Aᵀ D for A in CSR: gradient of a product by its dense operand"
)
_sampled_product: Operator[torch.Tensor] = Operator(
    "csr_matmul_sampled", "L Rᵀ at a CSR pattern: gradient of a product by its values"
)
_CSR = SparseFormat("csr_matmul", _product, _transposed_product, _sampled_product)

_product.implementation("native")(native_product)
_transposed_product.implementation("native")(native_transposed_product)
_sampled_product.implementation("native")(native_sampled_product)


@_product.implementation("reference")
def _reference_product(
    crow_indices: torch.Tensor, col_indices: torch.Tensor, values: torch.Tensor, dense: torch.Tensor
) -> torch.Tensor:
    out = dense.new_zeros((crow_indices.shape[0] - 1, dense.shape[1]))
    return out.index_add_(0, row_of_entry(crow_indices), values[:, None] * dense[col_indices.long()])


@_transposed_product.implementation("reference")
def _reference_transposed_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    rows: int,
) -> torch.Tensor:
    out = dense.new_zeros((rows, dense.shape[1]))
    return out.index_add_(0, col_indices.long(), values[:, None] * dense[row_of_entry(crow_indices)])


@_sampled_product.implementation("reference")
def _reference_sampled_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    shape: tuple[int, ...],
) -> torch.Tensor:
    return (left[row_of_entry(crow_indices)] * right[col_indices.long()]).sum(1)


@_product.implementation("triton")
def _triton_product(
    crow_indices: torch.Tensor, col_indices: torch.Tensor, values: torch.Tensor, dense: torch.Tensor
) -> torch.Tensor:
    from tenfold.kernels._triton import sparse

    return sparse.product(crow_indices, col_indices, values[:, None, None], dense)


@_transposed_product.implementation("triton")
def _triton_transposed_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    rows: int,
) -> torch.Tensor:
    from tenfold.kernels._triton import sparse

    return sparse.transposed_product(crow_indices, col_indices, values[:, None, None], dense, rows)


@_sampled_product.implementation("triton")
def _triton_sampled_product(
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    shape: tuple[int, ...],
) -> torch.Tensor:
    from tenfold.kernels._triton import sparse

    return sparse.sampled_product(crow_indices, col_indices, left, right, (*shape, 1, 1)).view(shape)
