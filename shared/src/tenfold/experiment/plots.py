"""The house style of plots: small, plain, one look for every package."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from tenfold.experiment._checkpoint import write_whole
from tenfold.experiment._statistics import interval

STYLE = Path(__file__).with_name("house.mplstyle")


def lines(
    path: Path,
    curves: Mapping[str, Sequence[Sequence[float]]],
    *,
    title: str,
    x: str,
    y: str,
    first: float = 1,
    log_y: bool = False,
    level: tuple[str, float] | None = None,
) -> Path:
    """Plot one curve a name: the mean over seeds, its 95 % interval as a band.

    Parameters
    ----------
    path : Path
        PNG file to write.
    curves : mapping of str to sequence of sequence of float
        For every name one sequence a seed; sequences of one name are of equal length.
    title, x, y : str
        Title and axis labels, with units.
    first : float
        Where the x axis starts; points are one apart.
    log_y : bool
        Logarithmic y axis.
    level : tuple of str and float, optional
        Name and height of a dashed horizontal line.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with style.context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        for name, seeds in curves.items():
            values = np.asarray(seeds, dtype=float)
            steps = first + np.arange(values.shape[1])
            (line,) = axes.plot(steps, values.mean(axis=0), marker="o", markersize=3, label=name)
            if len(values) > 1:
                low, high = np.transpose([interval(column.tolist()) for column in values.T])
                axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if level is not None:
            axes.axhline(level[1], color="0.4", linestyle="--", linewidth=1, label=level[0])
        axes.set(title=title, xlabel=x, ylabel=y, yscale="log" if log_y else "linear")
        axes.legend()
        save(figure, path)
    return path


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all (`OutputError` when it cannot be)."""
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png"))
