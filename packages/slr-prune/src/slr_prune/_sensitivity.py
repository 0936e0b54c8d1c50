"""How much accuracy each layer's pruning costs, one layer at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from slr_prune._oneshot import OneShotPruner
from slr_prune._units import layer_targets
from tenfold import DivergedError, SettingError


@dataclass(frozen=True)
class SensitivityScan:
    """Accuracy of a model with one layer pruned at a time; see `sensitivity_scan`.

    Attributes
    ----------
    structure : str
        Name of the sparsity structure.
    sparsities : tuple of float
        What was tried in every layer, rising.
    dense : float
        Accuracy before pruning, in the unit of `evaluate`.
    accuracies : dict of str to tuple of float
        By layer, the accuracy at each of `sparsities` with that layer alone pruned.
    sizes : dict of str to int
        Weights by layer.
    """

    structure: str
    sparsities: tuple[float, ...]
    dense: float
    accuracies: dict[str, tuple[float, ...]]
    sizes: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that `json` can write."""
        return asdict(self)

    def plot(self, path: Path) -> Path:
        """Plot accuracy over sparsity, one curve a layer, as a PNG file.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        from matplotlib import style
        from matplotlib.figure import Figure

        from tenfold.experiment import plots

        with style.context(plots.STYLE):
            figure = Figure()
            axes = figure.subplots()
            for layer, accuracies in self.accuracies.items():
                axes.plot(self.sparsities, accuracies, marker="o", markersize=3, label=layer)
            axes.axhline(self.dense, color="0.4", linestyle="--", linewidth=1, label="dense")
            axes.set(
                title=f"One layer pruned at a time ({self.structure})", xlabel="sparsity", ylabel="accuracy"
            )
            axes.legend()
            plots.save(figure, path)
        return path


def sensitivity_scan(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    sparsities: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98),
    *,
    structure: str = "irregular",
    layers: Sequence[str] = ("*",),
) -> SensitivityScan:
    """Measure how the accuracy falls as each layer alone is pruned, without training.

    Each layer's weight is projected at each sparsity, the model evaluated, and the weight restored
    to the bit, also when `evaluate` raises.

    Parameters
    ----------
    model : nn.Module
        Trained.
    evaluate : callable
        Takes the model, returns its accuracy, higher being better; must leave the weights alone.
        It is called once for the dense model and once for every layer and sparsity.
    sparsities : sequence of float
        In (0, 1), rising. ``"pattern"`` takes 4/9 and more, N:M the single value 1 - N/M.
    structure : str
        Name of a sparsity structure.
    layers : sequence of str
        Names or shell patterns of the layers to scan.

    Returns
    -------
    SensitivityScan
        `from_sensitivity` turns it into layer-wise targets.

    Raises
    ------
    UnknownNameError
        A pattern matches no linear or convolution layer, or no structure has that name.
    SettingError
        `sparsities` are not rising within (0, 1), or the structure does not apply to a layer.
    DivergedError
        `evaluate` returned NaN or infinity.
    """
    if not (sparsities and all(low < high for low, high in pairwise((0, *sparsities, 1)))):
        raise SettingError(
            f"sparsities {tuple(sparsities)}",
            "one or more fractions between 0 and 1, rising",
            "Write them in order, for example (0.5, 0.8, 0.9).",
        )
    scanned = list(layer_targets(model, dict.fromkeys(layers, sparsities[0])))
    dense = _accuracy(evaluate, model, "the dense model")
    accuracies: dict[str, tuple[float, ...]] = {}
    for layer in scanned:
        curve = []
        for sparsity in sparsities:
            with OneShotPruner(model, {layer: sparsity}, structure=structure).pruned():
                curve.append(_accuracy(evaluate, model, f"layer {layer!r} at sparsity {sparsity}"))
        accuracies[layer] = tuple(curve)
    sizes = {layer: model.get_parameter(f"{layer}.weight").numel() for layer in scanned}
    return SensitivityScan(structure, tuple(sparsities), dense, accuracies, sizes)


def _accuracy(evaluate: Callable[[nn.Module], float], model: nn.Module, what: str) -> float:
    accuracy = float(evaluate(model))
    if not math.isfinite(accuracy):
        raise DivergedError(
            f"the accuracy of {what} is {accuracy}", "a finite number", "Look at what evaluate returns."
        )
    return accuracy
