"""How SLR and ADMM went, iteration by iteration: loss, residual, step size, accepted updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Iteration:
    """One iteration, as it ended.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    loss : float
        f(W), as the method saw it.
    residual : float
        ``|W - Z|``, the sum over layers of Frobenius norms.
    s : float
        Step size.
    accepted : tuple of bool
        Whether the first and the second update of the multipliers were accepted; ADMM makes the
        second alone.
    """

    epoch: int
    loss: float
    residual: float
    s: float
    accepted: tuple[bool, bool]


class History(list[Iteration]):
    """The iterations of a pruner, in order."""

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the fields of each iteration, as a checkpoint and `json` can hold them."""
        return [asdict(iteration) for iteration in self]

    @classmethod
    def from_dicts(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """Rebuild a history from `as_dicts`."""
        return cls(Iteration(**{**row, "accepted": tuple(row["accepted"])}) for row in rows)

    def plot(self, path: Path) -> Path:
        """Plot residual, step size and number of accepted updates over the epochs, as a PNG file.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        from matplotlib import style
        from matplotlib.figure import Figure

        from tenfold.experiment import plots

        panels: dict[str, Sequence[float]] = {
            "residual |W − Z|": [iteration.residual for iteration in self],
            "step size s": [iteration.s for iteration in self],
            "updates accepted": list(accumulate(sum(iteration.accepted) for iteration in self)),
        }
        epochs = [iteration.epoch for iteration in self]
        with style.context(plots.STYLE):
            figure = Figure(figsize=(6.0, 6.0))
            for axes, (label, values) in zip(figure.subplots(3, sharex=True), panels.items(), strict=True):
                axes.plot(epochs, values, marker="o", markersize=3)
                axes.set_ylabel(label)
                if label != "updates accepted" and min(values, default=0) > 0:
                    axes.set_yscale("log")
            figure.axes[-1].set_xlabel("epoch")
            plots.save(figure, path)
        return path
