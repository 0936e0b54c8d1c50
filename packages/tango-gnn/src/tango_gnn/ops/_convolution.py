"""A sum over in-edges and a linear layer in one, which keeps no float32 in between.

    Z = R A C X,    Y = relu?(Z W' + b)

for the norms C of sources and R of destinations. Z is quantised as soon as it is summed and given back before
Y is allocated. On the way back R is applied to dZ as it is written, so that its largest magnitude is that of
what is quantised next:

    dZ = R dY W,    dX = C A' dZ
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tango_gnn._graph import Graph
from tango_gnn._policy import Policy
from tango_gnn._quantized import kept, quantize, quantize_once, remember_absmax, restored
from tango_gnn.ops._all_nodes import sum_of_nodes
from tango_gnn.ops._linear import dense, linear
from tango_gnn.ops._spmm import copy_u_sum
from tenfold import kernels


def convolution(
    graph: Graph,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    policy: Policy,
    source_scale: torch.Tensor | None = None,
    destination_scale: torch.Tensor | None = None,
    relu: bool = False,
) -> torch.Tensor:
    """Apply `linear` to `copy_u_sum`, in less memory.

    Parameters
    ----------
    graph : Graph
    x : Tensor, shape (sources, in), float32
    weight : Tensor, shape (out, in), float32
    bias : Tensor, shape (out,), float32, optional
    policy : Policy
        Of a fixed width.
    source_scale, destination_scale : Tensor, shape (sources,) and (destinations,), float32, optional
        Factors of each source's features and of each sum. They have no gradient.
    relu : bool
        Apply a ReLU to the result, in the same pass.

    Returns
    -------
    Tensor, shape (destinations, out), float32

    Raises
    ------
    SettingError
        Shapes or types do not fit, or `x` is not finite.
    """
    fits = x.dim() == 2 and x.shape == (graph.sources, weight.shape[1])
    if (
        fits
        and policy.quantizes
        and policy.reuse
        and policy.keep_norms
        and policy.keep_weights
        and policy.keep_bias
    ):
        y: torch.Tensor = _Convolution.apply(
            graph, x, weight, bias, policy, source_scale, destination_scale, relu
        )
        return y
    z = copy_u_sum(graph, x, policy=policy, source_scale=source_scale, destination_scale=destination_scale)
    return linear(z, weight, bias, policy=policy, relu=relu)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        graph: Graph,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        policy: Policy,
        source_scale: torch.Tensor | None,
        destination_scale: torch.Tensor | None,
        relu: bool,
    ) -> torch.Tensor:
        ctx.settings = graph, policy, source_scale, destination_scale
        xq = quantize(x, policy, row_scale=source_scale, name="features to aggregate")
        z, peak = kernels.spmm_copy_u(
            graph.indptr, graph.indices, xq.values, scale=xq.scale, row_scale=destination_scale
        )
        zq = quantize_once(z, policy, absmax=peak)
        del z
        wq = quantize(weight, policy)
        y, peak, passed = dense(zq, wq, bias, relu)
        ctx.save_for_backward(passed, zq.values, zq.scale, *kept(weight, wq, policy))
        return remember_absmax(y, peak)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        graph, policy, source_scale, destination_scale = ctx.settings
        passed, *kept_z_and_weight = ctx.saved_tensors
        _, x_wanted, weight_wanted, bias_wanted, *_ = ctx.needs_input_grad
        dyq = quantize_once(dy, policy, positive=passed)
        dx = dweight = dbias = None
        if weight_wanted:
            zq = restored(kept_z_and_weight[:2], policy)
            dweight, _ = kernels.int8_matmul(dyq.values, zq.values, dyq.scale * zq.scale, transpose_a=True)
        if bias_wanted:
            dbias = sum_of_nodes(dyq.values, dyq.scale)
        if x_wanted:
            wq = restored(kept_z_and_weight[2:], policy)
            dz, peak = kernels.int8_matmul(
                dyq.values, wq.values, dyq.scale * wq.scale, row_scale=destination_scale
            )
            dzq = quantize_once(dz, policy, absmax=peak)
            del dz
            dx = remember_absmax(
                *kernels.spmm_copy_u(
                    graph.reversed_indptr,
                    graph.reversed_indices,
                    dzq.values,
                    scale=dzq.scale,
                    row_scale=source_scale,
                )
            )
        return None, dx, dweight, dbias, None, None, None, None
