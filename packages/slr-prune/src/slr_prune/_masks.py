"""Masks from the forms in which annotations keep them: polygons and run lengths.

COCO's run lengths go down the columns, one column after another, and begin with a run of zeros,
which may be empty. Its compressed form writes every length as a little-endian number of
characters with five bits each, bit 5 of a character saying that another follows and bit 4 of the
last one giving the sign; from the fourth length on, what is written is the difference to the
length two before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def polygon_mask(x: NDArray[np.float64], y: NDArray[np.float64], height: int, width: int) -> Mask:
    """Return the pixels, (height, width), whose centres lie inside a polygon by the even-odd rule.

    Parameters
    ----------
    x, y : numpy.ndarray
        (corners,), in pixels from the image's upper left corner; the last joins the first.
    height, width : int
    """
    rows = np.arange(height)[:, None] + 0.5
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    row, edge = np.nonzero((y <= rows) != (y2 <= rows))
    share = (row + 0.5 - y[edge]) / (y2[edge] - y[edge])
    crossing = x[edge] + share * (x2[edge] - x[edge])
    first = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    toggles = np.zeros((height, width + 1), np.int64)
    np.add.at(toggles, (row, first), 1)
    inside: Mask = toggles[:, :width].cumsum(1) % 2 == 1
    return inside


def run_length_mask(counts: Sequence[int], height: int, width: int) -> Mask:
    """Return the mask, (height, width), of COCO's uncompressed run lengths.

    Raises
    ------
    ValueError
        A length is negative, or they do not add up to the image.
    """
    lengths = np.asarray(counts, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths of {lengths.sum()} pixels for {height} x {width}")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def decode_run_lengths(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed form holds.

    Raises
    ------
    ValueError
        A character is none of that form, or the last number is incomplete.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"run lengths with the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("run lengths that break off within a number")
    return counts


def resize_nearest(mask: Mask, height: int, width: int) -> Mask:
    """Sample a mask at the centres of `height` x `width` equal cells."""
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    sampled: Mask = mask[rows[:, None], columns]
    return sampled
