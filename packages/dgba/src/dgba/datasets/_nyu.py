"""NYUv2 as published (Silberman et al., ECCV 2012): ``nyu_depth_v2_labeled.mat``.

MATLAB's version 7.3 is HDF5, whose arrays come out transposed: images (n, 3, w, h) of bytes, depths (n, w, h)
in metres, labels (n, w, h) of 894 raw classes with 0 for unknown. Which raw class is which of the usual 40,
and which images are for training, stands in ``classMapping40.mat`` and ``splits.mat``. There are no normals:
they are derived here from depth, each as the cross product of the differences of the points around it,

    n = dP/du x dP/dv,   P = z ((u - c_x) / f_x, (c_y - v) / f_y, 1),

with the intrinsics of the toolbox's colour camera, turned to the camera, in axes x right, y up, z ahead. The
normal sets that papers use are smoothed; these are exact on planes and rough on noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import scipy.io
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dgba.datasets._files import UNKNOWN, Sample, channels_first, image_of, sample
from tenfold import DataError, MissingExtraError, SettingError, UnknownNameError

Split = Literal["train", "test"]

FOCAL = (518.857901, 519.469611)
CENTRE = (325.582449, 253.736166)


class NYUDepth(Dataset[Sample]):
    """NYUv2's labelled images: depth, normals derived from it, and segmentation.

    Parameters
    ----------
    path : str or Path
        ``nyu_depth_v2_labeled.mat``.
    classes : sequence of int, optional
        Class of each raw label, from 0 on; 255 for unknown. See `nyu_classes`. Without it there is no
        segmentation.
    indices : sequence of int, optional
        Which images, counted from 0. See `nyu_split`. By default all.

    Raises
    ------
    MissingExtraError
        h5py is not installed.
    DataError
        The file is missing or is another one; in reading, a label has no class.
    SettingError
        An index is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        classes: Sequence[int] | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.path = Path(path)
        self.classes = None if classes is None else torch.as_tensor(classes, dtype=torch.int64)
        self._file: Any = None
        count = len(self._opened()["images"])
        self.indices = list(range(count) if indices is None else indices)
        for index in self.indices:
            if not 0 <= index < count:
                raise SettingError(f"index {index} of an image", f"0 to {count - 1}", "Count from 0.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        number = self.indices[index]
        file = self._opened()
        image = image_of(file["images"][number].transpose(2, 1, 0), self.path)
        depth = channels_first(file["depths"][number].T)
        targets = {"depth": depth, "normals": normals_of_depth(depth[0])}
        if self.classes is not None:
            raw = torch.from_numpy(file["labels"][number].T.astype(np.int64))
            if raw.max() >= len(self.classes):
                raise DataError(
                    f"{self.path} has the label {int(raw.max())} in image {number}",
                    f"labels below {len(self.classes)}, the number of given classes",
                    "Give a class for every raw label, for 0 as well.",
                )
            targets["segmentation"] = self.classes[raw]
        return sample(image, targets, self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _opened(self) -> Any:
        """Return the file, which every process opens for itself."""
        if self._file is None:
            try:
                import h5py
            except ImportError as error:
                raise MissingExtraError(
                    "NYUDepth was made and h5py is not installed",
                    "the extra nyu",
                    "Install it: pip install 'dgba[nyu]'.",
                ) from error
            try:
                file = h5py.File(self.path, "r")
                missing = [name for name in ("images", "depths", "labels") if name not in file]
            except OSError as error:
                raise DataError(
                    f"{self.path} cannot be read ({error})",
                    "nyu_depth_v2_labeled.mat",
                    "Bring it from cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html.",
                ) from error
            if missing:
                raise DataError(
                    f"{self.path} lacks {', '.join(missing)}",
                    "images, depths and labels",
                    "Take nyu_depth_v2_labeled.mat, not the raw data.",
                )
            self._file = file
        return self._file


def nyu_classes(path: str | Path) -> list[int]:
    """Read ``classMapping40.mat``: the class, from 0 to 39, of each raw label from 0 to 894; 255 for label 0.

    Raises
    ------
    DataError
        The file is missing or is another one.
    """
    return [UNKNOWN, *(_vector(path, "mapClass") - 1)]


def nyu_split(path: str | Path, split: Split) -> list[int]:
    """Read ``splits.mat``: the indices, from 0, of the 795 images for training or the 654 for the test.

    Raises
    ------
    UnknownNameError
        There is no such split.
    DataError
        The file is missing or is another one.
    """
    if split not in get_args(Split):
        raise UnknownNameError("split of NYUv2", split, get_args(Split))
    return list(_vector(path, f"{split}Ndxs") - 1)


def _vector(path: str | Path, name: str) -> Any:
    try:
        return scipy.io.loadmat(path)[name].astype(int).flatten()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read ({error})",
            f"a MATLAB file with {name}",
            "Replace it by the published file.",
        ) from error


def normals_of_depth(
    depth: Tensor, focal: tuple[float, float] = FOCAL, centre: tuple[float, float] = CENTRE
) -> Tensor:
    """Derive surface normals from a depth image.

    Parameters
    ----------
    depth : Tensor (h, w)
        Along the optical axis; 0 where unknown.
    focal, centre : tuple of float
        In pixels, horizontally and vertically.

    Returns
    -------
    Tensor (3, h, w)
        float32, of unit length, towards the camera; zero where the depth or a neighbour's is unknown.
    """
    height, width = depth.shape
    z = depth.double()
    u = torch.arange(width, dtype=torch.float64)
    v = torch.arange(height, dtype=torch.float64)[:, None]
    points = torch.stack([z * (u - centre[0]) / focal[0], z * (centre[1] - v) / focal[1], z])
    down, right = torch.gradient(points, dim=(1, 2))
    normals = torch.linalg.cross(right, down, dim=0)
    normals = normals / normals.norm(dim=0).clamp(min=1e-12)
    normals = torch.where((normals * points).sum(0) > 0, -normals, normals)
    unknown = torch.nn.functional.max_pool2d((z == 0).double()[None], 3, stride=1, padding=1)[0] > 0
    return torch.where(unknown, 0.0, normals).float()
