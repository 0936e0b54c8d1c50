"""Images as the float arrays that networks take."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.data._types import Split
from tenfold.errors import SettingError

_CHUNK = 1_000
_LEVELS = np.arange(256)


def normalise(
    split: Split, reference: Split, *, layout: Literal["nchw", "flat"] = "nchw"
) -> NDArray[np.float32]:
    """Subtract each channel's mean and divide by its standard deviation.

    Parameters
    ----------
    split : Split
        The n images to convert.
    reference : Split
        Where the statistics come from: the train split, also when `split` is another.
    layout : {"nchw", "flat"}
        The shape of the result.

    Returns
    -------
    numpy.ndarray
        float32, C-contiguous, of shape (n, c, h, w) with c = 1 for grey images and 3 for colour, or
        (n, c * h * w), the same array with the axes of an image joined.

    Raises
    ------
    tenfold.SettingError
        If `layout` is another, `split` and `reference` have images of different shapes, or
        `reference` is empty or has a channel that never varies.
    """
    if layout not in ("nchw", "flat"):
        raise SettingError(f"layout is {layout!r}", "'nchw' or 'flat'", "Choose one of these.")
    if split.images.shape[1:] != reference.images.shape[1:]:
        raise SettingError(
            f"images are {split.images.shape[1:]} and those of the reference {reference.images.shape[1:]}",
            "the same shape",
            "Take the statistics from the train split of the same data set.",
        )
    mean, deviation = channel_statistics(reference)
    if not np.all(deviation > 0):
        raise SettingError(
            f"standard deviations of the channels are {deviation.tolist()}",
            "all above 0",
            "Take the statistics from a split whose images vary.",
        )
    planes = _planes(split.images)
    out = np.empty(planes.shape, np.float32)
    # Bytes have 256 values, so a table per channel replaces the arithmetic on every pixel;
    # take's default mode would keep a second copy of the result.
    for channel in range(planes.shape[1]):
        table = ((_LEVELS - mean[channel]) / deviation[channel]).astype(np.float32)
        np.take(table, planes[:, channel], out=out[:, channel], mode="clip")
    return out if layout == "nchw" else out.reshape(len(out), -1)


def channel_statistics(split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the standard deviation of each channel.

    Computed from the histogram of pixel values, so the result does not depend on the order of the images.

    Parameters
    ----------
    split : Split
        At least one image.

    Returns
    -------
    mean, deviation : numpy.ndarray
        float64, shape (1,) for grey images and (3,) for colour, in pixel values from 0 to 255; the
        deviation is that of the population (divided by n).

    Raises
    ------
    tenfold.SettingError
        If the split is empty.
    """
    if not len(split):
        raise SettingError("the split is empty", "at least one image", "Take the train split.")
    planes = _planes(split.images)
    histogram = np.zeros((planes.shape[1], 256), np.int64)
    # In pieces, because bincount widens what it counts to eight bytes a pixel.
    for start in range(0, len(planes), _CHUNK):
        for channel, counts in enumerate(histogram):
            counts += np.bincount(planes[start : start + _CHUNK, channel].ravel(), minlength=256)
    pixels = planes.size // planes.shape[1]
    mean = histogram @ _LEVELS / pixels
    deviation = np.sqrt((histogram * (_LEVELS - mean[:, None]) ** 2).sum(axis=1) / pixels)
    return mean, deviation


def _planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
