"""Sums over the in-edges of every node, as products of a sparse and a dense matrix.

    copy_u_sum    z_i = r_i sum_{j -> i} c_j x_j
    u_mul_e_sum   z_i = sum_{p: j -> i} e_p x_j       for each head
    copy_e_sum    z_i = sum_{p: j -> i} e_p

The gradient of each by x is the same sum over the reversed graph, with the gradient of z for x; that by e_p
is the dot product of x_j and dz_i. The norms r and c, of destinations and of sources, are applied as the sum
is written and as x is quantised, so that neither costs a pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tango_gnn._quantized import (
    kept,
    quantize,
    quantize_once,
    remember_absmax,
    restored,
    round_trip,
)
from tenfold import SettingError, kernels


def copy_u_sum(
    graph: Graph,
    x: torch.Tensor,
    *,
    policy: Policy,
    source_scale: torch.Tensor | None = None,
    destination_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum the features of the sources of every node's in-edges.

    Parameters
    ----------
    graph : Graph
    x : Tensor, shape (sources, ...), float32
    policy : Policy
        Of a fixed width.
    source_scale : Tensor, shape (sources,), float32, optional
        Factor of each source's features. It has no gradient.
    destination_scale : Tensor, shape (destinations,), float32, optional
        Factor of each sum. It has no gradient.

    Returns
    -------
    Tensor, shape (destinations, ...), float32

    Raises
    ------
    SettingError
        Shapes or types do not fit, or `x` is not finite.
    """
    check_nodes("features of sources", x, graph.sources)
    if policy.quantizes and not policy.keep_norms:
        source_scale = None if source_scale is None else round_trip(source_scale, policy)
        destination_scale = None if destination_scale is None else round_trip(destination_scale, policy)
    rows = x if x.dim() == 2 else x.reshape(x.shape[0], -1)
    z: torch.Tensor = _CopyUSum.apply(graph, rows, policy, source_scale, destination_scale)
    return z if x.dim() == 2 else z.reshape(graph.destinations, *x.shape[1:])


def u_mul_e_sum(graph: Graph, x: torch.Tensor, e: torch.Tensor, *, policy: Policy) -> torch.Tensor:
    """Sum the features of the sources of every node's in-edges, each times its edge's value, head by head.

    Parameters
    ----------
    graph : Graph
    x : Tensor, shape (sources, heads, width), float32
    e : Tensor, shape (edges, heads), float32
        In canonical order.
    policy : Policy
        Of a fixed width. `e` is quantised only without its rule `keep_attention`.

    Returns
    -------
    Tensor, shape (destinations, heads, width), float32

    Raises
    ------
    SettingError
        Shapes or types do not fit, or `x` is not finite.
    """
    check_nodes("features of sources", x, graph.sources, 3)
    check_edges("values of edges", e, graph, x.shape[1])
    z: torch.Tensor = _UMulESum.apply(graph, x, e, policy)
    return z


def copy_e_sum(graph: Graph, e: torch.Tensor) -> torch.Tensor:
    """Sum the values of every node's in-edges, in float32.

    Parameters
    ----------
    graph : Graph
    e : Tensor, shape (edges, heads), float32
        In canonical order.

    Returns
    -------
    Tensor, shape (destinations, heads), float32

    Raises
    ------
    SettingError
        Shapes or types do not fit.
    """
    check_edges("values of edges", e, graph)
    z: torch.Tensor = _CopyESum.apply(graph, e)
    return z


def check_nodes(name: str, x: torch.Tensor, nodes: int, dimensions: int | None = None) -> None:
    """Check that a tensor has a row for each node.

    Raises
    ------
    SettingError
        It has another number of rows or of dimensions.
    """
    if x.dim() < 2 or x.shape[0] != nodes or (dimensions is not None and x.dim() != dimensions):
        expected = {None: "...", 2: "heads", 3: "heads, width"}[dimensions]
        raise SettingError(
            f"{name} of shape {tuple(x.shape)}",
            f"shape ({nodes}, {expected})",
            "Pass one row for every node of the graph.",
        )


def check_edges(name: str, e: torch.Tensor, graph: Graph, heads: int | None = None) -> None:
    """Check that a tensor has a row for each edge.

    Raises
    ------
    SettingError
        It has another number of rows, or of columns.
    """
    if e.dim() != 2 or e.shape[0] != graph.edges or (heads is not None and e.shape[1] != heads):
        raise SettingError(
            f"{name} of shape {tuple(e.shape)}",
            f"shape ({graph.edges}, {'heads' if heads is None else heads})",
            "Pass one row for every edge of the graph.",
        )


class _CopyUSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        graph: Graph,
        x: torch.Tensor,
        policy: Policy,
        source_scale: torch.Tensor | None,
        destination_scale: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.settings = graph, policy, source_scale, destination_scale
        if not policy.quantizes:
            scaled = x if source_scale is None else x * source_scale[:, None]
            return kernels.spmm_copy_u(
                graph.indptr, graph.indices, scaled.contiguous(), row_scale=destination_scale
            )[0]
        xq = quantize(x, policy, row_scale=source_scale, name="features to aggregate")
        return remember_absmax(
            *kernels.spmm_copy_u(
                graph.indptr, graph.indices, xq.values, scale=xq.scale, row_scale=destination_scale
            )
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        graph, policy, source_scale, destination_scale = ctx.settings
        if not policy.quantizes:
            scaled = dz if destination_scale is None else dz * destination_scale[:, None]
            dx, _ = kernels.spmm_copy_u(
                graph.reversed_indptr, graph.reversed_indices, scaled.contiguous(), row_scale=source_scale
            )
            return None, dx, None, None, None
        dzq = quantize_once(dz, policy, row_scale=destination_scale)
        dx = remember_absmax(
            *kernels.spmm_copy_u(
                graph.reversed_indptr,
                graph.reversed_indices,
                dzq.values,
                scale=dzq.scale,
                row_scale=source_scale,
            )
        )
        return None, dx, None, None, None


class _UMulESum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, x: torch.Tensor, e: torch.Tensor, policy: Policy) -> torch.Tensor:
        ctx.graph, ctx.policy = graph, policy
        z, *saved = u_mul_e(graph, x, e.contiguous(), policy)
        ctx.save_for_backward(*saved)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _, x_wanted, e_wanted, _ = ctx.needs_input_grad
        dx, de = u_mul_e_backward(ctx.graph, ctx.saved_tensors, dz, ctx.policy, x_wanted, e_wanted)
        return None, dx, de, None


def u_mul_e(
    graph: Graph, x: torch.Tensor, e: torch.Tensor, policy: Policy
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
    """Return the sum of `u_mul_e_sum`, and what `u_mul_e_backward` needs of `x` and, last, of `e`."""
    if not policy.quantizes:
        x = x.contiguous()
        return kernels.spmm_u_mul_e(graph.indptr, graph.indices, x, e), x, None, e, None
    xq = quantize(x, policy, name="features to aggregate")
    if policy.keep_attention:
        z = kernels.spmm_u_mul_e(graph.indptr, graph.indices, xq.values, e, scale=xq.scale)
        return z, *kept(x, xq, policy), e, None
    eq = quantize(e, policy)
    z = kernels.spmm_u_mul_e(graph.indptr, graph.indices, xq.values, eq.values, scale=xq.scale * eq.scale)
    return z, *kept(x, xq, policy), *kept(e, eq, policy)


def u_mul_e_backward(
    graph: Graph,
    saved: Sequence[torch.Tensor | None],
    dz: torch.Tensor,
    policy: Policy,
    x_wanted: bool,
    e_wanted: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of `u_mul_e_sum` by `x` and `e` that are wanted."""
    *kept_x, e, e_scale = saved
    assert e is not None
    dx = de = None
    if not policy.quantizes:
        (x, _), dz = kept_x, dz.contiguous()
        assert x is not None
        if x_wanted:
            dx = kernels.spmm_u_mul_e(
                graph.reversed_indptr, graph.reversed_indices, dz, e, edge_ids=graph.edge_ids
            )
        if e_wanted:
            de = kernels.sddmm_u_dot_v(graph.indptr, graph.indices, x, dz)
        return dx, de
    dzq = quantize_once(dz, policy)
    if x_wanted:
        scale = dzq.scale
        if not policy.keep_attention:
            eq = restored((e, e_scale), policy)
            e, scale = eq.values, scale * eq.scale
        dx = kernels.spmm_u_mul_e(
            graph.reversed_indptr,
            graph.reversed_indices,
            dzq.values,
            e,
            edge_ids=graph.edge_ids,
            scale=scale,
        )
    if e_wanted:
        xq = restored(kept_x, policy)
        de = kernels.sddmm_u_dot_v(
            graph.indptr, graph.indices, xq.values, dzq.values, scale=xq.scale * dzq.scale
        )
    return dx, de


class _CopyESum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, e: torch.Tensor) -> torch.Tensor:
        ctx.graph = graph
        return kernels.edge_sum(graph.indptr, e.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, dz.index_select(0, ctx.graph.destination_of_edge)
