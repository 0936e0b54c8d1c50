"""Selection by magnitude: a radix selection on |x| read as an integer, eight bits at a time."""

# The language of @triton.jit is not Python's: mypy checks the callers only.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch
import triton
import triton.language as tl

_BLOCK = 1024
_DIGIT_BITS = 8
_DIGITS = 1 << _DIGIT_BITS


def topk_mask(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """Mask of the `keep` largest magnitudes of a vector without NaN, ties to the lowest index."""
    size = scores.numel()
    mask = torch.zeros(size, dtype=torch.bool, device=scores.device)
    if not keep:
        return mask
    programs = triton.cdiv(size, _BLOCK)
    keys = scores.view(torch.int32) & 0x7FFFFFFF

    prefix, wanted = 0, keep
    for shift in range(32 - _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts = torch.empty((programs, _DIGITS), dtype=torch.int32, device=scores.device)
        _count_digits[(programs,)](
            keys, counts, size, prefix, shift, DIGIT_BITS=_DIGIT_BITS, DIGITS=_DIGITS, BLOCK=_BLOCK
        )
        from_above = counts.sum(0).flip(0).cumsum(0)
        place = int((from_above < wanted).sum())
        wanted -= int(from_above[place - 1]) if place else 0
        prefix = prefix << _DIGIT_BITS | (_DIGITS - 1 - place)

    ties = torch.empty(programs, dtype=torch.int64, device=scores.device)
    _count_equal[(programs,)](keys, ties, size, prefix, BLOCK=_BLOCK)
    _keep_above[(programs,)](keys, ties.cumsum(0) - ties, mask, size, prefix, wanted, BLOCK=_BLOCK)
    return mask


def group_norms(groups: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of every row of a contiguous matrix."""
    count, size = groups.shape
    norms = groups.new_empty(count)
    if count:
        _group_norms[(count,)](groups, norms, size, BLOCK=_BLOCK)
    return norms


@triton.jit
def _count_digits(
    keys, counts, size, prefix, shift, DIGIT_BITS: tl.constexpr, DIGITS: tl.constexpr, BLOCK: tl.constexpr
):
    program = tl.program_id(0).to(tl.int64)
    at = program * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + at, mask=at < size, other=0)
    # Keys are not negative, so that at the first digit the two shifts leave 0, the empty prefix.
    counted = (at < size) & ((key >> shift >> DIGIT_BITS) == prefix)
    digit = tl.where(counted, (key >> shift) & (DIGITS - 1), DIGITS)
    histogram = tl.histogram(digit, 2 * DIGITS)
    place = tl.arange(0, 2 * DIGITS)
    tl.store(counts + program * DIGITS + place, histogram, mask=place < DIGITS)


@triton.jit
def _count_equal(keys, ties, size, threshold, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    at = program * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + at, mask=at < size, other=-1)
    tl.store(ties + program, tl.sum((key == threshold).to(tl.int64)))


@triton.jit
def _keep_above(keys, ties_before, mask, size, threshold, ties, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    at = program * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + at, mask=at < size, other=-1)
    tied = (key == threshold).to(tl.int64)
    rank = tl.load(ties_before + program) + tl.cumsum(tied)
    keep = (key > threshold) | ((tied == 1) & (rank <= ties))
    tl.store(mask + at, keep, mask=at < size)


@triton.jit
def _group_norms(groups, norms, size, BLOCK: tl.constexpr):
    group = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), dtype=tl.float64)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        part = tl.load(groups + group * size + at, mask=at < size, other=0.0).to(tl.float64)
        total += part * part
    tl.store(norms + group, tl.sqrt(tl.sum(total)).to(tl.float32))
