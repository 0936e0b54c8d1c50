"""What the products of CSR and BSR matrices share: gradients, layouts, the native calls.

With A of shape (m, k), sparse, and D of shape (k, n), dense:

    Y = A D        the product
    dD = Aᵀ dY     the transposed product
    dA = dY Dᵀ     the sampled product, computed only where A has entries

Dense operands may lie in any layout. A product of a transposed view is again one, so that
``matmul(x.mT).mT`` is a linear layer that copies neither its input nor its output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from tenfold.errors import SettingError
from tenfold.kernels import _compiled
from tenfold.kernels._checks import check_sparse_times_dense
from tenfold.kernels._compiled import empty_like_layout
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import Choice, choose

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


@dataclass(frozen=True)
class SparseFormat:
    """The three operators of a sparse format.

    Attributes
    ----------
    name : str
        Public function and the product's operator.
    product : Operator
        ``(crow, col, values, dense (k, n)) -> (m, n)``
    transposed_product : Operator
        ``(crow, col, values, dense (m, n), k) -> (k, n)``
    sampled_product : Operator
        ``(crow, col, left (m, n), right (k, n), shape of values) -> values``
    """

    name: str
    product: Operator[torch.Tensor]
    transposed_product: Operator[torch.Tensor]
    sampled_product: Operator[torch.Tensor]


def matmul(
    format: SparseFormat,  # noqa: A002
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    implementation: str | None,
) -> torch.Tensor:
    """Check, choose and multiply, recording a gradient where one is wanted."""
    product: torch.Tensor
    if torch.compiler.is_compiling():
        product = _compiled.product(
            format.name, crow_indices, col_indices, values, dense, implementation or ""
        )
        return product
    check_sparse_times_dense(format.name, crow_indices, col_indices, values, dense)
    choice = choose(format.product, values, implementation)
    if torch.is_grad_enabled() and (values.requires_grad or dense.requires_grad):
        product = _Matmul.apply(format, choice, crow_indices, col_indices, values, dense)
        return product
    return choice.of(format.product)(crow_indices, col_indices, values, dense)


def linear(
    format: SparseFormat,  # noqa: A002
    input: torch.Tensor,  # noqa: A002
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    implementation: str | None,
) -> torch.Tensor:
    """``input @ weight.T + bias`` for any number of leading dimensions."""
    if not input.dim():
        raise SettingError("the input of a linear layer is a scalar", "shape (..., in)", "Add a dimension.")
    rows = input.reshape(-1, input.shape[-1]) if input.dim() != 2 else input
    output = matmul(format, crow_indices, col_indices, values, rows.mT, implementation).mT
    if bias is not None:
        output = output + bias
    return output if input.dim() == 2 else output.reshape(*input.shape[:-1], output.shape[-1])


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        format: SparseFormat,  # noqa: A002
        choice: Choice,
        crow_indices: torch.Tensor,
        col_indices: torch.Tensor,
        values: torch.Tensor,
        dense: torch.Tensor,
    ) -> torch.Tensor:
        ctx.format, ctx.choice = format, choice
        ctx.save_for_backward(crow_indices, col_indices, values, dense)
        return choice.of(format.product)(crow_indices, col_indices, values, dense)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        format, choice = ctx.format, ctx.choice  # noqa: A001
        crow_indices, col_indices, values, dense = ctx.saved_tensors
        *_, values_wanted, dense_wanted = ctx.needs_input_grad
        d_values = d_dense = None
        if values_wanted:
            sampled_product = choice.of(format.sampled_product)
            d_values = sampled_product(crow_indices, col_indices, gradient, dense, values.shape)
        if dense_wanted:
            transposed_product = choice.of(format.transposed_product)
            d_dense = transposed_product(crow_indices, col_indices, values, gradient, dense.shape[0])
        return None, None, None, None, d_values, d_dense


def row_of_entry(crow_indices: torch.Tensor) -> torch.Tensor:
    """Row, or block row, of every entry, as int64."""
    rows = torch.arange(crow_indices.shape[0] - 1, device=crow_indices.device)
    return rows.repeat_interleave(crow_indices.diff().long())


def native_product(
    instruction_set: InstructionSet,
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
) -> torch.Tensor:
    """Native product in either format."""
    height = values.shape[1] if values.dim() == 3 else 1
    out = empty_like_layout(dense, (crow_indices.shape[0] - 1) * height)
    instruction_set.product(
        crow_indices.contiguous(),
        col_indices.contiguous(),
        values.contiguous(),
        dense,
        out,
        torch.get_num_threads(),
    )
    return out


def native_transposed_product(
    instruction_set: InstructionSet,
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    values: torch.Tensor,
    dense: torch.Tensor,
    rows: int,
) -> torch.Tensor:
    """Native transposed product in either format."""
    out = empty_like_layout(dense, rows)
    instruction_set.transposed_product(
        crow_indices.contiguous(),
        col_indices.contiguous(),
        values.contiguous(),
        dense,
        out,
        torch.get_num_threads(),
    )
    return out


def native_sampled_product(
    instruction_set: InstructionSet,
    crow_indices: torch.Tensor,
    col_indices: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    shape: tuple[int, ...],
) -> torch.Tensor:
    """Native sampled product in either format."""
    out = right.new_empty(shape)
    instruction_set.sampled_product(
        crow_indices.contiguous(), col_indices.contiguous(), left, right, out, torch.get_num_threads()
    )
    return out
