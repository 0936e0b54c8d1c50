"""NYUv2 as MTAN published it (Liu et al., CVPR 2019): one NumPy file an image and task.

    {train,val}/{image,label,depth,normal}/{i}.npy

795 and 654 images of 288 x 384 pixels: colours in [0, 1], 13 classes with -1 for unknown, depth in metres and
normals, both 0 where unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from torch.utils.data import Dataset

from dgba.datasets._files import Sample, channels_first, image_of, labels_of, read_npy, sample, unit
from tenfold import DataError, UnknownNameError

Split = Literal["train", "val"]


class MTAN(Dataset[Sample]):
    """NYUv2 in MTAN's files: segmentation (13 classes), depth, normals.

    Parameters
    ----------
    folder : str or Path
        Holds ``train`` and ``val``.
    split : {"train", "val"}

    Raises
    ------
    UnknownNameError
        There is no such split.
    DataError
        There are no images; in reading, a file is missing or corrupt.
    """

    def __init__(self, folder: str | Path, split: Split = "train") -> None:
        if split not in get_args(Split):
            raise UnknownNameError("split of MTAN's NYUv2", split, get_args(Split))
        self.folder = Path(folder) / split
        names = [path.name for path in (self.folder / "image").glob("*.npy") if path.stem.isdecimal()]
        self.names = sorted(names, key=lambda name: int(name.removesuffix(".npy")))
        if not self.names:
            raise DataError(
                f"{self.folder / 'image'} has no <number>.npy", "an image in each", "Check the folder."
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        path = self.folder / "image" / self.names[index]
        image = image_of(read_npy(path), path)
        label, depth, normal = (
            read_npy(self.folder / kind / self.names[index]) for kind in ("label", "depth", "normal")
        )
        targets = {
            "segmentation": labels_of(label, unknown=-1),
            "depth": channels_first(depth),
            "normals": unit(channels_first(normal)),
        }
        return sample(image, targets, path)
