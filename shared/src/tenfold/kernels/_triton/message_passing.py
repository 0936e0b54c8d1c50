"""Sums over the in-edges of every node (SpMM) and values at every edge (SDDMM).

A program holds one destination and walks its in-edges `_EDGES` at a time. The heads of a node lie
side by side, so that column c of its features belongs to head ``c // head_width``. Sums of integers
are exact: a tile adds up in int32, and its tiles in int64.
"""

# The language of @triton.jit is not Python's: mypy checks the callers only.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch
import triton
import triton.language as tl

from tenfold.kernels._triton.maximum import new_maximum, record_maximum

_EDGES = 16
_WIDTH = 128


def spmm_copy_u(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor | None,
    row_scale: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the rows of `x` at the sources of every row; with the largest magnitude of the result."""
    maximum = new_maximum(x.device)
    out = _aggregate(indptr, indices, x, None, None, scale, row_scale, maximum)
    return out, maximum.view(torch.float32)


def spmm_u_mul_e(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    e: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    """Sum the rows of `x` at the sources of every row, each head times its value at the edge."""
    return _aggregate(indptr, indices, x, e, edge_ids, scale, None, None)


def edge_sum(
    indptr: torch.Tensor, e: torch.Tensor, edge_ids: torch.Tensor | None, scale: torch.Tensor | None
) -> torch.Tensor:
    """Sum the values at the edges of every row."""
    return _aggregate(indptr, edge_ids, e, None, None, scale, None, None)


def sddmm_u_dot_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
) -> torch.Tensor:
    """Multiply the two ends of every edge head by head and add up each head."""
    _, heads, width = u.shape
    out = torch.empty((indices.shape[0], heads), device=u.device)
    if out.numel():
        exact = u.dtype is torch.int8
        _dot[(v.shape[0], heads)](
            indptr.contiguous(),
            indices.contiguous(),
            None if edge_ids is None else edge_ids.contiguous(),
            u.contiguous(),
            v.contiguous(),
            scale,
            out,
            heads,
            width,
            TERM=tl.int32 if exact else tl.float32,
            TOTAL=tl.int64 if exact else tl.float32,
            EDGES=_EDGES,
            WIDTH=min(_WIDTH, triton.next_power_of_2(width)),
        )
    return out


def sddmm_u_add_v(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    edge_ids: torch.Tensor | None,
    u_scale: torch.Tensor | None,
    v_scale: torch.Tensor | None,
) -> torch.Tensor:
    """Add the two ends of every edge."""
    heads = u.shape[1]
    out = torch.empty((indices.shape[0], heads), device=u.device)
    if out.numel():
        width = min(_WIDTH, triton.next_power_of_2(heads))
        _add[(v.shape[0], triton.cdiv(heads, width))](
            indptr.contiguous(),
            indices.contiguous(),
            None if edge_ids is None else edge_ids.contiguous(),
            u.contiguous(),
            v.contiguous(),
            u_scale,
            v_scale,
            out,
            heads,
            EDGES=_EDGES,
            WIDTH=width,
            enable_fp_fusion=False,
        )
    return out


def _aggregate(
    indptr: torch.Tensor,
    indices: torch.Tensor | None,
    x: torch.Tensor,
    e: torch.Tensor | None,
    edge_ids: torch.Tensor | None,
    scale: torch.Tensor | None,
    row_scale: torch.Tensor | None,
    maximum: torch.Tensor | None,
) -> torch.Tensor:
    rows, heads = indptr.shape[0] - 1, x.shape[1]
    columns = x[0].numel() if x.shape[0] else x.shape[1:].numel()
    out = torch.empty((rows, *x.shape[1:]), device=x.device)
    if out.numel():
        exact = x.dtype is torch.int8 and (e is None or e.dtype is torch.int8)
        width = min(_WIDTH, triton.next_power_of_2(columns))
        _sum_in_edges[(rows, triton.cdiv(columns, width))](
            indptr.contiguous(),
            None if indices is None else indices.contiguous(),
            None if edge_ids is None else edge_ids.contiguous(),
            x.contiguous(),
            None if e is None else e.contiguous(),
            scale,
            None if row_scale is None else row_scale.contiguous(),
            out,
            maximum,
            columns,
            heads,
            TERM=tl.int32 if exact else tl.float32,
            TOTAL=tl.int64 if exact else tl.float32,
            EDGES=_EDGES,
            WIDTH=width,
        )
    return out


@triton.jit
def _sum_in_edges(
    indptr, indices, edge_ids, x, e, scale, row_scale, out, maximum, columns, heads,
    TERM: tl.constexpr, TOTAL: tl.constexpr, EDGES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    head = column // (columns // heads)
    last = tl.load(indptr + row + 1).to(tl.int64)
    sums = tl.zeros((WIDTH,), dtype=TOTAL)
    for start in range(tl.load(indptr + row).to(tl.int64), last, EDGES):
        entry = start + tl.arange(0, EDGES)
        source = entry
        if indices is not None:
            source = tl.load(indices + entry, mask=entry < last, other=0).to(tl.int64)
        inside = (entry < last)[:, None] & (column < columns)[None, :]
        terms = tl.load(x + source[:, None] * columns + column[None, :], mask=inside, other=0).to(TERM)
        if e is not None:
            edge = entry
            if edge_ids is not None:
                edge = tl.load(edge_ids + entry, mask=entry < last, other=0).to(tl.int64)
            terms *= tl.load(e + edge[:, None] * heads + head[None, :], mask=inside, other=0).to(TERM)
        sums += tl.sum(terms, axis=0)
    values = sums.to(tl.float32)
    if scale is not None:
        factor = tl.load(scale)
        if row_scale is not None:
            factor *= tl.load(row_scale + row)
        values *= factor
    elif row_scale is not None:
        values *= tl.load(row_scale + row)
    tl.store(out + row * columns + column, values, mask=column < columns)
    if maximum is not None:
        record_maximum(maximum, tl.where(column < columns, values, 0.0))


@triton.jit
def _dot(
    indptr, indices, edge_ids, u, v, scale, out, heads, head_width,
    TERM: tl.constexpr, TOTAL: tl.constexpr, EDGES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    columns = heads * head_width
    last = tl.load(indptr + row + 1).to(tl.int64)
    for start in range(tl.load(indptr + row).to(tl.int64), last, EDGES):
        edge = start + tl.arange(0, EDGES)
        inside = edge < last
        source = tl.load(indices + edge, mask=inside, other=0).to(tl.int64)
        if edge_ids is not None:
            edge = tl.load(edge_ids + edge, mask=inside, other=0).to(tl.int64)
        sums = tl.zeros((EDGES,), dtype=TOTAL)
        for part in range(0, head_width, WIDTH):
            place = part + tl.arange(0, WIDTH)
            column = head * head_width + place
            ours = tl.load(v + row * columns + column, mask=place < head_width, other=0).to(TERM)
            theirs = tl.load(
                u + source[:, None] * columns + column[None, :],
                mask=inside[:, None] & (place < head_width)[None, :],
                other=0,
            ).to(TERM)
            sums += tl.sum(theirs * ours[None, :], axis=1)
        values = sums.to(tl.float32)
        if scale is not None:
            values *= tl.load(scale)
        tl.store(out + edge * heads + head, values, mask=inside)


@triton.jit
def _add(
    indptr, indices, edge_ids, u, v, u_scale, v_scale, out, heads, EDGES: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    last = tl.load(indptr + row + 1).to(tl.int64)
    ours = tl.load(v + row * heads + head, mask=head < heads, other=0).to(tl.float32)
    if v_scale is not None:
        ours *= tl.load(v_scale)
    for start in range(tl.load(indptr + row).to(tl.int64), last, EDGES):
        edge = start + tl.arange(0, EDGES)
        source = tl.load(indices + edge, mask=edge < last, other=0).to(tl.int64)
        inside = (edge < last)[:, None] & (head < heads)[None, :]
        if edge_ids is not None:
            edge = tl.load(edge_ids + edge, mask=edge < last, other=0).to(tl.int64)
        theirs = tl.load(u + source[:, None] * heads + head[None, :], mask=inside, other=0).to(tl.float32)
        if u_scale is not None:
            theirs *= tl.load(u_scale)
        tl.store(out + edge[:, None] * heads + head[None, :], theirs + ours[None, :], mask=inside)
