"""Sums over all nodes, as gradients of what every node shares are.

    sum_n x_n,        sum_n e_n x_n        for each head

Either is the sum over the in-edges of one node that every node points to: a product with a sparse matrix. A
few such nodes share the others among them, one for each thread to take, and are summed at the end.
"""

from __future__ import annotations

import torch

from tenfold import kernels

_NODES_A_SUM = 4096


def sum_of_nodes(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Sum int8 features over all nodes.

    Parameters
    ----------
    x : Tensor, shape (nodes, width), int8
    scale : Tensor, shape (), float32

    Returns
    -------
    Tensor, shape (width,), float32
    """
    return kernels.spmm_copy_u(*_shares(x), x, scale=scale)[0].sum(0)


def weighted_sum_of_nodes(x: torch.Tensor, e: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Sum features over all nodes, each times its node's value, head by head.

    Parameters
    ----------
    x : Tensor, shape (nodes, heads, width), int8 or float32
    e : Tensor, shape (nodes, heads), float32
    scale : Tensor, shape (), float32, or None
        Given where `x` is int8.

    Returns
    -------
    Tensor, shape (heads, width), float32
    """
    return kernels.spmm_u_mul_e(*_shares(x), x, e.contiguous(), scale=scale).sum(0)


def _shares(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    nodes = x.shape[0]
    everyone = torch.arange(nodes + _NODES_A_SUM, dtype=torch.int32, device=x.device)
    return everyone[::_NODES_A_SUM].clamp(max=nodes), everyone[:nodes]
