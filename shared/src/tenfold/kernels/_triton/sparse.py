"""BSR products; CSR is BSR with blocks of 1 x 1.

Every program holds one block row (of `height` rows, padded to a power of two) by `WIDTH` columns of
the dense operand. The transposed product adds atomically: its last bits vary from run to run.
"""

# The language of @triton.jit is not Python's: mypy checks the callers only.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch
import triton
import triton.language as tl

_WIDTH = 32


def product(crow: torch.Tensor, col: torch.Tensor, values: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Compute A D."""
    block_rows, n = crow.shape[0] - 1, dense.shape[1]
    _, height, width = values.shape
    out = dense.new_empty((block_rows * height, n))
    if out.numel():
        _product[(block_rows, triton.cdiv(n, _WIDTH))](
            crow.contiguous(),
            col.contiguous(),
            values.contiguous(),
            dense,
            out,
            n,
            dense.stride(0),
            dense.stride(1),
            height,
            width,
            HEIGHT=triton.next_power_of_2(height),
            WIDTH=_WIDTH,
        )
    return out


def transposed_product(
    crow: torch.Tensor, col: torch.Tensor, values: torch.Tensor, dense: torch.Tensor, rows: int
) -> torch.Tensor:
    """Compute Aᵀ D."""
    block_rows, n = crow.shape[0] - 1, dense.shape[1]
    _, height, width = values.shape
    out = dense.new_zeros((rows, n))
    if out.numel() and block_rows:
        _transposed_product[(block_rows, triton.cdiv(n, _WIDTH))](
            crow.contiguous(),
            col.contiguous(),
            values.contiguous(),
            dense,
            out,
            n,
            dense.stride(0),
            dense.stride(1),
            height,
            width,
            HEIGHT=triton.next_power_of_2(height),
            WIDTH=_WIDTH,
        )
    return out


def sampled_product(
    crow: torch.Tensor, col: torch.Tensor, left: torch.Tensor, right: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    """Compute L Rᵀ at the pattern of A."""
    block_rows = crow.shape[0] - 1
    _, height, width = shape
    out = left.new_empty(shape)
    if out.numel():
        _sampled_product[(block_rows,)](
            crow.contiguous(),
            col.contiguous(),
            left,
            right,
            out,
            left.shape[1],
            left.stride(0),
            left.stride(1),
            right.stride(0),
            right.stride(1),
            height,
            width,
            HEIGHT=triton.next_power_of_2(height),
            WIDTH=_WIDTH,
        )
    return out


@triton.jit
def _product(
    crow, col, values, dense, out, n, row_stride, column_stride, height, width,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    block_row = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, HEIGHT)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    sums = tl.zeros((HEIGHT, WIDTH), dtype=tl.float32)
    for block in range(tl.load(crow + block_row).to(tl.int64), tl.load(crow + block_row + 1).to(tl.int64)):
        first = tl.load(col + block).to(tl.int64) * width
        for k in range(width):
            entries = values + (block * height + rows) * width + k
            column = tl.load(entries, mask=rows < height, other=0.0)
            row = tl.load(
                dense + (first + k) * row_stride + columns.to(tl.int64) * column_stride,
                mask=columns < n,
                other=0.0,
            )
            sums += column[:, None] * row[None, :]
    places = out + (block_row * height + rows[:, None]) * n + columns[None, :]
    tl.store(places, sums, mask=(rows < height)[:, None] & (columns < n)[None, :])


@triton.jit
def _transposed_product(
    crow, col, values, dense, out, n, row_stride, column_stride, height, width,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    block_row = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, HEIGHT)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = (rows < height)[:, None] & (columns < n)[None, :]
    place = (block_row * height + rows[:, None]) * row_stride + columns.to(tl.int64)[None, :] * column_stride
    tile = tl.load(dense + place, mask=inside, other=0.0)
    for block in range(tl.load(crow + block_row).to(tl.int64), tl.load(crow + block_row + 1).to(tl.int64)):
        first = tl.load(col + block).to(tl.int64) * width
        for k in range(width):
            entries = values + (block * height + rows) * width + k
            column = tl.load(entries, mask=rows < height, other=0.0)
            row = tl.sum(column[:, None] * tile, axis=0)
            tl.atomic_add(out + (first + k) * n + columns, row, mask=columns < n)


@triton.jit
def _sampled_product(
    crow, col, left, right, out, n,
    left_row_stride, left_column_stride, right_row_stride, right_column_stride, height, width,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    block_row = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, HEIGHT)
    left_rows = (block_row * height + rows)[:, None] * left_row_stride
    for block in range(tl.load(crow + block_row).to(tl.int64), tl.load(crow + block_row + 1).to(tl.int64)):
        first = tl.load(col + block).to(tl.int64) * width
        for k in range(width):
            sums = tl.zeros((HEIGHT,), dtype=tl.float32)
            for start in range(0, n, WIDTH):
                columns = (start + tl.arange(0, WIDTH)).to(tl.int64)
                inside = (rows < height)[:, None] & (columns < n)[None, :]
                tile = tl.load(
                    left + left_rows + columns[None, :] * left_column_stride, mask=inside, other=0.0
                )
                row = tl.load(
                    right + (first + k) * right_row_stride + columns * right_column_stride,
                    mask=columns < n,
                    other=0.0,
                )
                sums += tl.sum(tile * row[None, :], axis=1)
            tl.store(out + (block * height + rows) * width + k, sums, mask=rows < height)
