"""Products of quantised matrices, accumulated exactly and scaled in the epilogue.

With A ~ s_A a and B ~ s_B b, integers of eight bits,

    A B ~ s (a b),    s = s_A s_B

where a b is a sum of integers, exact. The rest is done while the result is at hand: the factor of
every row, the bias, the ReLU, and the largest magnitude of the output, from which the operator that
takes it next gets its scale. The three products of a linear layer are

    Y = X W,    dX = dY W'    and    dW = X' dY

of which the last one sums over nodes: more of them than int32 holds are split (133,144 products of 127 by 127
are the most that fit; 131,071 of -128 by -128).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch

from tenfold.errors import SettingError
from tenfold.kernels._checks import check_scale, check_vector
from tenfold.kernels._quantize import positive_bits
from tenfold.kernels._registry import Operator
from tenfold.kernels._selection import choose

if TYPE_CHECKING:
    from tenfold.kernels._native import InstructionSet

Product: TypeAlias = tuple[torch.Tensor, torch.Tensor]


def int8_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    row_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    relu: bool = False,
    positive: torch.Tensor | None = None,
    implementation: str | None = None,
) -> Product:
    """Multiply quantised matrices: ``scale * row_scale[i] * (op(a) @ op(b))[i, j] + bias[j]``.

    The sum of products is exact, and rounded once, to float32. Results are the same from every
    implementation, whatever the number of threads.

    Parameters
    ----------
    a : Tensor, shape (m, k), or (k, m) with `transpose_a`, int8
        Left factor.
    b : Tensor, shape (k, n), or (n, k) with `transpose_b`, int8
        Right factor.
    scale : Tensor, shape (), float32
        Product of the scales of `a` and `b`.
    transpose_a, transpose_b : bool
        Use the transposed matrix; no copy is made of it.
    row_scale : Tensor, shape (m,), float32, optional
        Factor of every row of the result.
    bias : Tensor, shape (n,), float32, optional
        Added to every row of the result.
    relu : bool
        Replace negative elements of the result by zero.
    positive : Tensor, shape (ceil(m * n / 8),), uint8, optional
        Is filled with the bits of where the result is positive, as `positive_bits` packs them, which the
        gradient of a ReLU needs.
    implementation : str, optional
        Force an implementation, as `use` takes it.

    Returns
    -------
    out : Tensor, shape (m, n), float32
    absmax : Tensor, shape (), float32
        Largest magnitude of `out`, as `absmax` returns it.

    Raises
    ------
    SettingError
        A shape, type or device is wrong, or the implementation does not take it.
    UnknownNameError
        There is no such implementation.
    MissingExtraError
        The implementation is not built or not installed.
    """
    if a.dtype is not torch.int8 or b.dtype is not torch.int8 or a.device != b.device:
        raise SettingError(
            f"int8_matmul got {a.dtype} on {a.device} and {b.dtype} on {b.device}",
            "torch.int8 for both, on one device",
            "Quantise them with quantize().",
        )
    if a.dim() != 2 or b.dim() != 2 or a.shape[0 if transpose_a else 1] != b.shape[1 if transpose_b else 0]:
        raise SettingError(
            f"int8_matmul got shapes {_shape(a, transpose_a)} and {_shape(b, transpose_b)}",
            "matrices of shapes (m, k) and (k, n)",
            "Check transpose_a and transpose_b.",
        )
    check_scale("int8_matmul", "scale", scale, a.device)
    if row_scale is not None:
        check_vector("int8_matmul", "row_scale", row_scale, a.shape[1 if transpose_a else 0], a.device)
        row_scale = row_scale.detach()
    if bias is not None:
        check_vector("int8_matmul", "bias", bias, b.shape[0 if transpose_b else 1], a.device)
        bias = bias.detach()
    if positive is not None:
        _check_bits(positive, a.shape[1 if transpose_a else 0] * b.shape[0 if transpose_b else 1], a.device)
    multiply = choose(_operator, a, implementation).of(_operator)
    return multiply(a, b, scale.detach(), transpose_a, transpose_b, row_scale, bias, relu, positive)


def _check_bits(bits: torch.Tensor, size: int, device: torch.device) -> None:
    expected = (size + 7) // 8
    fits = bits.dtype is torch.uint8 and bits.shape == (expected,) and bits.device == device
    if not fits or not bits.is_contiguous():
        raise SettingError(
            f"int8_matmul got positive of {bits.dtype} and shape {tuple(bits.shape)} on {bits.device}",
            f"a contiguous torch.uint8 of shape ({expected},) on {device}",
            "Allocate a byte for every eight elements of the result.",
        )


def _shape(matrix: torch.Tensor, transpose: bool) -> str:
    return f"{tuple(matrix.shape)}{' transposed' if transpose else ''}"


_operator: Operator[Product] = Operator(
    "int8_matmul", "product of int8 matrices with scale, bias and ReLU", types=(torch.int8,)
)


@_operator.implementation("reference")
def _reference(
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor,
    transpose_a: bool,
    transpose_b: bool,
    row_scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    relu: bool,
    positive: torch.Tensor | None,
) -> Product:
    # Sums of products of integers are exact in float64 as long as they are below 2 ** 53.
    left, right = a.double(), b.double()
    out = ((left.mT if transpose_a else left) @ (right.mT if transpose_b else right)).float()
    out *= scale if row_scale is None else (scale * row_scale)[:, None]
    if bias is not None:
        out += bias
    if relu:
        out = out.relu()
    if positive is not None:
        positive.copy_(positive_bits(out, implementation="reference"))
    return out, out.abs().amax() if out.numel() else out.new_zeros(())


@_operator.implementation("native")
def _native(
    instruction_set: InstructionSet,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor,
    transpose_a: bool,
    transpose_b: bool,
    row_scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    relu: bool,
    positive: torch.Tensor | None,
) -> Product:
    left, right = a.mT if transpose_a else a, b.mT if transpose_b else b
    out, largest = scale.new_empty((left.shape[0], right.shape[1])), scale.new_empty(())
    instruction_set.int8_matmul(
        left,
        right,
        scale,
        None if row_scale is None else row_scale.contiguous(),
        None if bias is None else bias.contiguous(),
        relu,
        positive,
        out,
        largest,
        torch.get_num_threads(),
    )
    return out, largest


@_operator.implementation("triton")
def _triton(
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor,
    transpose_a: bool,
    transpose_b: bool,
    row_scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    relu: bool,
    positive: torch.Tensor | None,
) -> Product:
    from tenfold.kernels._triton import int8_matmul, quantize

    out, largest = int8_matmul.int8_matmul(
        a.mT if transpose_a else a, b.mT if transpose_b else b, scale, row_scale, bias, relu
    )
    if positive is not None:
        positive.copy_(quantize.positive_bits(out))
    return out, largest
