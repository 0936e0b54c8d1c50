"""Detections of one frame, and what the detector says of their errors.

A covariance belongs to a parametrisation and a unit of length. The authors' detector gives variances in
metres for boxes in pixels of a quarter of a metre; taken as they are, they are 16 times too small in the
centre and 256 times in the area. So a covariance carries both, and nothing adds one to a box of another
unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mot_cup._boxes import POWERS, Floats, Space, check_space, jacobian
from tenfold import DataError, SettingError

# Relative to the largest eigenvalue: a covariance may be singular, and come out of a product a little below.
ROUNDING = 1e-9
Rows = NDArray[np.intp] | NDArray[np.bool_] | Sequence[int] | slice
Checked = TypeVar("Checked")


@dataclass(frozen=True)
class BoxCovariance:
    """Covariances of the errors of boxes.

    Parameters
    ----------
    matrices : ndarray of float64
        Shape (n, 4, 4), symmetric and positive semidefinite.
    space : {"xyxy", "xywh", "xyah", "xysr"}
        What the four coordinates are.
    unit : str
        Of length, such as ``"px"`` or ``"m"``.

    Raises
    ------
    DataError
        A matrix is not finite, not symmetric, or has a negative eigenvalue.
    UnknownNameError
        There is no such parametrisation.
    """

    matrices: Floats
    space: Space
    unit: str

    def __post_init__(self) -> None:
        check_space(self.space)
        matrices = np.asarray(self.matrices, dtype=np.float64)
        object.__setattr__(self, "matrices", matrices)
        if matrices.ndim != 3 or matrices.shape[1:] != (4, 4):
            raise DataError(
                f"covariances of shape {matrices.shape}",
                "shape (detections, 4, 4)",
                "Make diagonal ones by BoxCovariance.diagonal.",
            )
        _refuse(matrices, np.isfinite(matrices).all((1, 2)), "finite entries")
        scale = np.abs(matrices).max((1, 2), initial=0)
        skew = np.abs(matrices - matrices.transpose(0, 2, 1)).max((1, 2), initial=0)
        _refuse(matrices, skew <= ROUNDING * scale, "a symmetric matrix")
        _refuse(matrices, np.linalg.eigvalsh(matrices)[:, 0] >= -ROUNDING * scale, "no negative eigenvalue")

    @classmethod
    def diagonal(cls, variances: ArrayLike, space: Space, unit: str) -> BoxCovariance:
        """Return the covariances of independent errors.

        Parameters
        ----------
        variances : array_like
            Shape (n, 4), squares of standard deviations.
        space, unit : str
            As for the class.
        """
        values = np.asarray(variances, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != 4:
            raise DataError(
                f"variances of shape {values.shape}", "shape (detections, 4)", "Give four for every box."
            )
        return cls(values[:, :, None] * np.eye(4), space, unit)

    def __len__(self) -> int:
        return len(self.matrices)

    def __getitem__(self, rows: Rows) -> BoxCovariance:
        """Return the covariances of some detections."""
        return unchecked(BoxCovariance, matrices=_some(self.matrices, rows), space=self.space, unit=self.unit)

    def to_space(self, boxes: Floats, space: Space) -> BoxCovariance:
        """Return the covariances in another parametrisation, to first order.

        Parameters
        ----------
        boxes : ndarray of float64
            Corners of the boxes, of shape (n, 4), in the covariances' unit.
        space : {"xyxy", "xywh", "xyah", "xysr"}
        """
        change = jacobian(boxes, space) @ np.linalg.inv(jacobian(boxes, self.space))
        matrices = change @ self.matrices @ change.transpose(0, 2, 1)
        return BoxCovariance((matrices + matrices.transpose(0, 2, 1)) / 2, space, self.unit)

    def to_unit(self, unit: str, each: float) -> BoxCovariance:
        """Return the covariances in another unit of length.

        Parameters
        ----------
        unit : str
        each : float
            How many of the new unit make one of the old: 4 from metres to pixels of 0.25 m.

        Raises
        ------
        SettingError
            `each` is not positive and finite.
        """
        if not 0 < each < np.inf:
            raise SettingError(f"{each} {unit} to a {self.unit}", "a positive number", "Correct it.")
        factors = float(each) ** np.array(POWERS[self.space])
        return BoxCovariance(self.matrices * np.outer(factors, factors), self.space, unit)


@dataclass(frozen=True)
class Detections:
    """Detections of one frame.

    Parameters
    ----------
    boxes : ndarray of float64
        Corners x1, y1, x2, y2, of shape (n, 4), finite and of positive width and height.
    scores : ndarray of float64, optional
        Shape (n,); 1 for all by default.
    classes : ndarray of int64, optional
        Shape (n,); 0 for all by default.
    covariance : BoxCovariance, optional
        Of the boxes, in the same unit.
    unit : str
        Of length, of the boxes.

    Attributes
    ----------
    rows : ndarray of float64
        Shape (n, 6): corners, score and class together, as compiled code takes them.

    Raises
    ------
    DataError
        A box is not finite or has no area, a score is NaN, or lengths differ.
    SettingError
        The covariance is in another unit than the boxes.
    """

    boxes: Floats
    scores: Floats = None  # type: ignore[assignment]
    classes: NDArray[np.int64] = None  # type: ignore[assignment]
    covariance: BoxCovariance | None = None
    unit: str = "px"
    rows: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float64)
        if boxes.size == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise DataError(f"boxes of shape {boxes.shape}", "shape (n, 4)", "Give x1, y1, x2, y2 a row.")
        n = len(boxes)
        scores = np.ones(n) if self.scores is None else np.asarray(self.scores, dtype=np.float64)
        classes = np.zeros(n, np.int64) if self.classes is None else np.asarray(self.classes, dtype=np.int64)
        for name, values in (("scores", scores), ("classes", classes)):
            if values.shape != (n,):
                raise DataError(
                    f"{name} of shape {values.shape} for {n} boxes", f"shape ({n},)", "Correct it."
                )
        if self.covariance is not None and len(self.covariance) != n:
            raise DataError(
                f"{len(self.covariance)} covariances for {n} boxes", "one for each", "Correct it."
            )
        if self.covariance is not None and self.covariance.unit != self.unit:
            raise SettingError(
                f"a covariance in {self.covariance.unit} of boxes in {self.unit}",
                "the same unit",
                "Convert the covariance by to_unit.",
            )
        _refuse(boxes, np.isfinite(boxes).all(1), "finite corners")
        _refuse(boxes, (boxes[:, 2:] > boxes[:, :2]).all(1), "x1 < x2 and y1 < y2")
        _refuse(scores, ~np.isnan(scores), "a number for a score")
        rows = np.empty((n, 6))
        rows[:, :4], rows[:, 4], rows[:, 5] = boxes, scores, classes
        for name, value in (("boxes", boxes), ("scores", scores), ("classes", classes), ("rows", rows)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_array(cls, rows: ArrayLike, unit: str = "px") -> Detections:
        """Take rows x1, y1, x2, y2, score, class, of shape (n, 4) to (n, 6); the last two may be absent.

        Raises
        ------
        DataError
            Another number of columns, a class that is not whole, or what the class refuses.
        """
        values = np.asarray(rows, dtype=np.float64)
        if values.size == 0:
            return cls(np.empty((0, 4)), unit=unit)
        if values.ndim != 2 or not 4 <= values.shape[1] <= 6:
            raise DataError(
                f"detections of shape {values.shape}",
                "4 to 6 columns: x1, y1, x2, y2, score, class",
                "Give a covariance by Detections.",
            )
        scores = values[:, 4] if values.shape[1] > 4 else None
        classes = values[:, 5] if values.shape[1] > 5 else None
        if classes is not None:
            _refuse(classes, classes == np.floor(classes), "a whole number for a class")
        whole = None if classes is None else classes.astype(np.int64)
        return cls(values[:, :4], scores, whole, unit=unit)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Rows) -> Detections:
        """Return some of the detections."""
        return unchecked(
            Detections,
            boxes=_some(self.boxes, rows),
            scores=self.scores[rows],
            classes=self.classes[rows],
            covariance=None if self.covariance is None else self.covariance[rows],
            unit=self.unit,
            rows=self.rows[rows],
        )


class DetectionSequence(Mapping[int, Detections]):
    """Detections of a sequence in one piece of memory: a mapping from frame to `Detections`.

    Readers give it, and trackers take it as it is, where they lay out other mappings anew. Frames without
    detections are absent.

    Parameters
    ----------
    frames : array_like of int
        Shape (n,): the frame of every detection, not decreasing.
    detections : Detections
        Those of all frames.

    Attributes
    ----------
    detections : Detections

    Raises
    ------
    DataError
        There is not a frame for each detection, or frames are not whole or decrease.
    """

    def __init__(self, frames: ArrayLike, detections: Detections) -> None:
        given = np.asarray(frames)
        if given.shape != (len(detections),):
            raise DataError(
                f"frames of shape {given.shape} for {len(detections)} detections",
                f"shape ({len(detections)},)",
                "Give the frame of each detection.",
            )
        _refuse(given, np.isfinite(given) & (given == np.floor(given)), "a whole number for a frame")
        whole = given.astype(np.int64)
        _refuse(given, np.diff(whole, prepend=whole[:1]) >= 0, "frames in order")
        self.detections = detections
        starts = np.flatnonzero(np.diff(whole, prepend=whole[:1] - 1)).tolist()
        ends = [*starts[1:], len(whole)]
        self._rows = {int(whole[start]): slice(start, end) for start, end in zip(starts, ends, strict=False)}

    def __getitem__(self, frame: int) -> Detections:
        """Return the detections of a frame that has some."""
        return self.detections[self._rows[frame]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def layout(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All frames from the first to the last, and the first row of each of them and the number of rows."""
        frames = np.array(list(self._rows), dtype=np.int64)
        numbers = np.arange(frames[0], frames[-1] + 1) if len(frames) else frames
        starts = np.zeros(len(numbers) + 1, np.int64)
        starts[1:][frames - frames[:1]] = [rows.stop - rows.start for rows in self._rows.values()]
        return numbers, np.cumsum(starts)


def unchecked(kind: type[Checked], **values: object) -> Checked:
    """Return a frozen dataclass of fields that are known to be right, such as rows of another one's."""
    made = object.__new__(kind)
    vars(made).update(values)
    return made


def _some(values: Floats, rows: Rows) -> Floats:
    some: Floats = values[rows]
    if some.ndim != values.ndim:
        raise DataError(f"row {rows!r}", "rows: a slice, a list or an array", "Give a list of one.")
    return some


def _refuse(values: NDArray[np.generic], fine: ArrayLike, expected: str) -> None:
    if not np.all(fine):
        row = int(np.argmin(fine))
        raise DataError(f"row {row} is {values[row].tolist()}", expected, "Correct it or leave it out.")
