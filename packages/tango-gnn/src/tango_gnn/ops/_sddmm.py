"""Values of edges from the features of their two ends: dense products sampled at the graph's edges.

    u_dot_v   e_p = u_j . v_i        for each head of p: j -> i
    u_add_v   e_p = u_j + v_i

The gradient of u_dot_v by u is the sum of v over out-edges, each times de_p, and by v that of u over in-
edges; the gradients of u_add_v are plain sums of de over out-edges and in-edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tango_gnn._quantized import kept, quantize, quantize_once, restored
from tango_gnn.ops._spmm import check_nodes
from tenfold import kernels


def u_dot_v(graph: Graph, u: torch.Tensor, v: torch.Tensor, *, policy: Policy) -> torch.Tensor:
    """Multiply the features of the two ends of every edge, head by head.

    Parameters
    ----------
    graph : Graph
    u : Tensor, shape (sources, heads, width), float32
    v : Tensor, shape (destinations, heads, width), float32
    policy : Policy
        Of a fixed width. The gradient of the result is quantised only without its rule `keep_attention`.

    Returns
    -------
    Tensor, shape (edges, heads), float32
        In canonical order.

    Raises
    ------
    SettingError
        Shapes or types do not fit, or an operand is not finite.
    """
    check_nodes("features of sources", u, graph.sources, 3)
    check_nodes("features of destinations", v, graph.destinations, 3)
    e: torch.Tensor = _UDotV.apply(graph, u, v, policy)
    return e


def u_add_v(graph: Graph, u: torch.Tensor, v: torch.Tensor, *, policy: Policy) -> torch.Tensor:
    """Add values of the two ends of every edge.

    Parameters
    ----------
    graph : Graph
    u : Tensor, shape (sources, heads), float32
    v : Tensor, shape (destinations, heads), float32
    policy : Policy
        Of a fixed width. Quantised only without its rule `keep_scores`.

    Returns
    -------
    Tensor, shape (edges, heads), float32
        In canonical order.

    Raises
    ------
    SettingError
        Shapes or types do not fit, or an operand is not finite.
    """
    check_nodes("values of sources", u, graph.sources, 2)
    check_nodes("values of destinations", v, graph.destinations, 2)
    e: torch.Tensor = _UAddV.apply(graph, u, v, policy)
    return e


class _UDotV(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, u: torch.Tensor, v: torch.Tensor, policy: Policy) -> torch.Tensor:
        ctx.graph, ctx.policy = graph, policy
        if not policy.quantizes:
            u, v = u.contiguous(), v.contiguous()
            ctx.save_for_backward(u, v)
            return kernels.sddmm_u_dot_v(graph.indptr, graph.indices, u, v)
        uq = quantize(u, policy, name="features of sources")
        vq = quantize(v, policy, name="features of destinations")
        ctx.save_for_backward(*kept(u, uq, policy), *kept(v, vq, policy))
        return kernels.sddmm_u_dot_v(
            graph.indptr, graph.indices, uq.values, vq.values, scale=uq.scale * vq.scale
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, de: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        graph, policy = ctx.graph, ctx.policy
        _, u_wanted, v_wanted, _ = ctx.needs_input_grad
        de = de.contiguous()
        u_scale = v_scale = None
        if policy.quantizes:
            saved = ctx.saved_tensors
            uq, vq = restored(saved[:2], policy), restored(saved[2:], policy)
            u, v, u_scale, v_scale = uq.values, vq.values, uq.scale, vq.scale
            if not policy.keep_attention:
                deq = quantize_once(de, policy)
                de, u_scale, v_scale = deq.values, u_scale * deq.scale, v_scale * deq.scale
        else:
            u, v = ctx.saved_tensors
        du = dv = None
        if u_wanted:
            du = kernels.spmm_u_mul_e(
                graph.reversed_indptr, graph.reversed_indices, v, de, edge_ids=graph.edge_ids, scale=v_scale
            )
        if v_wanted:
            dv = kernels.spmm_u_mul_e(graph.indptr, graph.indices, u, de, scale=u_scale)
        return None, du, dv, None


class _UAddV(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, u: torch.Tensor, v: torch.Tensor, policy: Policy) -> torch.Tensor:
        ctx.graph, ctx.policy = graph, policy
        if not policy.quantizes or policy.keep_scores:
            return kernels.sddmm_u_add_v(graph.indptr, graph.indices, u.contiguous(), v.contiguous())
        uq = quantize(u, policy, name="values of sources")
        vq = quantize(v, policy, name="values of destinations")
        return kernels.sddmm_u_add_v(
            graph.indptr, graph.indices, uq.values, vq.values, u_scale=uq.scale, v_scale=vq.scale
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, de: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        graph, policy = ctx.graph, ctx.policy
        _, u_wanted, v_wanted, _ = ctx.needs_input_grad
        de, scale = de.contiguous(), None
        if policy.quantizes and not policy.keep_scores:
            deq = quantize_once(de, policy)
            de, scale = deq.values, deq.scale
        du = dv = None
        if u_wanted:
            du = kernels.edge_sum(graph.reversed_indptr, de, edge_ids=graph.edge_ids, scale=scale)
        if v_wanted:
            dv = kernels.edge_sum(graph.indptr, de, scale=scale)
        return None, du, dv, None
