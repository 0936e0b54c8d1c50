"""Values of edges from the features of their two ends: products of node features at a graph's pattern.

With j the source and i the destination of edge p, and every head h on its own:

    u_dot_v    out_ph = s <u_jh, v_ih>
    u_add_v    out_ph = s_u u_jh + s_v v_ih
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tenfold.errors import SettingError
from tenfold.kernels._graph import by_edge, check_graph, check_scale_of, integers, scaled
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import choose
from tenfold.kernels._sparse import row_of_entry

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


def sddmm_u_dot_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    edge_ids: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    implementation: str | None = None,
) -> torch.Tensor:
    """Inner product, head by head, of the features of each edge's ends.

    Parameters
    ----------
    indptr, indices : Tensor
        The graph; see `spmm_copy_u`.
    u : Tensor, shape (n, H, D), int8 or floating point
        Features of the sources.
    v : Tensor, shape (rows, H, D), like `u`
        Features of the destinations.
    edge_ids : Tensor, shape (E,), like `indptr`, optional
        Edge of each entry, a permutation; entry p is edge p without.
    scale : Tensor, shape (), float32
        The product of both scales; given exactly where `u` and `v` are int8.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (E, H), float32 for int8, else like `u`
        By edge. Sums of int8 are exact and rounded once.

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `spmm_copy_u`.
    """
    operands = {"u": (u, ("n", "H", "D")), "v": (v, ("rows", "H", "D"))}
    check_graph("sddmm_u_dot_v", indptr, indices, edge_ids, operands)
    if u.dtype is not v.dtype:
        raise SettingError(
            f"sddmm_u_dot_v got u of {u.dtype} and v of {v.dtype}", "one type for both", "Quantise both."
        )
    check_scale_of("sddmm_u_dot_v", "scale", scale, u)
    return choose(_u_dot_v, u, implementation).of(_u_dot_v)(indptr, indices, u, v, edge_ids, scale)


def sddmm_u_add_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    edge_ids: torch.Tensor | None = None,
    u_scale: torch.Tensor | None = None,
    v_scale: torch.Tensor | None = None,
    implementation: str | None = None,
) -> torch.Tensor:
    """Sum of the values of each edge's ends.

    Parameters
    ----------
    indptr, indices : Tensor
        The graph; see `spmm_copy_u`.
    u : Tensor, shape (n, H), int8 or floating point
        Values of the sources.
    v : Tensor, shape (rows, H), int8 or floating point
        Values of the destinations.
    edge_ids : Tensor, shape (E,), like `indptr`, optional
        Edge of each entry, a permutation; entry p is edge p without.
    u_scale, v_scale : Tensor, shape (), float32
        What int8 values of `u` and of `v` are multiplied by; each given exactly where they are int8.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (E, H), float32 where both are int8, else of their floating-point type
        By edge.

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `spmm_copy_u`.

    Notes
    -----
    Records no gradient: those of `v` and `u` are `edge_sum` over the graph and over the reversed one.
    """
    operands = {"u": (u, ("n", "H")), "v": (v, ("rows", "H"))}
    check_graph("sddmm_u_add_v", indptr, indices, edge_ids, operands)
    check_scale_of("sddmm_u_add_v", "u_scale", u_scale, u)
    check_scale_of("sddmm_u_add_v", "v_scale", v_scale, v)
    choice = choose(_u_add_v, v if u.dtype is torch.int8 else u, implementation)
    return choice.of(_u_add_v)(indptr, indices, u, v, edge_ids, u_scale, v_scale)


_u_dot_v: Operator[torch.Tensor] = Operator(
    "sddmm_u_dot_v", "inner products of the features of edges' ends", (torch.float32, torch.int8)
)
_u_add_v: Operator[torch.Tensor] = Operator(
    "sddmm_u_add_v", "sums of the values of edges' ends", (torch.float32, torch.int8)
)


@_u_dot_v.implementation("reference")
def _reference_u_dot_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    products = integers(u)[indices.long()] * integers(v)[row_of_entry(indptr)]
    return by_edge(scaled(products.sum(2), scale), edge_ids)


@_u_add_v.implementation("reference")
def _reference_u_add_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    u_scale: torch.Tensor | None,
    v_scale: torch.Tensor | None,
) -> torch.Tensor:
    of_entry = scaled(u, u_scale)[indices.long()] + scaled(v, v_scale)[row_of_entry(indptr)]
    return by_edge(of_entry, edge_ids)


@_u_dot_v.implementation("native")
def _native_u_dot_v(
    instruction_set: InstructionSet,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    out = torch.empty(indices.shape[0], u.shape[1])
    instruction_set.sddmm_u_dot_v(
        indptr.contiguous(),
        indices.contiguous(),
        u.contiguous(),
        v.contiguous(),
        None if edge_ids is None else edge_ids.contiguous(),
        scale,
        out,
        torch.get_num_threads(),
    )
    return out


@_u_add_v.implementation("native")
def _native_u_add_v(
    instruction_set: InstructionSet,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    u_scale: torch.Tensor | None,
    v_scale: torch.Tensor | None,
) -> torch.Tensor:
    out = torch.empty(indices.shape[0], u.shape[1])
    instruction_set.sddmm_u_add_v(
        indptr.contiguous(),
        indices.contiguous(),
        u.contiguous(),
        v.contiguous(),
        None if edge_ids is None else edge_ids.contiguous(),
        u_scale,
        v_scale,
        out,
        torch.get_num_threads(),
    )
    return out


@_u_dot_v.implementation("triton")
def _triton_u_dot_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    from tenfold.kernels._triton import message_passing

    return message_passing.sddmm_u_dot_v(indptr, indices, u, v, edge_ids, scale)


@_u_add_v.implementation("triton")
def _triton_u_add_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    u_scale: torch.Tensor | None,
    v_scale: torch.Tensor | None,
) -> torch.Tensor:
    from tenfold.kernels._triton import message_passing

    return message_passing.sddmm_u_add_v(indptr, indices, u, v, edge_ids, u_scale, v_scale)
