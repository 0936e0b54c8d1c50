"""Attention over the in-edges of every node: leaky ReLU and softmax in one kernel, and its gradient.

A program holds one destination and up to `_HEADS` of its heads. It reads the scores three times: for
their maximum, for the sum of their exponentials and for the result; between the first and the last
time they come from the cache.
"""

# The language of @triton.jit is not Python's: mypy checks the callers only.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch
import triton
import triton.language as tl

_EDGES = 32
_HEADS = 16


def edge_attention(
    indptr: torch.Tensor, indices: torch.Tensor, u: torch.Tensor, v: torch.Tensor, slope: float
) -> torch.Tensor:
    """Softmax over the in-edges of every row of the leaky ReLU of ``u_j + v_i``."""
    rows, heads = v.shape
    attention = torch.empty((indices.shape[0], heads), device=u.device)
    if attention.numel():
        width = min(_HEADS, triton.next_power_of_2(heads))
        _attention[(rows, triton.cdiv(heads, width))](
            indptr.contiguous(),
            indices.contiguous(),
            u.contiguous(),
            v.contiguous(),
            attention,
            slope,
            heads,
            EDGES=_EDGES,
            HEADS=width,
        )
    return attention


def edge_attention_backward(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    attention: torch.Tensor,
    gradient: torch.Tensor,
    slope: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient by the score of every edge, before the leaky ReLU, and by `v`."""
    rows, heads = v.shape
    d_score, d_v = torch.empty_like(attention), torch.zeros_like(v)
    if attention.numel():
        width = min(_HEADS, triton.next_power_of_2(heads))
        _attention_backward[(rows, triton.cdiv(heads, width))](
            indptr.contiguous(),
            indices.contiguous(),
            u.contiguous(),
            v.contiguous(),
            attention.contiguous(),
            gradient.contiguous(),
            d_score,
            d_v,
            slope,
            heads,
            EDGES=_EDGES,
            HEADS=width,
        )
    return d_score, d_v


@triton.jit
def _load_scores(indices, u, ours, edge, head, last, heads):
    source = tl.load(indices + edge, mask=edge < last, other=0).to(tl.int64)
    inside = (edge < last)[:, None] & (head < heads)[None, :]
    return tl.load(u + source[:, None] * heads + head[None, :], mask=inside, other=0.0) + ours[None, :]


@triton.jit
def _leaky_relu(x, slope):
    return tl.where(x > 0, x, x * slope)


@triton.jit
def _attention(indptr, indices, u, v, attention, slope, heads, EDGES: tl.constexpr, HEADS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    first, last = tl.load(indptr + row).to(tl.int64), tl.load(indptr + row + 1).to(tl.int64)
    ours = tl.load(v + row * heads + head, mask=head < heads, other=0.0)

    highest = tl.full((HEADS,), float("-inf"), dtype=tl.float32)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        scores = _leaky_relu(_load_scores(indices, u, ours, edge, head, last, heads), slope)
        highest = tl.maximum(highest, tl.max(tl.where((edge < last)[:, None], scores, float("-inf")), axis=0))

    total = tl.zeros((HEADS,), dtype=tl.float32)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        scores = _leaky_relu(_load_scores(indices, u, ours, edge, head, last, heads), slope)
        total += tl.sum(tl.where((edge < last)[:, None], tl.exp(scores - highest[None, :]), 0.0), axis=0)

    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        scores = _leaky_relu(_load_scores(indices, u, ours, edge, head, last, heads), slope)
        inside = (edge < last)[:, None] & (head < heads)[None, :]
        share = tl.exp(scores - highest[None, :]) / total[None, :]
        tl.store(attention + edge[:, None] * heads + head[None, :], share, mask=inside)


@triton.jit
def _attention_backward(
    indptr, indices, u, v, attention, gradient, d_score, d_v, slope, heads,
    EDGES: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    first, last = tl.load(indptr + row).to(tl.int64), tl.load(indptr + row + 1).to(tl.int64)
    ours = tl.load(v + row * heads + head, mask=head < heads, other=0.0)

    mean = tl.zeros((HEADS,), dtype=tl.float32)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        inside = (edge < last)[:, None] & (head < heads)[None, :]
        place = edge[:, None] * heads + head[None, :]
        shares = tl.load(attention + place, mask=inside, other=0.0)
        mean += tl.sum(shares * tl.load(gradient + place, mask=inside, other=0.0), axis=0)

    total = tl.zeros((HEADS,), dtype=tl.float32)
    for start in range(first, last, EDGES):
        edge = start + tl.arange(0, EDGES)
        inside = (edge < last)[:, None] & (head < heads)[None, :]
        place = edge[:, None] * heads + head[None, :]
        shares = tl.load(attention + place, mask=inside, other=0.0)
        by_score = shares * (tl.load(gradient + place, mask=inside, other=0.0) - mean[None, :])
        scores = _load_scores(indices, u, ours, edge, head, last, heads)
        by_score = _leaky_relu_backward(scores, by_score, slope)
        tl.store(d_score + place, by_score, mask=inside)
        total += tl.sum(tl.where(inside, by_score, 0.0), axis=0)
    tl.store(d_v + row * heads + head, total, mask=head < heads)


@triton.jit
def _leaky_relu_backward(x, gradient, slope):
    return tl.where(x > 0, gradient, gradient * slope)
