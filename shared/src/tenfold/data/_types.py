"""What a data set is once loaded: three splits of images with their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import SettingError

Source = Literal["TENFOLD_DATA", "cache", "download", "embedded"]


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in a fixed order.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, shape (n, h, w) for grey images, (n, h, w, 3) for colour.
    labels : numpy.ndarray
        int64, shape (n,): indices into the data set's classes.

    Raises
    ------
    tenfold.SettingError
        If a shape or dtype is another.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
            raise SettingError(
                f"images are {self.images.dtype} of shape {shape}",
                "uint8 of shape (n, h, w) or (n, h, w, 3)",
                "Move the channels last and keep the pixels as bytes; tenfold.data.normalise makes floats.",
            )
        if self.labels.dtype != np.int64 or self.labels.shape != shape[:1]:
            raise SettingError(
                f"labels are {self.labels.dtype} of shape {self.labels.shape}",
                f"int64 of shape {shape[:1]}, one for each image",
                "Give one class index per image.",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: slice | NDArray[np.integer[Any]]) -> Split:
        """Return the split made of the chosen images.

        Parameters
        ----------
        index : slice or numpy.ndarray
            Integer positions, in the order wanted. A slice gives views, an array copies.

        Returns
        -------
        Split
            The chosen images and their labels.
        """
        return Split(self.images[index], self.labels[index])


Splits = tuple[Split, Split, Split]


@dataclass(frozen=True, eq=False)
class ImageData:
    """A named data set of labelled images.

    Parameters
    ----------
    name : str
        The name it was loaded by.
    source : {"TENFOLD_DATA", "cache", "download", "embedded"}
        Where it came from.
    variant : str
        Which version of the pixels this is: ``"original"`` as published, ``"jpeg"`` recompressed
        with loss (results are not comparable with those published), ``"subset"`` a part of it.
    classes : tuple of str
        Class names; a label indexes them.
    peak : int
        The pixel value of full intensity: 255, or 16 for the digits of scikit-learn.
    train, validation, test : Split
        Disjoint, and the same in every run and on every machine.
    """

    name: str
    source: Source
    variant: str
    classes: tuple[str, ...]
    peak: int
    train: Split
    validation: Split
    test: Split
