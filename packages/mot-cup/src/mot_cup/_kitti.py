"""KITTI's tracking labels and results, and the detections that go with them.

A line of labels has 17 values, of results an 18th, the score, with spaces between:

    frame  id  type  truncated  occluded  alpha  left  top  right  bottom  h  w  l  x  y  z  rotation  (score)

A line of detections, as AB3DMOT distributes them, has 15, with commas:

    frame, class, left, top, right, bottom, score, h, w, l, x, y, z, rotation, alpha

Boxes are in pixels; sizes and the position of the box's bottom in the camera's frame in metres; angles in
radians. Regions of the type DontCare have identity -1, and hold objects that are not labelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mot_cup._boxes import Floats
from mot_cup._detections import Detections, DetectionSequence
from mot_cup._lines import Lines, read_lines, write_lines
from mot_cup._mot import check_frame_order, check_identity_order
from mot_cup._tracks import Ints, Tracks
from tenfold import DataError, UnknownNameError

# In the order of their class numbers, from 0; 1 to 3 are those of the detections' files.
KITTI_TYPES = ("DontCare", "Pedestrian", "Car", "Cyclist", "Van", "Truck", "Person", "Tram", "Misc")


@dataclass(frozen=True)
class KittiObjects:
    """Labels, results or detections of a KITTI sequence, in order of frames.

    Parameters
    ----------
    frames, ids, classes : ndarray of int64
        Shape (n,). Frames count from 0; the identity of DontCare and of detections is -1; classes are
        places in `KITTI_TYPES`.
    boxes : ndarray of float64
        Corners in pixels, of shape (n, 4).
    scores : ndarray of float64
        Shape (n,); 1 for labels.
    truncated, occluded : ndarray of float64
        Shape (n,); -1 where unknown.
    alpha, rotation : ndarray of float64
        Angle of observation and about the vertical, of shape (n,); -10 where unknown.
    size : ndarray of float64
        Height, width and length in metres, of shape (n, 3); -1000 where unknown.
    position : ndarray of float64
        x, y and z of the bottom's centre in metres, of shape (n, 3); -1000 where unknown.

    Raises
    ------
    DataError
        Lengths differ, or a class is unknown.
    """

    frames: Ints
    ids: Ints
    classes: Ints
    boxes: Floats
    scores: Floats
    truncated: Floats
    occluded: Floats
    alpha: Floats
    rotation: Floats
    size: Floats
    position: Floats

    def __post_init__(self) -> None:
        n = len(self.frames)
        widths = {"boxes": (4,), "size": (3,), "position": (3,)}
        for name in self.__dataclass_fields__:
            shape = getattr(self, name).shape
            if shape != (n, *widths.get(name, ())):
                raise DataError(
                    f"{name} of shape {shape}",
                    f"shape {(n, *widths.get(name, ()))}",
                    "Give one for each frame.",
                )
        if n and not (self.classes.min() >= 0 and self.classes.max() < len(KITTI_TYPES)):
            raise DataError(
                f"classes from {self.classes.min()} to {self.classes.max()}",
                f"places in KITTI_TYPES, 0 to {len(KITTI_TYPES) - 1}",
                "Map them first.",
            )

    @classmethod
    def from_tracks(cls, tracks: Tracks) -> KittiObjects:
        """Take tracks in pixels, of classes that are places in `KITTI_TYPES`; the rest is unknown."""
        n = len(tracks)
        unknown, angle, far = np.full(n, -1.0), np.full(n, -10.0), np.full((n, 3), -1000.0)
        return cls(
            *(tracks.frames, tracks.ids, tracks.classes, tracks.boxes, tracks.scores),
            *(unknown, unknown, angle, angle, far, far),
        )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> KittiObjects:
        """Return some of the objects."""
        return KittiObjects(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def of(self, *types: str) -> KittiObjects:
        """Return the objects of some types; of all but DontCare by default.

        Raises
        ------
        UnknownNameError
            There is no such type.
        """
        for name in types:
            if name not in KITTI_TYPES:
                raise UnknownNameError("type of KITTI's objects", name, KITTI_TYPES)
        wanted = types or KITTI_TYPES[1:]
        return self[np.isin(self.classes, [KITTI_TYPES.index(name) for name in wanted])]

    def tracks(self, *types: str) -> Tracks:
        """Return the boxes with identities of some types; of all but DontCare by default."""
        some = self.of(*types)
        return Tracks(some.frames, some.ids, some.boxes, some.scores, some.classes)

    def detections(self, *types: str) -> DetectionSequence:
        """Return the boxes of every frame, in pixels, of some types; of all but DontCare by default.

        Boxes without area are left out: those of objects at the picture's border, cut off by it.
        """
        some = self.of(*types)
        some = some[np.flatnonzero((some.boxes[:, 2:] > some.boxes[:, :2]).all(1))]
        return DetectionSequence(some.frames, Detections(some.boxes, some.scores, some.classes))


def read_kitti_tracks(path: Path) -> KittiObjects:
    """Read KITTI's tracking labels, or results in their format.

    Raises
    ------
    DataError
        The file is missing, or a line is truncated, malformed, not finite, of an unknown type, out of order,
        or has the identity of another line of the frame. The error names the file and the line.
    """
    lines = read_lines(path, None, (17, 18), words=2)
    values = lines.values
    frames, boxes = _frames_and_boxes(lines, 5)
    lines.check(np.isin(lines.words, KITTI_TYPES), f"a type among {', '.join(KITTI_TYPES)}")
    classes = np.array([KITTI_TYPES.index(word) for word in lines.words], dtype=np.int64)
    ids = lines.whole(1, "the identity", -1)
    lines.check((ids >= 0) | (classes == 0), "an identity of at least 0")
    # Regions without identity get their own, so that none is twice in a frame.
    check_identity_order(lines, frames, np.where(classes == 0, -1 - np.arange(len(lines)), ids))
    objects = KittiObjects(
        *(frames, ids, classes, boxes, values[:, 16] if values.shape[1] > 16 else np.ones(len(lines))),
        *(values[:, 2], values[:, 3], values[:, 4], values[:, 15], values[:, 9:12], values[:, 12:15]),
    )
    return objects[np.argsort(frames, kind="stable")]


def write_kitti_tracks(path: Path, objects: KittiObjects, *, scores: bool = True) -> None:
    """Write KITTI's tracking results, or labels, which have no scores.

    Raises
    ------
    OutputError
        The file cannot be written.
    """

    def rows() -> Iterator[list[float | int | str]]:
        marks = np.stack([objects.truncated, objects.occluded], axis=1)
        rest = np.concatenate(
            [
                objects.alpha[:, None],
                objects.boxes,
                objects.size,
                objects.position,
                objects.rotation[:, None],
                *([objects.scores[:, None]] if scores else []),
            ],
            axis=1,
        )
        columns = (objects.frames.tolist(), objects.ids.tolist(), objects.classes.tolist())
        for frame, identity, kind, mark, values in zip(*columns, marks.tolist(), rest.tolist(), strict=True):
            yield [frame, identity, KITTI_TYPES[kind], *(f"{number:g}" for number in mark), *values]

    write_lines(path, rows(), " ")


def read_kitti_detections(path: Path) -> KittiObjects:
    """Read detections of KITTI as AB3DMOT distributes them.

    Raises
    ------
    DataError
        The file is missing, or a line is truncated, malformed, not finite, of an unknown class, out of order
        or a copy of another. The error names the file and the line.
    """
    lines = read_lines(path, ",", (15,))
    values = lines.values
    frames, boxes = _frames_and_boxes(lines, 2)
    classes = lines.whole(1, "the class", 1)
    lines.check(classes < len(KITTI_TYPES), f"a class from 1 to {len(KITTI_TYPES) - 1}")
    check_frame_order(lines, frames)
    lines.check_distinct()
    unknown = np.full(len(lines), -1.0)
    return KittiObjects(
        *(frames, np.full(len(lines), -1), classes, boxes, values[:, 6], unknown, unknown),
        *(values[:, 14], values[:, 13], values[:, 7:10], values[:, 10:13]),
    )


def write_kitti_detections(path: Path, objects: KittiObjects) -> None:
    """Write detections of KITTI as AB3DMOT distributes them.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    parts = (
        *(objects.boxes, objects.scores[:, None], objects.size, objects.position),
        *(objects.rotation[:, None], objects.alpha[:, None]),
    )
    columns = (objects.frames.tolist(), objects.classes.tolist(), np.concatenate(parts, axis=1).tolist())
    write_lines(path, ([frame, kind, *rest] for frame, kind, rest in zip(*columns, strict=True)), ",")


def _frames_and_boxes(lines: Lines, column: int) -> tuple[Ints, Floats]:
    lines.check_finite(range(lines.values.shape[1]))
    boxes = lines.values[:, column : column + 4]
    lines.check((boxes[:, 2:] >= boxes[:, :2]).all(1), "left up to right and top up to bottom")
    return lines.whole(0, "the frame", 0), boxes
