"""Attention: a softmax over the in-edges of every node.

    edge_attention   a_p = softmax_{p: j -> i} leaky_relu(u_j + v_i)      for each head
    edge_softmax     a_p = softmax_{p: j -> i} e_p
    attention_sum    z_i = sum_{p: j -> i} a_p x_j                        in one, for each head

A softmax stays in float32. It is computed in one pass with the scores, and its gradient likewise, so that the
scores, one for each edge and head, are never written. A softmax of given scores is the same with a source for
every edge, v = 0 and no slope. An attention that only its sum needs is not kept for the gradient: to compute
it anew takes a fraction of the time of the sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tango_gnn._quantized import round_trip
from tango_gnn.ops._spmm import check_edges, check_nodes, u_mul_e, u_mul_e_backward, u_mul_e_sum
from tenfold import kernels


def edge_attention(
    graph: Graph, u: torch.Tensor, v: torch.Tensor, *, policy: Policy, slope: float = 0.2
) -> torch.Tensor:
    """Attention of every node to its in-edges, from scores that are sums of a source's and a node's value.

    Parameters
    ----------
    graph : Graph
    u : Tensor, shape (sources, heads), float32
    v : Tensor, shape (destinations, heads), float32
    policy : Policy
        Of a fixed width. `u` and `v` are quantised only without its rule `keep_scores`.
    slope : float
        Of the leaky ReLU, where its argument is negative.

    Returns
    -------
    Tensor, shape (edges, heads), float32
        In canonical order; adds up to 1 over the in-edges of a node.

    Raises
    ------
    SettingError
        Shapes or types do not fit.
    """
    check_nodes("values of sources", u, graph.sources, 2)
    check_nodes("values of destinations", v, graph.destinations, 2)
    a: torch.Tensor = _EdgeAttention.apply(graph, u, v, slope, policy)
    return a


def attention_sum(
    graph: Graph,
    x: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    policy: Policy,
    slope: float = 0.2,
) -> torch.Tensor:
    """Apply `u_mul_e_sum` with the weights of `edge_attention`, in less memory.

    Parameters
    ----------
    graph : Graph
    x : Tensor, shape (sources, heads, width), float32
    u, v : Tensor, shape (sources, heads) and (destinations, heads), float32
        As in `edge_attention`.
    policy : Policy
        Of a fixed width.
    slope : float
        Of the leaky ReLU, where its argument is negative.

    Returns
    -------
    Tensor, shape (destinations, heads, width), float32

    Raises
    ------
    SettingError
        Shapes or types do not fit, or `x` is not finite.
    """
    check_nodes("features of sources", x, graph.sources, 3)
    check_nodes("values of sources", u, graph.sources, 2)
    check_nodes("values of destinations", v, graph.destinations, 2)
    if policy.quantizes and not policy.keep_attention:
        return u_mul_e_sum(graph, x, edge_attention(graph, u, v, policy=policy, slope=slope), policy=policy)
    z: torch.Tensor = _AttentionSum.apply(graph, x, u, v, slope, policy)
    return z


def edge_softmax(graph: Graph, scores: torch.Tensor) -> torch.Tensor:
    """Softmax over the in-edges of every node, in float32.

    Parameters
    ----------
    graph : Graph
    scores : Tensor, shape (edges, heads), float32
        In canonical order.

    Returns
    -------
    Tensor, shape (edges, heads), float32
        In canonical order.

    Raises
    ------
    SettingError
        Shapes or types do not fit.
    """
    check_edges("scores", scores, graph)
    a: torch.Tensor = _EdgeSoftmax.apply(graph, scores)
    return a


class _EdgeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, graph: Graph, u: torch.Tensor, v: torch.Tensor, slope: float, policy: Policy
    ) -> torch.Tensor:
        ctx.graph, ctx.slope = graph, slope
        u, v = _scores(u, v, policy)
        a = kernels.edge_attention(graph.indptr, graph.indices, u, v, slope=slope)
        ctx.save_for_backward(u, v, a)
        return a

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, da: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        u, v, a = ctx.saved_tensors
        return None, *_attention_backward(ctx.graph, u, v, a, da, ctx.slope), None, None


class _AttentionSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        graph: Graph,
        x: torch.Tensor,
        u: torch.Tensor,
        v: torch.Tensor,
        slope: float,
        policy: Policy,
    ) -> torch.Tensor:
        ctx.graph, ctx.slope, ctx.policy = graph, slope, policy
        u, v = _scores(u, v, policy)
        a = kernels.edge_attention(graph.indptr, graph.indices, u, v, slope=slope)
        z, *kept_x, _, _ = u_mul_e(graph, x, a, policy)
        ctx.save_for_backward(u, v, *kept_x)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        graph, slope = ctx.graph, ctx.slope
        _, x_wanted, *scores_wanted, _, _ = ctx.needs_input_grad
        u, v, *kept_x = ctx.saved_tensors
        a = kernels.edge_attention(graph.indptr, graph.indices, u, v, slope=slope)
        dx, da = u_mul_e_backward(graph, (*kept_x, a, None), dz, ctx.policy, x_wanted, any(scores_wanted))
        du, dv = (None, None) if da is None else _attention_backward(graph, u, v, a, da, slope)
        return None, dx, du, dv, None, None


def _scores(u: torch.Tensor, v: torch.Tensor, policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    if policy.quantizes and not policy.keep_scores:
        u, v = round_trip(u, policy), round_trip(v, policy)
    return u.contiguous(), v.contiguous()


def _attention_backward(
    graph: Graph, u: torch.Tensor, v: torch.Tensor, a: torch.Tensor, da: torch.Tensor, slope: float
) -> tuple[torch.Tensor, torch.Tensor]:
    dscore, dv = kernels.edge_attention_backward(
        graph.indptr, graph.indices, u, v, a, da.contiguous(), slope=slope
    )
    return kernels.edge_sum(graph.reversed_indptr, dscore, edge_ids=graph.edge_ids), dv


class _EdgeSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, scores: torch.Tensor) -> torch.Tensor:
        ctx.graph = graph
        scores = scores.contiguous()
        zeros = scores.new_zeros((graph.destinations, scores.shape[1]))
        a = kernels.edge_attention(graph.indptr, graph.every_edge, scores, zeros, slope=1.0)
        ctx.save_for_backward(scores, zeros, a)
        return a

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, da: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        graph = ctx.graph
        scores, zeros, a = ctx.saved_tensors
        dscores, _ = kernels.edge_attention_backward(
            graph.indptr, graph.every_edge, scores, zeros, a, da.contiguous(), slope=1.0
        )
        return None, dscores
