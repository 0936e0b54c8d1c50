"""NYUv2 on Hugging Face, as ``tanganke/nyuv2`` stores it: parquet files with a row an image.

Columns are nested lists: ``image`` float32 (3, 288, 384) in [0, 1], ``segmentation`` int64 (288, 384) with
13 classes and -1 for unknown, ``depth`` float32 (1, 288, 384) in metres and ``normal`` float32 (3, 288, 384),
both 0 where unknown. Rows are read a group at a time and the last group is kept: read in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from dgba.datasets._files import Array, Sample, image_of, labels_of, sample, unit
from tenfold import DataError, MissingExtraError

COLUMNS = ("image", "segmentation", "depth", "normal")


class ParquetNYU(Dataset[Sample]):
    """NYUv2 in parquet files: segmentation (13 classes), depth, normals.

    Parameters
    ----------
    files : sequence of str or Path
        Those of one split, say ``sorted(folder.glob("val-*.parquet"))``.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    DataError
        There are no files, or one is missing, corrupt or without the columns.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [Path(file) for file in files]
        groups = [
            (path, group, opened.metadata.row_group(group).num_rows)
            for path in self.files
            for opened in [_open(path)]
            for group in range(opened.metadata.num_row_groups)
        ]
        if not groups:
            raise DataError(
                "no parquet files, or none with rows", "those of a split", "Check the folder's name."
            )
        self.groups = [(path, group) for path, group, _ in groups]
        self.ends: list[int] = list(accumulate(rows for *_, rows in groups))
        self._kept: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self.ends, index)
        path, group = self.groups[number]
        if self._kept[0] != number:
            self._kept = number, _open(path).read_row_group(group, columns=list(COLUMNS))
        row = index - (self.ends[number - 1] if number else 0)
        image, label, depth, normal = (_array(self._kept[1][name], row) for name in COLUMNS)
        targets = {
            "segmentation": labels_of(label, unknown=-1),
            "depth": torch.from_numpy(depth).float(),
            "normals": unit(torch.from_numpy(normal).float()),
        }
        return sample(image_of(image.transpose(1, 2, 0), path), targets, path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (-1, None)}


def _open(path: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(
            "ParquetNYU was made and pyarrow is not installed",
            "the extra parquet",
            "Install it: pip install 'dgba[parquet]'.",
        ) from error
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read ({error})", "a parquet file", "Replace it by the published file."
        ) from error
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}",
            ", ".join(COLUMNS),
            "Take the files of huggingface.co/datasets/tanganke/nyuv2.",
        )
    return file


def _array(column: Any, row: int) -> Array:
    """Return a cell of nested lists, all of one length at each depth, as an array."""
    values = column.slice(row, 1).combine_chunks()
    # The library `datasets` registers types of its own around the lists.
    values = getattr(values, "storage", values)
    shape = []
    while hasattr(values.type, "value_type"):
        inner = values.flatten()
        shape.append(len(inner) // len(values))
        values = inner
    array: Array = values.to_numpy(zero_copy_only=False)
    return array.reshape(shape).copy()
