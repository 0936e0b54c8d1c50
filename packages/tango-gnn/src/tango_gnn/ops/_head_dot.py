"""Dot products of node features with a few vectors, head by head: what scores of attention are made of.

    s_nkh = f_nh . w_kh,    df_nh = sum_k ds_nkh w_kh,    dw_kh = sum_n ds_nkh f_nh

Scores are what a softmax takes, and stay in float32. For the gradient by w, a sum over all nodes, the int8
features are kept that the sum over neighbours quantises anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tango_gnn._policy import Policy
from tango_gnn._quantized import kept, quantize, restored
from tango_gnn.ops._all_nodes import weighted_sum_of_nodes
from tenfold import SettingError


def head_dot(f: torch.Tensor, vectors: torch.Tensor, *, policy: Policy) -> torch.Tensor:
    """Multiply the features of every node with a few vectors, head by head.

    Parameters
    ----------
    f : Tensor, shape (nodes, heads, width), float32
    vectors : Tensor, shape (vectors, heads, width), float32
    policy : Policy
        Of a fixed width. The result is float32; the gradient by `vectors` takes `f` as it was quantised.

    Returns
    -------
    Tensor, shape (nodes, vectors, heads), float32

    Raises
    ------
    SettingError
        Shapes or types do not fit, or `f` is not finite.
    """
    if f.dim() != 3 or vectors.dim() != 3 or f.shape[1:] != vectors.shape[1:]:
        raise SettingError(
            f"features of shape {tuple(f.shape)} and vectors of shape {tuple(vectors.shape)}",
            "(nodes, heads, width) and (vectors, heads, width)",
            "Give both the same heads and width.",
        )
    s: torch.Tensor = _HeadDot.apply(f, vectors, policy)
    return s


class _HeadDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: torch.Tensor, vectors: torch.Tensor, policy: Policy) -> torch.Tensor:
        ctx.policy = policy
        if policy.quantizes:
            fq = quantize(f, policy, name="features to score")
            ctx.save_for_backward(vectors, *kept(f, fq, policy))
        else:
            ctx.save_for_backward(vectors, f)
        return (f.flatten(1) @ _blocks(vectors)).view(f.shape[0], *vectors.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ds: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        vectors, *f = ctx.saved_tensors
        f_wanted, vectors_wanted, _ = ctx.needs_input_grad
        df = dvectors = None
        if f_wanted:
            df = (ds.flatten(1) @ _blocks(vectors).T).view(-1, *vectors.shape[1:])
        if vectors_wanted:
            scale = None
            if ctx.policy.quantizes:
                fq = restored(f, ctx.policy)
                features, scale = fq.values, fq.scale
            else:
                features = f[0].contiguous()
            dvectors = torch.stack([weighted_sum_of_nodes(features, e, scale) for e in ds.unbind(1)])
        return df, dvectors, None


def _blocks(vectors: torch.Tensor) -> torch.Tensor:
    """Matrix of shape (heads * width, vectors * heads) that multiplies every head with its own vectors."""
    heads = torch.eye(vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    return torch.einsum("khd,hg->hdkg", vectors, heads).flatten(2).flatten(0, 1)
