"""Labelled images of the user's: a folder of one folder a class, or a data set of ``tenfold.data``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tenfold import DataError, MissingExtraError, SettingError, UnknownNameError

# Of ImageNet's pixels, which torchvision's weights expect.
_COLOUR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_HELD_OUT = 5
"""One image of every this many is held out where a folder has no ``val``."""


class Images(Protocol):
    """Images that are read batch by batch.

    Attributes
    ----------
    labels : Tensor
        int64, shape (n,).
    """

    @property
    def labels(self) -> Tensor: ...

    def batch(self, index: Tensor) -> Tensor:
        """Return the images at these places, float32, shape (len(index), c, h, w)."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Images held in memory; see `Images`."""

    images: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> Tensor:
        """See `Images.batch`."""
        return self.images[index]


@dataclass(frozen=True, eq=False)
class InFiles:
    """Images decoded from files as they are needed; see `Images`.

    Attributes
    ----------
    files : sequence of str
    labels : Tensor
    decode : callable
        From a file's name to its image, shape (c, h, w).
    """

    files: Sequence[str]
    labels: Tensor
    decode: Callable[[str], Tensor]

    def batch(self, index: Tensor) -> Tensor:
        """See `Images.batch`; `DataError` when a file is no image."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return torch.stack(list(pool.map(self._read, (self.files[place] for place in index.tolist()))))

    def _read(self, file: str) -> Tensor:
        try:
            return self.decode(file)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{file} cannot be read ({error})", "an image", "Remove the file, or look for a broken copy."
            ) from error


@dataclass(frozen=True, eq=False)
class Subset:
    """Some of other images; see `Images`."""

    images: Images
    places: Tensor

    @property
    def labels(self) -> Tensor:
        """Labels of these images."""
        return self.images.labels[self.places]

    def batch(self, index: Tensor) -> Tensor:
        """See `Images.batch`."""
        return self.images.batch(self.places[index])


def read_images(
    name: str,
    shape: Sequence[int],
    *,
    mean: Sequence[float] = (),
    deviation: Sequence[float] = (),
) -> tuple[Images, Images]:
    """Find labelled images, and divide them into those to train on and those to measure on.

    Parameters
    ----------
    name : str
        A folder, or a name of ``tenfold.data``. In a folder, ``train`` and ``val`` hold a folder of
        images for every class; or it holds these itself, and every fifth image of a class in the
        order of names is held out. Of a named set, train and test are taken.
    shape : sequence of int
        Channels (1 or 3), height and width. Images of a folder are resized to fit and cropped in
        the middle; those of a named set must have this shape.
    mean, deviation : sequence of float
        By channel, of pixels from 0 to 1, to normalise with; those of ImageNet for colour and a
        half for grey when empty. Named sets are normalised by their train images.

    Returns
    -------
    train, test : Images

    Raises
    ------
    UnknownNameError
        There is no such folder and no set of that name.
    DataError
        A folder holds no classes or no images, or other classes in ``val`` than in ``train``.
    SettingError
        The shape is not that of the named set, or has another number of channels, or `mean` and
        `deviation` do not fit it.
    MissingExtraError
        A folder is named and torchvision is not installed.
    """
    from tenfold import data

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise SettingError(
            f"an input of shape {tuple(shape)} for images",
            "channels (1 or 3), height and width",
            "Write --example 1,3,224,224, the batch first.",
        )
    if Path(name).is_dir():
        return _read_folder(Path(name), shape, mean, deviation)
    try:
        found = data.load(name)
    except UnknownNameError as error:
        raise UnknownNameError("folder or data set", name, error.known) from error
    if mean or deviation:
        raise SettingError(
            f"--mean or --std with data set {name}", "them only for a folder", "Leave them out."
        )
    train, test = (
        InMemory(torch.from_numpy(data.normalise(split, found.train)), torch.from_numpy(split.labels))
        for split in (found.train, found.test)
    )
    if train.images.shape[1:] != torch.Size(shape):
        raise SettingError(
            f"images of shape {tuple(train.images.shape[1:])} in {name}",
            f"{tuple(shape)}, what the model takes",
            "Choose another data set, or say with --example what the model takes.",
        )
    return train, test


def _read_folder(
    folder: Path, shape: Sequence[int], mean: Sequence[float], deviation: Sequence[float]
) -> tuple[Images, Images]:
    decode = _decoder(shape, mean, deviation)
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        (files, labels, classes), (held, held_labels, others) = (
            _list(folder / part) for part in ("train", "val")
        )
        if classes != others:
            raise DataError(
                f"{folder / 'val'} has classes {', '.join(others)}",
                f"those of train, {', '.join(classes)}",
                "Give both folders the same classes.",
            )
        return InFiles(files, labels, decode), InFiles(held, held_labels, decode)
    files, labels, _ = _list(folder)
    ranks = np.concatenate([np.arange(count) for count in np.bincount(labels.numpy())])
    out = ranks % _HELD_OUT == _HELD_OUT - 1
    if not out.any():
        raise DataError(
            f"{folder} has fewer than {_HELD_OUT} images in every class",
            "enough to hold some out for measuring",
            "Put images to train on into train, and those to measure on into val.",
        )
    parts = [
        InFiles([files[place] for place in np.flatnonzero(chosen)], labels[torch.from_numpy(chosen)], decode)
        for chosen in (~out, out)
    ]
    return parts[0], parts[1]


def _list(folder: Path) -> tuple[list[str], Tensor, list[str]]:
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{folder} holds no images by class ({str(error).splitlines()[0]})",
            "a folder of images for every class",
            "Put every class's images into a folder of its own.",
        ) from error
    files, labels = zip(*found.samples, strict=True)
    return list(files), torch.tensor(labels), list(found.classes)


def _decoder(
    shape: Sequence[int], mean: Sequence[float], deviation: Sequence[float]
) -> Callable[[str], Tensor]:
    try:
        from PIL import Image
        from torchvision.transforms.v2 import functional as transform
    except ImportError as error:
        raise MissingExtraError(
            "a folder of images was given and torchvision is not installed",
            "torchvision 0.25 or later",
            "Install it: pip install 'slr-prune[vision]'.",
        ) from error
    channels, height, width = shape
    default = _COLOUR if channels == 3 else ((0.5,), (0.5,))
    centre, scale = (
        list(values) or list(usual) for values, usual in zip((mean, deviation), default, strict=True)
    )
    if len(centre) != channels or len(scale) != channels or not all(value > 0 for value in scale):
        raise SettingError(
            f"mean {tuple(centre)} and standard deviation {tuple(scale)} for {channels} channels",
            "one number a channel, standard deviations above 0",
            "Write --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25.",
        )

    def decode(file: str) -> Tensor:
        with Image.open(file) as opened:
            image: Any = opened.convert("RGB" if channels == 3 else "L")
        # The shorter side, relative to what is wanted, fills it; the rest of the longer is cropped.
        grown = max(height / image.height, width / image.width)
        size = [max(height, round(image.height * grown)), max(width, round(image.width * grown))]
        image = transform.center_crop(transform.resize(image, size, antialias=True), [height, width])
        pixels: Tensor = transform.to_dtype(transform.pil_to_tensor(image), torch.float32, scale=True)
        normalised: Tensor = transform.normalize(pixels, centre, scale)
        return normalised

    return decode
