"""NYUv2 and Taskonomy as AdaShare lists them (Sun et al., NeurIPS 2020): the files that the paper reads.

A JSON file holds for each split the rows, a row the paths of one image below the folder:

    nyu_v2_3task.json    image, segmentation, normals, depth
    taskonomy.json       image, segmentation, normals, depth, keypoints, edges

NYUv2's segmentation are bytes, 40 classes and 255 for unknown; its depth a NumPy file in metres; its normals
bytes around 127.5, and 255 in all channels where unknown. The authors compare normals with the bytes as they
are, uncentred; here they are directions. Taskonomy's files are coded as `dgba.datasets.Taskonomy` says.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from dgba.datasets._files import (
    UNKNOWN,
    Sample,
    channels_first,
    image_of,
    labels_of,
    read_npy,
    read_png,
    sample,
    unit,
)
from dgba.datasets._taskonomy import read_views
from tenfold import DataError, UnknownNameError

NYU = ("image", "segmentation", "normals", "depth")
TASKONOMY = ("image", "segmentation", "normals", "depth", "keypoints", "edges")


class AdaShare(Dataset[Sample]):
    """The images that one of AdaShare's lists names.

    Parameters
    ----------
    folder : str or Path
        Holds the list, and what it names.
    split : str
        A key of the list.
    name : str
        The list's file name.

    Raises
    ------
    UnknownNameError
        The list has no such split.
    DataError
        The list is missing or of another form; in reading, a file is missing or corrupt.
    """

    def __init__(self, folder: str | Path, split: str = "train", name: str = "nyu_v2_3task.json") -> None:
        self.folder = Path(folder)
        path = self.folder / name
        form = "rows of four (NYUv2) or six (Taskonomy) paths by split"
        try:
            splits = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} cannot be read ({error})", form, "Bring it from AdaShare's data."
            ) from error
        if isinstance(splits, dict) and split not in splits:
            raise UnknownNameError(f"split of {path}", split, splits)
        rows = splits[split] if isinstance(splits, dict) else None
        widths = {len(row) if isinstance(row, list) else 0 for row in rows or [[]]}
        if widths not in ({len(NYU)}, {len(TASKONOMY)}):
            came = " or ".join(map(str, sorted(widths)))
            raise DataError(f"{path} has rows of {came} paths", form, "Bring it from AdaShare's data.")
        self.rows: list[list[str]] = rows or []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        paths = [self.folder / path for path in self.rows[index]]
        if len(paths) == len(TASKONOMY):
            image, *targets = paths
            return read_views(image, dict(zip(TASKONOMY[1:], targets, strict=True)))
        image, segmentation, normals, depth = paths
        coded = read_png(normals)
        known = ~(coded == UNKNOWN).all(-1, keepdims=True)
        return sample(
            image_of(read_png(image), image),
            {
                "segmentation": labels_of(read_png(segmentation), UNKNOWN),
                "normals": unit(channels_first(np.where(known, coded / np.float32(127.5) - 1, 0))),
                "depth": channels_first(read_npy(depth)),
            },
            image,
        )
