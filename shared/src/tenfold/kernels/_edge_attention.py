"""Attention weights of a graph attention layer: add, leaky ReLU and softmax over in-edges in one.

With j the source and i the destination of edge p, and every head h on its own:

    z_p = u_j + v_i        s_p = max(z_p, 0) + slope min(z_p, 0)
    a_p = exp(s_p - m_i) / sum_{q in N(i)} exp(s_q - m_i)        m_i = max_{q in N(i)} s_q

and back, with g the gradient by a:

    dz_p = (1 if z_p > 0 else slope) a_p (g_p - sum_{q in N(i)} a_q g_q)
    dv_i = sum_{p in N(i)} dz_p        du_j = sum of dz over the out-edges of j

Only a is kept for the way back; z is computed anew, which costs less than to read it from memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tenfold.kernels._graph import check_floating, check_graph, sum_of_rows
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import choose
from tenfold.kernels._sparse import row_of_entry

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet


def edge_attention(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    slope: float = 0.2,
    implementation: str | None = None,
) -> torch.Tensor:
    """Softmax over in-edges of the leaky ReLU of the sum of an edge's ends.

    Parameters
    ----------
    indptr, indices : Tensor
        The graph; see `spmm_copy_u`.
    u : Tensor, shape (n, H), floating point
        Score of each source, by head.
    v : Tensor, shape (rows, H), like `u`
        Score of each destination.
    slope : float
        Slope of the leaky ReLU below 0.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    Tensor, shape (E, H), like `u`
        Weights, entry by entry; those of a destination sum to 1. NaN where its scores hold a NaN or
        plus infinity.

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `spmm_copy_u`.
    """
    _check("edge_attention", indptr, indices, u, v)
    return choose(_forward, u, implementation).of(_forward)(indptr, indices, u, v, slope)


def edge_attention_backward(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    attention: torch.Tensor,
    gradient: torch.Tensor,
    *,
    slope: float = 0.2,
    implementation: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of `edge_attention`.

    Parameters
    ----------
    indptr, indices, u, v, slope
        What `edge_attention` was called with.
    attention : Tensor, shape (E, H)
        What it returned.
    gradient : Tensor, shape (E, H)
        Gradient by what it returned.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    d_score : Tensor, shape (E, H)
        Gradient by the sum of each edge's ends; `edge_sum` of it over the reversed graph is that by `u`.
    d_v : Tensor, shape (rows, H)
        Gradient by `v`.

    Raises
    ------
    SettingError, UnknownNameError, MissingExtraError
        As in `spmm_copy_u`.
    """
    _check("edge_attention_backward", indptr, indices, u, v, attention=attention, gradient=gradient)
    choice = choose(_backward, u, implementation)
    return choice.of(_backward)(indptr, indices, u, v, attention, gradient, slope)


_forward: Operator[torch.Tensor] = Operator(
    "edge_attention", "softmax over in-edges of leaky_relu(u + v), fused"
)
_backward: Operator[tuple[torch.Tensor, torch.Tensor]] = Operator(
    "edge_attention_backward", "gradients of edge_attention by scores and destinations"
)


def _check(
    name: str,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    **of_edges: torch.Tensor,
) -> None:
    operands = {"u": (u, ("n", "H")), "v": (v, ("rows", "H"))}
    operands |= {key: (tensor, ("E", "H")) for key, tensor in of_edges.items()}
    check_graph(name, indptr, indices, None, operands)
    check_floating(name, operands)


@_forward.implementation("reference")
def _reference_forward(
    indptr: torch.Tensor, indices: torch.Tensor, u: torch.Tensor, v: torch.Tensor, slope: float
) -> torch.Tensor:
    rows = row_of_entry(indptr)
    score = torch.nn.functional.leaky_relu(u[indices.long()] + v[rows], slope)
    of_row = rows[:, None].expand_as(score)
    largest = torch.full_like(v, -torch.inf).scatter_reduce_(0, of_row, score.detach(), "amax")
    weight = (score - largest[rows]).exp()
    return weight / sum_of_rows(indptr, weight)[rows]


@_backward.implementation("reference")
def _reference_backward(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    attention: torch.Tensor,
    gradient: torch.Tensor,
    slope: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = row_of_entry(indptr)
    mean = sum_of_rows(indptr, attention * gradient)[rows]
    d_score = attention * (gradient - mean) * torch.where(u[indices.long()] + v[rows] > 0, 1.0, slope)
    return d_score, sum_of_rows(indptr, d_score)


@_forward.implementation("native")
def _native_forward(
    instruction_set: InstructionSet,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    slope: float,
) -> torch.Tensor:
    out = torch.empty(indices.shape[0], u.shape[1])
    instruction_set.edge_attention(
        indptr.contiguous(),
        indices.contiguous(),
        u.contiguous(),
        v.contiguous(),
        slope,
        out,
        torch.get_num_threads(),
    )
    return out


@_backward.implementation("native")
def _native_backward(
    instruction_set: InstructionSet,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    attention: torch.Tensor,
    gradient: torch.Tensor,
    slope: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    d_score = torch.empty(indices.shape[0], u.shape[1])
    d_v = torch.empty(v.shape)
    instruction_set.edge_attention_backward(
        indptr.contiguous(),
        indices.contiguous(),
        u.contiguous(),
        v.contiguous(),
        attention.contiguous(),
        gradient.contiguous(),
        slope,
        d_score,
        d_v,
        torch.get_num_threads(),
    )
    return d_score, d_v


@_forward.implementation("triton")
def _triton_forward(
    indptr: torch.Tensor, indices: torch.Tensor, u: torch.Tensor, v: torch.Tensor, slope: float
) -> torch.Tensor:
    from tenfold.kernels._triton import attention as kernels

    return kernels.edge_attention(indptr, indices, u, v, slope)


@_backward.implementation("triton")
def _triton_backward(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    attention: torch.Tensor,
    gradient: torch.Tensor,
    slope: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    from tenfold.kernels._triton import attention as kernels

    return kernels.edge_attention_backward(indptr, indices, u, v, attention, gradient, slope)
