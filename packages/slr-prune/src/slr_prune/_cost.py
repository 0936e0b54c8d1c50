"""What a model costs: parameters, those that are not zero, bytes, multiply-accumulates.

Multiply-accumulates (MACs) are half the floating-point operations that torch's ``FlopCounterMode``
counts: those of matrix products, convolutions and attention, on the shapes of the example inputs.
Zeros in a dense weight are multiplied like any other number, so masks change none of them. The
counter does not know the kernels of CSR and BSR layers: these do one MAC a kept weight and row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from slr_prune._example import ExampleInputs, run_model
from slr_prune._sparse_layers import BlockSparseLinear, SparseLinear
from slr_prune._trace import no_fused_attention
from tenfold.experiment import Table


@dataclass(frozen=True)
class LayerCost:
    """What one module costs, its submodules left out.

    Attributes
    ----------
    layer : str
        Name; empty for the model itself.
    kind : str
        Class.
    parameters, nonzero, bytes, macs : int
        See `Cost`.
    """

    layer: str
    kind: str
    parameters: int
    nonzero: int
    bytes: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """What a model costs; see `cost`.

    Attributes
    ----------
    parameters : int
        Entries of the parameters; shared ones count once.
    nonzero : int
        Those that are not zero.
    bytes : int
        Memory of parameters and buffers, the indices of sparse layers included.
    macs : int
        Multiply-accumulates of one call.
    layers : tuple of LayerCost
        Modules that hold parameters or buffers or compute something, in the model's order; they
        add up to the model.
    """

    parameters: int
    nonzero: int
    bytes: int
    macs: int
    layers: tuple[LayerCost, ...]

    def table(self) -> Table:
        """Tabulate the layers, and the model in the last row."""
        rows = [[layer.layer or "(model)", layer.kind, *_figures(layer)] for layer in self.layers]
        total = ["total", "", *_figures(self)]
        return Table(
            "Cost by layer", ["layer", "kind", "parameters", "nonzero", "bytes", "MACs"], [*rows, total]
        )

    def compare(self, other: Cost) -> Table:
        """Tabulate this model beside a smaller one, with the ratio of each figure."""
        rows = []
        for name, label in _FIGURES.items():
            mine, others = getattr(self, name), getattr(other, name)
            rows.append([label, f"{mine:,}", f"{others:,}", f"{mine / others:.2f}x" if others else "–"])
        return Table("Cost of a call", ["", "dense", "pruned", "dense / pruned"], rows)


_FIGURES = {
    "parameters": "parameters",
    "nonzero": "nonzero parameters",
    "bytes": "bytes in memory",
    "macs": "MACs",
}


def cost(model: nn.Module, example_inputs: ExampleInputs) -> Cost:
    """Count what a model costs, by layer and in all.

    Parameters
    ----------
    model : nn.Module
        Dense, masked, compacted or sparse; left as it was. It is called once, in evaluation mode.
    example_inputs : Tensor, sequence or mapping
        What one call of the model takes: a tensor, positional or keyword arguments. MACs are
        those of this call, batch included.

    Returns
    -------
    Cost

    Raises
    ------
    SettingError
        The model does not run on `example_inputs`.
    """
    names = {module: name for name, module in model.named_modules()}
    macs: Counter[nn.Module] = Counter()
    # The counter knows neither torch's fused layers nor its attention kernel for the CPU.
    with _counting(model, macs), no_fused_attention(), sdpa_kernel(SDPBackend.MATH):
        run_model(model, example_inputs)
    seen: set[int] = set()
    layers = []
    for module, name in names.items():
        parameters = [tensor for tensor in module.parameters(recurse=False) if _new(tensor, seen)]
        buffers = [tensor for tensor in module.buffers(recurse=False) if _new(tensor, seen)]
        if parameters or buffers or macs[module]:
            layers.append(
                LayerCost(
                    name,
                    type(module).__name__,
                    sum(tensor.numel() for tensor in parameters),
                    sum(int(tensor.count_nonzero()) for tensor in parameters),
                    sum(tensor.nbytes for tensor in [*parameters, *buffers]),
                    macs[module],
                )
            )
    totals = {name: sum(getattr(layer, name) for layer in layers) for name in _FIGURES}
    return Cost(**totals, layers=tuple(layers))


@contextmanager
def _counting(model: nn.Module, macs: Counter[nn.Module]) -> Iterator[None]:
    """Add the MACs of calls within a ``with`` block to the innermost module that was running."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    running = [model]
    counted = 0

    def settle() -> None:
        nonlocal counted
        total = counter.get_total_flops() // 2
        macs[running[-1]] += total - counted
        counted = total

    def enter(module: nn.Module, arguments: Any) -> None:
        settle()
        running.append(module)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal counted
        if isinstance(module, SparseLinear | BlockSparseLinear):
            counted = counter.get_total_flops() // 2
            macs[module] += module.kept.numel() * (output.numel() // module.out_features)
        settle()
        running.pop()

    handles = [
        handle
        for module in model.modules()
        for handle in (
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave, always_call=True),
        )
    ]
    try:
        with counter:
            yield
    finally:
        for handle in handles:
            handle.remove()


def _new(tensor: Tensor, seen: set[int]) -> bool:
    if id(tensor) in seen:
        return False
    seen.add(id(tensor))
    return True


def _figures(counted: Cost | LayerCost) -> list[str]:
    return [f"{getattr(counted, name):,}" for name in _FIGURES]
