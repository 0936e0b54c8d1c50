"""Sums of messages over the in-edges of every node: products of a graph and node features.

With N(i) the in-edges p of destination i, j(p) the source of p and s the scale:

    copy_u     out_i  = s r_i sum_{p in N(i)} x_j(p)
    u_mul_e    out_ih = s sum_{p in N(i)} e_ph x_j(p)h       for every head h

Sums of int8 are exact: they are taken in integers and meet the scale at the end, rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tenfold.kernels._graph import (
    by_entry,
    check_graph,
    check_scale_of,
    integers,
    scaled,
    sum_of_rows,
)
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import choose

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


def spmm_copy_u(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    *,
    scale: torch.Tensor | None = None,
    row_scale: torch.Tensor | None = None,
    implementation: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the features of each node's in-neighbours.

    Parameters
    ----------
    indptr : Tensor, shape (rows + 1,), int32 or int64
        The in-edges of destination i are the entries ``indptr[i]`` to ``indptr[i + 1]``.
    indices : Tensor, shape (entries,), like `indptr`
        Source of each in-edge, in any order; a source may come more than once.
    x : Tensor, shape (n, F), int8 or floating point
        Features of the sources.
    scale : Tensor, shape (), float32
        What an int8 value is multiplied by; given exactly where `x` is int8.
    row_scale : Tensor, shape (rows,), floating point, optional
        Factor of each destination, such as a power of its degree.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    out : Tensor, shape (rows, F), float32 where all arguments are int8, else of their floating-point type
        The sums; 0 for a destination without in-edges.
    absmax : Tensor, shape (), like `out`
        The largest magnitude in `out`, which the next quantisation's scale needs: NaN where `out`
        holds one, 0 where it is empty.

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
    Records no gradient: that of `x` is the same sum over the reversed graph. As in `csr_matmul`, what
    the indices hold is checked once for each tensor and remembered.
    """
    operands: dict[str, tuple[torch.Tensor, tuple[str, ...]]] = {"x": (x, ("n", "F"))}
    if row_scale is not None:
        operands["row_scale"] = (row_scale, ("rows",))
    check_graph("spmm_copy_u", indptr, indices, None, operands)
    check_scale_of("spmm_copy_u", "scale", scale, x)
    choice = choose(_copy_u, x if row_scale is None else row_scale, implementation)
    return choice.of(_copy_u)(indptr, indices, x, scale, row_scale)


def spmm_u_mul_e(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    e: torch.Tensor,
    *,
    edge_ids: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    implementation: str | None = None,
) -> torch.Tensor:
    """Sum the features of each node's in-neighbours, weighted by edge and head.

    Parameters
    ----------
    indptr, indices : Tensor
        The graph; see `spmm_copy_u`.
    x : Tensor, shape (n, H, D), int8 or floating point
        Features of the sources, head by head.
    e : Tensor, shape (E, H), int8 or floating point
        Weight of each edge.
    edge_ids : Tensor, shape (E,), like `indptr`, optional
        Edge of each entry, a permutation; entry p is edge p without.
    scale : Tensor, shape (), float32
        The product of the scales of what is int8; given exactly where something is.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (rows, H, D), float32 where `x` and `e` are int8, else of their floating-point type

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `spmm_copy_u`.

    Notes
    -----
    Records no gradient: that of `x` is this sum over the reversed graph, that of `e` is
    `sddmm_u_dot_v`.
    """
    check_graph("spmm_u_mul_e", indptr, indices, edge_ids, {"x": (x, ("n", "H", "D")), "e": (e, ("E", "H"))})
    check_scale_of("spmm_u_mul_e", "scale", scale, x, e)
    choice = choose(_u_mul_e, e if x.dtype is torch.int8 else x, implementation)
    return choice.of(_u_mul_e)(indptr, indices, x, e, edge_ids, scale)


_copy_u: Operator[tuple[torch.Tensor, torch.Tensor]] = Operator(
    "spmm_copy_u", "sum of in-neighbours' features, int8 or floating point", (torch.float32, torch.int8)
)
_u_mul_e: Operator[torch.Tensor] = Operator(
    "spmm_u_mul_e", "sum of in-neighbours' features weighted by edge and head", (torch.float32, torch.int8)
)


@_copy_u.implementation("reference")
def _reference_copy_u(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor | None,
    row_scale: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    out = sum_of_rows(indptr, x[indices.long()])
    factor = scale
    if row_scale is not None:
        factor = row_scale[:, None] if scale is None else (scale * row_scale)[:, None]
    out = scaled(out, factor)
    return out, out.abs().amax() if out.numel() else out.new_zeros(())


@_u_mul_e.implementation("reference")
def _reference_u_mul_e(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    e: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    weights = integers(by_entry(e, edge_ids))[:, :, None]
    return scaled(sum_of_rows(indptr, weights * integers(x)[indices.long()]), scale)


@_copy_u.implementation("native")
def _native_copy_u(
    instruction_set: InstructionSet,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor | None,
    row_scale: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.empty(indptr.shape[0] - 1, x.shape[1])
    absmax = torch.empty(())
    instruction_set.spmm_copy_u(
        indptr.contiguous(),
        indices.contiguous(),
        x.contiguous(),
        scale,
        None if row_scale is None else row_scale.contiguous(),
        out,
        absmax,
        torch.get_num_threads(),
    )
    return out, absmax


@_u_mul_e.implementation("native")
def _native_u_mul_e(
    instruction_set: InstructionSet,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    e: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    out = torch.empty(indptr.shape[0] - 1, *x.shape[1:])
    instruction_set.spmm_u_mul_e(
        indptr.contiguous(),
        indices.contiguous(),
        x.contiguous(),
        e.contiguous(),
        None if edge_ids is None else edge_ids.contiguous(),
        scale,
        out,
        torch.get_num_threads(),
    )
    return out


@_copy_u.implementation("triton")
def _triton_copy_u(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor | None,
    row_scale: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    from tenfold.kernels._triton import message_passing

    return message_passing.spmm_copy_u(indptr, indices, x, scale, row_scale)


@_u_mul_e.implementation("triton")
def _triton_u_mul_e(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    e: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    from tenfold.kernels._triton import message_passing

    return message_passing.spmm_u_mul_e(indptr, indices, x, e, edge_ids, scale)
