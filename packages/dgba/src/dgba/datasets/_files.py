"""What the readers of files share: arrays from files, samples from arrays, and what is said of bad files.

All readers agree in what they return: an image float32 (3, h, w) in [0, 1], and by task ``segmentation``
int64 (h, w) with 255 where it is unknown, ``depth`` float32 (1, h, w) in metres with 0 there, ``normals``
float32 (3, h, w) of unit length with zeros there, in the axes of the files, ``edges`` and ``keypoints``
float32 (1, h, w) in [0, 1]. These are the values that the tasks of `dgba` ignore by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tenfold import DataError, SettingError

Sample = tuple[Tensor, dict[str, Tensor]]
Array = NDArray[Any]

UNKNOWN = 255
"""The class of a pixel of unknown class."""


class Resized(Dataset[Sample]):
    """Another data set with its images and targets in another size.

    Images are interpolated with antialiasing; targets keep their values: each pixel's is the nearest one's.

    Parameters
    ----------
    data : Dataset
        Of (image, targets).
    height, width : int

    Raises
    ------
    SettingError
        `height` or `width` is below 1.
    """

    def __init__(self, data: Dataset[Sample], height: int, width: int) -> None:
        if height < 1 or width < 1:
            raise SettingError(f"{height} x {width} pixels", "at least one each way", "Correct the size.")
        self.data = data
        self.size = (height, width)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        image, targets = self.data[index]
        scaled = F.interpolate(image[None], self.size, mode="bilinear", antialias=True)[0]
        rows, columns = (
            ((torch.arange(new) + 0.5) * old / new).long()
            for new, old in zip(self.size, image.shape[-2:], strict=True)
        )
        return scaled.clamp(0, 1), {
            name: target[..., rows[:, None], columns] for name, target in targets.items()
        }


def read_npy(path: Path) -> Array:
    """Read an array; raises `DataError` where it is missing or corrupt."""
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, "an array written by numpy.save", error) from error
    return array


def read_png(path: Path) -> Array:
    """Read an image file, (h, w) or (h, w, 3), in the depth that it has; `DataError` as `read_npy`."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, "an image file", error) from error


def image_of(array: Array, where: Path) -> Tensor:
    """Return an image (h, w, 3), of bytes or of numbers in [0, 1], as float32 (3, h, w) in [0, 1]."""
    if array.ndim != 3 or array.shape[2] != 3:
        raise DataError(
            f"{where} has shape {array.shape}", "(height, width, 3)", "Replace it by the published file."
        )
    values = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if not 0 <= values.min() <= values.max() <= 1:
        raise DataError(
            f"{where} has values from {values.min():g} to {values.max():g}",
            "bytes, or numbers from 0 to 1",
            "Replace it by the published file.",
        )
    return channels_first(values)


def channels_first(array: Array) -> Tensor:
    """Return (h, w) or (h, w, c) as float32 (c, h, w)."""
    flat = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(flat.transpose(2, 0, 1), dtype=np.float32))


def labels_of(array: Array, unknown: int) -> Tensor:
    """Return labels as int64 (h, w), those that are `unknown` as 255."""
    labels = array.astype(np.int64)
    labels[labels == unknown] = UNKNOWN
    return torch.from_numpy(labels)


def unit(normals: Tensor) -> Tensor:
    """Scale normals (3, h, w) to unit length; those shorter than half of that are unknown, thus zero."""
    length = normals.norm(dim=0)
    return torch.where(length > 0.5, normals / length.clamp(min=0.5), 0.0)


def sample(image: Tensor, targets: dict[str, Tensor], where: Path) -> Sample:
    """Return both, checked to be of one size; raises `DataError`."""
    for name, target in targets.items():
        if target.shape[-2:] != image.shape[-2:]:
            raise DataError(
                f"{where}: {name} of {tuple(target.shape[-2:])} pixels, image of {tuple(image.shape[-2:])}",
                "one size",
                "Replace both by the published files.",
            )
    return image, targets


def _unreadable(path: Path, expected: str, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({error})", expected, "Check the folder, or replace it by the published file."
    )
