"""Tracked boxes of a whole sequence, or its truth: rows of frame, identity and box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mot_cup._boxes import Floats
from tenfold import DataError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tracks:
    """Boxes with identities over frames, sorted by frame.

    Parameters
    ----------
    frames : ndarray of int64
        Shape (n,), not decreasing.
    ids : ndarray of int64
        Shape (n,), each at most once a frame.
    boxes : ndarray of float64
        Corners x1, y1, x2, y2, of shape (n, 4).
    scores : ndarray of float64, optional
        Shape (n,); 1 for all by default.
    classes : ndarray of int64, optional
        Shape (n,); 0 for all by default.
    rows : ndarray of int64, optional
        Shape (n,): the row in its frame of the detection that the box was updated by, -1 where there is none.

    Raises
    ------
    DataError
        Lengths differ, frames decrease, an identity occurs twice in a frame, or a box is not finite.
    """

    frames: Ints
    ids: Ints
    boxes: Floats
    scores: Floats = None  # type: ignore[assignment]
    classes: Ints = None  # type: ignore[assignment]
    rows: Ints = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n = len(self.frames)
        boxes = np.asarray(self.boxes, dtype=np.float64)
        values = {
            "frames": np.asarray(self.frames, dtype=np.int64),
            "ids": np.asarray(self.ids, dtype=np.int64),
            "boxes": boxes.reshape(0, 4) if boxes.size == 0 else boxes,
            "scores": np.ones(n) if self.scores is None else np.asarray(self.scores, dtype=np.float64),
            "classes": np.zeros(n) if self.classes is None else self.classes,
            "rows": np.full(n, -1) if self.rows is None else self.rows,
        }
        for name in ("classes", "rows"):
            values[name] = np.asarray(values[name], dtype=np.int64)
        for name, array in values.items():
            shape = (n, 4) if name == "boxes" else (n,)
            if array.shape != shape:
                raise DataError(
                    f"{name} of shape {array.shape}", f"shape {shape}", "Give one for each frame."
                )
            object.__setattr__(self, name, array)
        if not np.isfinite(self.boxes).all():
            row = int(np.argmin(np.isfinite(self.boxes).all(1)))
            raise DataError(
                f"the box {self.boxes[row].tolist()} in frame {self.frames[row]}",
                "finite corners",
                "Correct it or leave it out.",
            )
        if (np.diff(self.frames) < 0).any():
            row = int(np.argmax(np.diff(self.frames) < 0)) + 1
            raise DataError(
                f"frame {self.frames[row]} after frame {self.frames[row - 1]}",
                "frames in order",
                "Sort the rows by frame.",
            )
        if ((np.diff(self.frames) > 0) | (np.diff(self.ids) > 0)).all():
            return
        order = np.lexsort((self.ids, self.frames))
        same = (np.diff(self.frames[order]) == 0) & (np.diff(self.ids[order]) == 0)
        if same.any():
            row = order[int(np.argmax(same))]
            raise DataError(
                f"identity {self.ids[row]} twice in frame {self.frames[row]}",
                "every identity once a frame",
                "Give the two boxes different identities.",
            )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: NDArray[np.bool_] | slice) -> Tracks:
        """Return some of the rows."""
        return Tracks(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def by_frame(self) -> Iterator[tuple[int, slice]]:
        """Yield every frame that has boxes, and its rows."""
        starts = np.flatnonzero(np.diff(self.frames, prepend=self.frames[:1] - 1))
        for start, end in zip(starts, np.append(starts[1:], len(self)), strict=False):
            yield int(self.frames[start]), slice(int(start), int(end))
