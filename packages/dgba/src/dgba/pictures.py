"""Pictures: images, perturbations and every task's output, clean and attacked; transfer matrices; curves.

How an output is drawn follows from its target: classes of pixels get colours, three channels are a direction,
one channel is a map in shades, and classes of an image are bars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from dgba._attack import Targets, evaluating
from dgba._tasks import Task, by_task
from dgba.evaluation import TransferMatrix
from tenfold.experiment import plots


def side_by_side(
    path: Path,
    model: nn.Module,
    tasks: Sequence[Task],
    images: Tensor,
    adversarial: Tensor,
    targets: Targets,
    *,
    title: str = "",
) -> Path:
    """Draw images, what was added to them, and every task's output before and after.

    Parameters
    ----------
    path : Path
        PNG file to write.
    model : Module
    tasks : sequence of Task
    images, adversarial : Tensor, shape (n, c, h, w)
        One row each; a handful.
    targets : mapping of str to Tensor
    title : str

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with evaluating(model), torch.no_grad():
        clean, attacked = (by_task(tasks, model(batch), "outputs") for batch in (images, adversarial))
    columns = 3 + 3 * len(tasks)
    with style.context(plots.STYLE):
        figure = Figure(figsize=(1.15 * columns, 1.15 * len(images) + 0.6))
        grid = figure.subplots(len(images), columns, squeeze=False)
        for row, (image, changed) in enumerate(zip(images, adversarial, strict=True)):
            shown = [
                ("image", _colours(image)),
                ("attacked", _colours(changed)),
                ("perturbation", _perturbation(changed - image)),
            ]
            for axes, (name, picture) in zip(grid[row], shown, strict=False):
                _show(axes, picture, name if row == 0 else "")
            for index, task in enumerate(tasks):
                places = grid[row][3 + 3 * index : 6 + 3 * index]
                draw_task(
                    places,
                    task,
                    targets[task.name][row],
                    clean[task.name][row],
                    attacked[task.name][row],
                    headings=row == 0,
                )
        figure.suptitle(title)
        plots.save(figure, path)
    return path


def draw_task(
    places: Sequence[Axes], task: Task, target: Tensor, clean: Tensor, attacked: Tensor, *, headings: bool
) -> None:
    """Draw a target, the clean and the attacked output of one image, each in its place.

    Parameters
    ----------
    places : sequence of three Axes
    task : Task
    target, clean, attacked : Tensor
        Of one image: without the batch.
    headings : bool
        Whether to write above what each is.
    """
    names = ("true", "clean", "attacked")
    titles = [f"{task.name}\n{name}" if headings else "" for name in names]
    target, clean, attacked = (item.detach().cpu() for item in (target, clean, attacked))
    if not target.is_floating_point() and clean.dim() == 1:
        _bars(places, target, (clean, attacked), titles)
        return
    if not target.is_floating_point():
        pictures: list[Any] = [
            _classes(target, task.ignore_value),
            *(_classes(item.argmax(0), None) for item in (clean, attacked)),
        ]
    elif clean.dim() == 3 and clean.shape[0] == 3:
        pictures = [_directions(item) for item in (target, clean, attacked)]
    else:
        maps = [item.squeeze(0) if item.dim() == 3 else item for item in (target, clean, attacked)]
        maps = [item.reshape(1, -1) if item.dim() < 2 else item for item in maps]
        valid = maps[0] if task.ignore_value is None else maps[0][maps[0] != task.ignore_value]
        valid = valid[torch.isfinite(valid)]
        low, high = (float(valid.min()), float(valid.max())) if valid.numel() else (0.0, 1.0)
        shades = colormaps["viridis"]
        pictures = [shades(((item - low) / max(high - low, 1e-9)).clamp(0, 1).numpy()) for item in maps]
    for axes, picture, title in zip(places, pictures, titles, strict=True):
        _show(axes, picture, title)


def transfer_heatmaps(path: Path, matrices: Mapping[str, TransferMatrix], *, title: str) -> Path:
    """Draw transfer matrices beside one another on one scale; `OutputError` when it cannot be written."""
    with style.context(plots.STYLE):
        figure = Figure(figsize=(0.9 + 2.9 * len(matrices), 3.4))
        grid = figure.subplots(1, len(matrices), squeeze=False)[0]
        lowest = min(float(matrix.damages.min()) for matrix in matrices.values())
        for axes, (name, matrix) in zip(grid, matrices.items(), strict=True):
            axes.imshow(matrix.damages, cmap="magma", vmin=min(lowest, -1.0), vmax=0)
            places = range(len(matrix.tasks))
            axes.set_xticks(places, matrix.tasks, rotation=40, ha="right")
            axes.set_yticks(places, matrix.tasks)
            axes.set(title=name, xlabel="damaged", ylabel="attacked")
            axes.grid(visible=False)
            for row, column in np.ndindex(*matrix.damages.shape):
                value = float(matrix.damages[row, column])
                colour = "black" if value > 0.45 * lowest else "white"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
        figure.suptitle(title)
        plots.save(figure, path)
    return path


def curves(
    path: Path, lines: Mapping[str, Mapping[float, Sequence[float]]], *, title: str, x: str, y: str
) -> Path:
    """Draw a line a name through the means over seeds, with their 95 % intervals.

    Parameters
    ----------
    path : Path
        PNG file to write.
    lines : mapping of str to mapping of float to sequence of float
        By name and place on the x axis one value a seed.
    title, x, y : str

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    from tenfold.experiment import interval

    with style.context(plots.STYLE):
        figure = Figure()
        axes = figure.subplots()
        for name, points in lines.items():
            places = sorted(points)
            means = [float(np.mean(points[place])) for place in places]
            (line,) = axes.plot(places, means, marker="o", markersize=3, label=name)
            if min(len(points[place]) for place in places) > 1:
                low, high = np.transpose([interval(points[place]) for place in places])
                axes.fill_between(places, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel=x, ylabel=y)
        axes.legend()
        plots.save(figure, path)
    return path


def _colours(image: Tensor) -> NDArray[np.float32]:
    """Return an image as rows of pixels; of one channel, grey."""
    pixels = image.detach().cpu().float().clamp(0, 1)
    if pixels.shape[0] not in (1, 3):
        pixels = pixels[:3] if pixels.shape[0] > 3 else pixels[:1]
    shown: NDArray[np.float32] = pixels.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return shown


def _perturbation(delta: Tensor) -> NDArray[np.float32]:
    """Return a perturbation around grey, its largest change at full scale."""
    largest = float(delta.abs().max()) or 1.0
    return _colours(0.5 + 0.5 * delta / largest)


def _directions(item: Tensor) -> NDArray[np.float32]:
    return _colours(0.5 + 0.5 * item / item.norm(dim=0, keepdim=True).clamp_min(1e-6))


def _classes(labels: Tensor, ignored: float | int | None) -> NDArray[np.float64]:
    """Return a colour a class, and white where the target is ignored."""
    palette = np.asarray(colormaps["tab20"].colors)  # type: ignore[attr-defined]
    places = labels.reshape(labels.shape[-2:]).numpy()
    shown: NDArray[np.float64] = palette[places.clip(0) % len(palette)]
    if ignored is not None:
        shown = np.where((places == ignored)[..., None], 1.0, shown)
    return shown


def _bars(places: Sequence[Axes], target: Tensor, outputs: Sequence[Tensor], titles: Sequence[str]) -> None:
    true = torch.nn.functional.one_hot(target.long(), len(outputs[0])).float()
    heights = [true, *(item.float().softmax(0) for item in outputs)]
    for axes, values, title in zip(places, heights, titles, strict=True):
        axes.bar(range(len(values)), values.numpy())
        axes.set(ylim=(0, 1), xticks=[], yticks=[], title=title)
        axes.grid(visible=False)


def _show(axes: Axes, picture: Any, title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()
