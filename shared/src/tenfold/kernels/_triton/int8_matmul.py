"""Product of int8 matrices, with the scale, bias, ReLU and largest magnitude of its result.

Sums are exact. A program adds up to `_LONGEST` products in int32, which even products of -128 by -128
do not overflow; where more of them meet in one element, or where the result has too few tiles to keep
a device busy (the gradient of a weight, reduced over all nodes), programs share the work and a second
kernel adds their sums in int64.
"""

# The language of @triton.jit is not Python's: mypy checks the callers only.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch
import triton
import triton.language as tl

from tenfold.kernels._triton.maximum import new_maximum, record_maximum

_TILE = 128
_DEPTH = 128
_SHORTEST = 2048
_LONGEST = 130_944
_PROGRAMS = 512


def int8_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor,
    row_scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    relu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute ``relu?(scale * row_scale_i * (a @ b)_ij + bias_j)`` for operands in any layout."""
    (m, k), n = a.shape, b.shape[1]
    out, maximum = torch.empty((m, n), device=a.device), new_maximum(a.device)
    if not out.numel():
        return out, maximum.view(torch.float32)
    height, width = (min(_TILE, max(16, triton.next_power_of_2(size))) for size in (m, n))
    tiles = triton.cdiv(m, height) * triton.cdiv(n, width)
    part = _part(k, tiles)
    parts = max(1, triton.cdiv(k, part))
    sums = torch.empty((parts, m, n), dtype=torch.int32, device=a.device) if parts > 1 else None
    finish = (
        out,
        maximum,
        scale,
        None if row_scale is None else row_scale.contiguous(),
        None if bias is None else bias.contiguous(),
        m,
        n,
    )
    options = {"RELU": relu, "HEIGHT": height, "WIDTH": width, "enable_fp_fusion": False}
    _multiply[(tiles, parts)](
        a, b, sums, *finish, k, a.stride(0), a.stride(1), b.stride(0), b.stride(1), part,
        DEPTH=_DEPTH, num_warps=8, **options,
    )  # fmt: skip
    if sums is not None:
        _add_parts[(tiles,)](sums, *finish, parts, num_warps=8, **options)
    return out, maximum.view(torch.float32)


def _part(k: int, tiles: int) -> int:
    """How many of `k` products a program adds up: a multiple of `_DEPTH`."""
    even: int = triton.cdiv(triton.cdiv(k * tiles, _PROGRAMS), _DEPTH) * _DEPTH
    return min(max(even, _SHORTEST), _LONGEST)


@triton.jit
def _multiply(
    a, b, sums, out, maximum, scale, row_scale, bias, m, n, k,
    a_row_stride, a_depth_stride, b_depth_stride, b_column_stride, part,
    RELU: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    rows, columns = _tile(tile, n, HEIGHT, WIDTH)
    first = tl.program_id(1).to(tl.int64) * part
    left = a + rows[:, None] * a_row_stride
    right = b + columns[None, :] * b_column_stride
    total = tl.zeros((HEIGHT, WIDTH), dtype=tl.int32)
    for start in range(first, tl.minimum(first + part, k), DEPTH):
        depth = start + tl.arange(0, DEPTH)
        total = tl.dot(
            tl.load(
                left + depth[None, :] * a_depth_stride,
                mask=(rows < m)[:, None] & (depth < k)[None, :],
                other=0,
            ),
            tl.load(
                right + depth[:, None] * b_depth_stride,
                mask=(depth < k)[:, None] & (columns < n)[None, :],
                other=0,
            ),
            total,
            out_dtype=tl.int32,
        )
    if sums is None:
        _finish(total, out, maximum, scale, row_scale, bias, rows, columns, m, n, RELU)
    else:
        place = (tl.program_id(1).to(tl.int64) * m + rows[:, None]) * n + columns[None, :]
        tl.store(sums + place, total, mask=(rows < m)[:, None] & (columns < n)[None, :])


@triton.jit
def _add_parts(
    sums, out, maximum, scale, row_scale, bias, m, n, parts,
    RELU: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows, columns = _tile(tl.program_id(0), n, HEIGHT, WIDTH)
    inside = (rows < m)[:, None] & (columns < n)[None, :]
    total = tl.zeros((HEIGHT, WIDTH), dtype=tl.int64)
    row_in_part = rows
    for _ in range(parts):
        total += tl.load(sums + row_in_part[:, None] * n + columns[None, :], mask=inside, other=0)
        row_in_part += m
    _finish(total, out, maximum, scale, row_scale, bias, rows, columns, m, n, RELU)


@triton.jit
def _tile(tile, n, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    across = tl.cdiv(n, WIDTH)
    rows = (tile // across).to(tl.int64) * HEIGHT + tl.arange(0, HEIGHT)
    columns = (tile % across).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    return rows, columns


@triton.jit
def _finish(total, out, maximum, scale, row_scale, bias, rows, columns, m, n, RELU: tl.constexpr):
    inside = (rows < m)[:, None] & (columns < n)[None, :]
    values = total.to(tl.float32)
    if row_scale is None:
        values *= tl.load(scale)
    else:
        values *= (tl.load(scale) * tl.load(row_scale + rows, mask=rows < m, other=0.0))[:, None]
    if bias is not None:
        values += tl.load(bias + columns, mask=columns < n, other=0.0)[None, :]
    if RELU:
        values = tl.where(values <= 0, 0.0, values)
    tl.store(out + rows[:, None] * n + columns[None, :], values, mask=inside)
    record_maximum(maximum, tl.where(inside, values, 0.0))
