"""Linear layers in int8.

With X ~ Xq sX and W ~ Wq sW, both int8, and sums in int32,

    Y  = relu?(Xq Wq' sX sW + b)          and max|Y| in the same pass
    dX = dYq Wq sY sW,    dW = dYq' Xq sY sX,    db = dYq' 1 sY,

where dY is quantised once, behind the ReLU, for the three of them. Xq and Wq are kept for the gradients in
place of X and W, a quarter of their size. The paper sums db from dY in float32; the sum of dYq saves a pass
over dY, and stochastic rounding makes it right on average.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from tango_gnn._policy import Policy
from tango_gnn._quantized import (
    QuantizedTensor,
    kept,
    quantize,
    quantize_once,
    remember_absmax,
    restored,
    round_trip,
)
from tango_gnn.ops._all_nodes import sum_of_nodes
from tenfold import SettingError, kernels


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    policy: Policy,
    relu: bool = False,
) -> torch.Tensor:
    """Apply a linear layer, as ``torch.nn.functional.linear`` does.

    Parameters
    ----------
    x : Tensor, shape (..., in), float32
    weight : Tensor, shape (out, in), float32
    bias : Tensor, shape (out,), float32, optional
    policy : Policy
        Of a fixed width.
    relu : bool
        Apply a ReLU to the result, in the same pass.

    Returns
    -------
    Tensor, shape (..., out), float32

    Raises
    ------
    SettingError
        Shapes or types do not fit, or `x` is not finite.
    """
    if weight.dim() != 2 or not x.dim() or x.shape[-1] != weight.shape[1]:
        raise SettingError(
            f"an input of shape {tuple(x.shape)} and a weight of shape {tuple(weight.shape)}",
            "(..., in) and (out, in)",
            "Check the width of the features.",
        )
    if not policy.quantizes:
        y = F.linear(x, weight, bias)
        return y.relu_() if relu else y
    if not policy.keep_weights and torch.is_grad_enabled() and weight.requires_grad:
        with torch.no_grad():
            weight.copy_(round_trip(weight, policy))
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    product: torch.Tensor = _Linear.apply(rows, weight, bias, policy, relu)
    return product if x.dim() == 2 else product.reshape(*x.shape[:-1], weight.shape[0])


def dense(
    xq: QuantizedTensor, wq: QuantizedTensor, bias: torch.Tensor | None, relu: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return ``relu?(X W' + b)``, its largest magnitude, and with a ReLU the bits of where it is positive."""
    elements = xq.values.shape[0] * wq.values.shape[0]
    passed = xq.values.new_empty((elements + 7) // 8, dtype=torch.uint8) if relu else None
    y, peak = kernels.int8_matmul(
        xq.values,
        wq.values,
        xq.scale * wq.scale,
        transpose_b=True,
        bias=bias,
        relu=relu,
        positive=passed,
    )
    return y, peak, passed


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        policy: Policy,
        relu: bool,
    ) -> torch.Tensor:
        ctx.policy = policy
        xq = quantize(x, policy, name="the input of a linear layer")
        wq = quantize(weight, policy)
        if bias is not None and not policy.keep_bias:
            bias = round_trip(bias, policy)
        y, peak, passed = dense(xq, wq, bias, relu)
        ctx.save_for_backward(passed, *kept(x, xq, policy), *kept(weight, wq, policy))
        return remember_absmax(y, peak)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        policy = ctx.policy
        passed, *kept_x_and_weight = ctx.saved_tensors
        x_wanted, weight_wanted, bias_wanted, *_ = ctx.needs_input_grad
        dyq = quantize_once(dy, policy, positive=passed)
        dx = dweight = dbias = None
        if x_wanted:
            wq = restored(kept_x_and_weight[2:], policy)
            dx = remember_absmax(*kernels.int8_matmul(dyq.values, wq.values, dyq.scale * wq.scale))
        if weight_wanted:
            xq = restored(kept_x_and_weight[:2], policy)
            dweight, _ = kernels.int8_matmul(dyq.values, xq.values, dyq.scale * xq.scale, transpose_a=True)
        if bias_wanted:
            dbias = sum_of_nodes(dyq.values, dyq.scale)
        return dx, dweight, dbias, None, None
