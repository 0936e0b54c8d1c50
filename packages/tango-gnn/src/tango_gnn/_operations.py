"""How much of a step of training is computed in int8.

Counted are the multiplications and additions of products of matrices and of sums over edges, forward and
backward; what is done to single elements, softmaxes among them, is not. An operator whose operands are all
int8 counts as int8, one that multiplies int8 by float32 as mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tenfold import kernels

KINDS = ("int8", "mixed", "float32")


def _product(out: tuple[Tensor, Tensor], a: Tensor, *_: Any) -> int:
    return 2 * out[0].shape[1] * a.numel()


def _sum(_: Any, indptr: Tensor, indices: Tensor, x: Tensor) -> int:
    return indices.numel() * x[0].numel()


def _edge_sum(_: Any, indptr: Tensor, e: Tensor) -> int:
    return e.numel()


def _weighted(_: Any, indptr: Tensor, indices: Tensor, x: Tensor, other: Tensor) -> int:
    return 2 * indices.numel() * x[0].numel()


def _score(_: Any, indptr: Tensor, indices: Tensor, u: Tensor, v: Tensor) -> int:
    return indices.numel() * u[0].numel()


# How many operations a kernel does, and which of its positional arguments are operands.
_KERNELS: Mapping[str, tuple[Callable[..., int], slice]] = {
    "int8_matmul": (_product, slice(0, 2)),
    "spmm_copy_u": (_sum, slice(2, 3)),
    "spmm_u_mul_e": (_weighted, slice(2, 4)),
    "sddmm_u_dot_v": (_weighted, slice(2, 4)),
    "sddmm_u_add_v": (_score, slice(2, 4)),
    "edge_sum": (_edge_sum, slice(1, 2)),
}


@contextmanager
def counted() -> Iterator[dict[str, float]]:
    """Count what the kernels and torch do meanwhile; the counts are there when the context ends.

    The kernels of the whole process are watched: nothing else may run them.

    Yields
    ------
    dict of str to float
        Operations of each of `KINDS`.
    """
    counts = dict.fromkeys(KINDS, 0.0)
    originals = {name: getattr(kernels, name) for name in _KERNELS}
    with FlopCounterMode(display=False) as torchs:
        within = 0

        def watch(name: str) -> Callable[..., Any]:
            operations, operands = _KERNELS[name]

            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal within
                before = torchs.get_total_flops()
                out = originals[name](*arguments, **options)
                within += torchs.get_total_flops() - before
                types = {tensor.element_size() for tensor in arguments[operands]}
                kind = "int8" if types == {1} else "mixed" if 1 in types else "float32"
                counts[kind] += operations(out, *arguments[: operands.stop])
                return out

            return call

        for name in _KERNELS:
            setattr(kernels, name, watch(name))
        try:
            yield counts
        finally:
            for name, original in originals.items():
                setattr(kernels, name, original)
        counts["float32"] += torchs.get_total_flops() - within
