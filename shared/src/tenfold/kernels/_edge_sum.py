"""Sums of edge values over the in-edges of every node.

    out_ih = s sum_{p in N(i)} e_ph

The gradient of `sddmm_u_add_v` by its destinations and, over the reversed graph, by its sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tenfold.kernels._graph import by_entry, check_graph, check_scale_of, scaled, sum_of_rows
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import choose

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


def edge_sum(
    indptr: torch.Tensor,
    e: torch.Tensor,
    *,
    edge_ids: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    implementation: str | None = None,
) -> torch.Tensor:
    """Sum the values of each node's in-edges.

    Parameters
    ----------
    indptr : Tensor, shape (rows + 1,), int32 or int64
        The in-edges of destination i are the entries ``indptr[i]`` to ``indptr[i + 1]``.
    e : Tensor, shape (E, H), int8 or floating point
        Values of the edges.
    edge_ids : Tensor, shape (E,), like `indptr`, optional
        Edge of each entry, a permutation; entry p is edge p without.
    scale : Tensor, shape (), float32
        What an int8 value is multiplied by; given exactly where `e` is int8.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (rows, H), float32 for int8, else like `e`

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `spmm_copy_u`.
    """
    check_graph("edge_sum", indptr, None, edge_ids, {"e": (e, ("E", "H"))})
    check_scale_of("edge_sum", "scale", scale, e)
    return choose(_operator, e, implementation).of(_operator)(indptr, e, edge_ids, scale)


_operator: Operator[torch.Tensor] = Operator(
    "edge_sum", "sum of the values of in-edges", (torch.float32, torch.int8)
)


@_operator.implementation("reference")
def _reference(
    indptr: torch.Tensor, e: torch.Tensor, edge_ids: torch.Tensor | None, scale: torch.Tensor | None
) -> torch.Tensor:
    return scaled(sum_of_rows(indptr, by_entry(e, edge_ids)), scale)


@_operator.implementation("native")
def _native(
    instruction_set: InstructionSet,
    indptr: torch.Tensor,
    e: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    out = torch.empty(indptr.shape[0] - 1, e.shape[1])
    instruction_set.edge_sum(
        indptr.contiguous(),
        e.contiguous(),
        None if edge_ids is None else edge_ids.contiguous(),
        scale,
        out,
        torch.get_num_threads(),
    )
    return out


@_operator.implementation("triton")
def _triton(
    indptr: torch.Tensor, e: torch.Tensor, edge_ids: torch.Tensor | None, scale: torch.Tensor | None
) -> torch.Tensor:
    from tenfold.kernels._triton import message_passing

    return message_passing.edge_sum(indptr, e, edge_ids, scale)
