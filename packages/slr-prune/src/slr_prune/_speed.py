"""What a pruned layer gains: times of its forms against the dense layer.

A linear layer with rows, blocks or single weights removed, each as sparse layer and as the product
of torch.sparse that its file gives without this package; and a convolution with filters and input
channels removed. No weights are trained: which ones remain does not change the time.
"""

from __future__ import annotations

import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from slr_prune._sparse_layers import BlockSparseLinear, GatheredLayer, SparseLinear
from slr_prune._structures import get_structure

Call: TypeAlias = Callable[[Tensor], Tensor]
Forms: TypeAlias = dict[str, tuple[Call, nn.Module]]
"""By name, a form of a layer and the masked dense layer that it stands for."""

AnyLayer = TypeVar("AnyLayer", nn.Linear, nn.Conv2d)

DENSE = "dense"


@dataclass(frozen=True)
class LayerTime:
    """Time of one call of a layer.

    Attributes
    ----------
    layer : str
        ``"linear"`` or ``"convolution"``.
    batch : int
    form : str
        ``"dense"``, ``"rows 95%"``, ``"bsr 95%"``, ``"bsr 95%, torch.sparse"``, ...
    milliseconds : float
        Median over the repeats.
    speedup : float
        Time of the dense layer over this one.
    """

    layer: str
    batch: int
    form: str
    milliseconds: float
    speedup: float


def layer_speed(
    *,
    out_features: int = 1024,
    in_features: int = 4096,
    sparsities: Sequence[float] = (0.90, 0.95),
    batches: Sequence[int] = (1, 32, 128, 256),
    channels: int = 128,
    image: int = 32,
    convolution_sparsity: float = 0.7,
    repeats: int = 31,
    threads: int = 1,
    seed: int = 0,
) -> list[LayerTime]:
    """Time a linear layer and a 3 x 3 convolution in every form, without gradients.

    In every round each form has one turn at each batch size, in random order: a call to warm the
    caches and one that is timed. A disturbance of the machine so meets all of them alike. Every
    form must first agree with the masked dense layer.

    Parameters
    ----------
    out_features, in_features : int
        Shape of the linear layer.
    sparsities : sequence of float
        Shares of it to remove; blocks are 16 x 16.
    batches : sequence of int
        Batch sizes of the linear layer; the smallest is that of the convolution.
    channels, image : int
        Channels in and out of the convolution, height and width of its input.
    convolution_sparsity : float
        Share of filters, or of input channels, to remove.
    repeats : int
        Rounds.
    threads : int
        Of torch and the kernels.
    seed : int
        Seed of weights and inputs.

    Returns
    -------
    list of LayerTime
        Dense first, in each group of one layer and batch.
    """
    generator = torch.Generator().manual_seed(seed)
    linear = _linear_forms(out_features, in_features, sparsities, generator)
    convolution = _convolution_forms(channels, convolution_sparsity, generator)
    points: dict[tuple[str, int], tuple[Forms, Tensor]] = {
        ("linear", batch): (linear, torch.randn(batch, in_features, generator=generator)) for batch in batches
    }
    few = min(batches)
    points["convolution", few] = (
        convolution,
        torch.randn(few, channels, image, image, generator=generator),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            times = _medians(points, repeats)
    finally:
        torch.set_num_threads(before)
    return [
        LayerTime(layer, batch, form, milliseconds, times[layer, batch][DENSE] / milliseconds)
        for (layer, batch), of_point in times.items()
        for form, milliseconds in of_point.items()
    ]


def _linear_forms(
    out_features: int, in_features: int, sparsities: Sequence[float], generator: torch.Generator
) -> Forms:
    dense = _draw(nn.Linear(in_features, out_features), generator)
    forms: Forms = {DENSE: (dense, dense)}
    for sparsity in sparsities:
        rows, blocks, single = (_pruned(dense, name, sparsity) for name in ("filter", "block", "irregular"))
        forms[f"rows {sparsity:.0%}"] = GatheredLayer.from_dense(rows), rows
        forms[f"bsr {sparsity:.0%}"] = BlockSparseLinear.from_dense(blocks), blocks
        forms[f"bsr {sparsity:.0%}, torch.sparse"] = _torch_sparse(blocks, (16, 16)), blocks
        forms[f"csr {sparsity:.0%}"] = SparseLinear.from_dense(single), single
        forms[f"csr {sparsity:.0%}, torch.sparse"] = _torch_sparse(single, None), single
    return forms


def _convolution_forms(channels: int, sparsity: float, generator: torch.Generator) -> Forms:
    dense = _draw(nn.Conv2d(channels, channels, 3, padding=1), generator)
    rows, inputs = (_pruned(dense, name, sparsity) for name in ("filter", "channel"))
    return {
        DENSE: (dense, dense),
        f"rows {sparsity:.0%}": (GatheredLayer.from_dense(rows), rows),
        f"channels {sparsity:.0%}": (GatheredLayer.from_dense(inputs), inputs),
    }


def _draw(layer: AnyLayer, generator: torch.Generator) -> AnyLayer:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


def _pruned(layer: AnyLayer, structure: str, sparsity: float) -> AnyLayer:
    pruned = deepcopy(layer)
    with torch.no_grad():
        pruned.weight.mul_(get_structure(structure)(pruned.weight, sparsity))
    return pruned


def _torch_sparse(layer: nn.Linear, block: tuple[int, int] | None) -> Call:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse ")
        sparse = weight.to_sparse_csr() if block is None else weight.to_sparse_bsr(block)
    return lambda x: (sparse @ x.mT).mT + bias


def _medians(
    points: Mapping[tuple[str, int], tuple[Forms, Tensor]], repeats: int
) -> dict[tuple[str, int], dict[str, float]]:
    """Milliseconds a call, the median over rounds."""
    for forms, x in points.values():
        for call, masked in forms.values():
            torch.testing.assert_close(call(x), masked(x), rtol=1e-4, atol=1e-3)
    times: dict[tuple[str, int], dict[str, list[float]]] = {
        point: {name: [] for name in forms} for point, (forms, _) in points.items()
    }
    turns = [
        (times[point][name], call, x)
        for point, (forms, x) in points.items()
        for name, (call, _) in forms.items()
    ]
    order = random.Random(0)
    for _ in range(repeats):
        order.shuffle(turns)
        for sample, call, x in turns:
            call(x)
            started = time.perf_counter()
            call(x)
            sample.append(1000 * (time.perf_counter() - started))
    return {
        point: {name: statistics.median(sample) for name, sample in of_point.items()}
        for point, of_point in times.items()
    }
