"""Taskonomy's folders (Zamir et al., CVPR 2018): one PNG an image and task.

    {rgb,segment_semantic,depth_zbuffer,normal,edge_texture,keypoints2d}/point_P_view_V_domain_D.png

A file of a task is found by its point P and view V, whatever its domain D is called. Values are coded:

    segmentation   bytes: 0 uncertain, 1 background, 2 to 17 objects; here 255, and 0 to 16
    depth          16 bits in 1/512 m, up to 128 m; from 64,500 on there is none
    normals        bytes around 127
    edges          16 bits; 0.08 of the range is as bright as they get
    keypoints      16 bits; 0.005 of the range, likewise

The last two ranges, and what depth is none, are those of AdaShare's reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from dgba.datasets._files import Array, Sample, channels_first, image_of, labels_of, read_png, sample, unit
from tenfold import DataError, UnknownNameError

NO_DEPTH = 64_500
FULL_RANGE = 1 << 16

FOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "segmentation": "segment_semantic",
        "depth": "depth_zbuffer",
        "normals": "normal",
        "edges": "edge_texture",
        "keypoints": "keypoints2d",
    }
)


class Taskonomy(Dataset[Sample]):
    """One folder of Taskonomy, say a building.

    Parameters
    ----------
    folder : str or Path
        Holds the folders of the tasks.
    tasks : sequence of str
        Of ``segmentation`` (17 classes), ``depth``, ``normals``, ``edges`` and ``keypoints``.

    Raises
    ------
    UnknownNameError
        There is no such task.
    DataError
        There are no images, or a task has none of an image; in reading, a file is corrupt.
    """

    def __init__(self, folder: str | Path, tasks: Sequence[str] = tuple(FOLDERS)) -> None:
        self.folder = Path(folder)
        for task in tasks:
            if task not in FOLDERS:
                raise UnknownNameError("task of Taskonomy", task, FOLDERS)
        images = _views(self.folder / "rgb")
        found = {task: _views(self.folder / FOLDERS[task]) for task in tasks}
        for task, views in found.items():
            lacking = sorted(images.keys() - views.keys())
            if lacking:
                raise DataError(
                    f"{self.folder / FOLDERS[task]} lacks point {lacking[0][0]}, view {lacking[0][1]}",
                    f"a file for each of the {len(images)} images",
                    "Complete the folder, or leave the task out.",
                )
        self.rows = [
            (images[view], {task: views[view] for task, views in found.items()}) for view in sorted(images)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        path, targets = self.rows[index]
        return read_views(path, targets)


def read_views(image: Path, targets: Mapping[str, Path]) -> Sample:
    """Read and decode an image and its targets by task; raises `DataError`."""
    return sample(
        image_of(read_png(image), image),
        {task: DECODERS[task](read_png(path)) for task, path in targets.items()},
        image,
    )


def _views(folder: Path) -> dict[tuple[int, int], Path]:
    pattern = re.compile(r"point_(\d+)_view_(\d+)_domain_\w+\.png")
    views = {
        (int(match[1]), int(match[2])): path
        for path in folder.glob("point_*_view_*_domain_*.png")
        if (match := pattern.fullmatch(path.name))
    }
    if not views:
        raise DataError(
            f"{folder} has no point_P_view_V_domain_D.png", "an image in each", "Check the folder."
        )
    return views


def _segmentation(values: Array) -> Tensor:
    return labels_of(values.astype(np.int64) - 1, unknown=-1)


def _depth(values: Array) -> Tensor:
    return channels_first(np.where(values < NO_DEPTH, values / np.float32(512), 0))


def _normals(values: Array) -> Tensor:
    return unit(channels_first((values.astype(np.float32) - 127) / 127))


def _edges(values: Array) -> Tensor:
    return channels_first(np.minimum(values / np.float32(0.08 * FULL_RANGE), 1))


def _keypoints(values: Array) -> Tensor:
    return channels_first(np.minimum(values / np.float32(0.005 * FULL_RANGE), 1))


DECODERS: Mapping[str, Callable[[Array], Tensor]] = MappingProxyType(
    {
        "segmentation": _segmentation,
        "depth": _depth,
        "normals": _normals,
        "edges": _edges,
        "keypoints": _keypoints,
    }
)
