"""Whether the identities of a truth can be trusted, and a truth with identities that can.

Metrics of association take the truth's identities at their word. In V2X-Sim's published truth they are mixed
up: of the pairs of boxes with the same identity in consecutive frames 17.7 % do not even touch (5 frames a
second; validation). `check_identities` counts such pairs. A fast object makes some too, a few per cent.

`relink` gives new identities, from the boxes alone. Going from frame to frame, every object is expected where
its last two boxes put it at constant velocity, or where it was if it has one box only. With D the distance of
centres, w, h the sides of the last box, and w', h' those of a box of the new frame, the two cost

    (D + (abs(w - w') + abs(h - h')) / 2) / sqrt(w h)

and the pairs are those of most total gain under the limit `reach`, all pairs weighed at once
(`mot_cup._assignment`). A box without a pair begins a new identity. The published identities have no say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mot_cup._assignment import assign_within
from mot_cup._boxes import Floats, to_space
from mot_cup._tracks import Ints, Tracks
from tenfold import DataError, SettingError
from tenfold.experiment import Table


@dataclass(frozen=True)
class IdentityCheck:
    """Pairs of boxes with the same identity in consecutive frames.

    Attributes
    ----------
    pairs : int
        Number of pairs.
    disjoint : int
        Number of those that do not overlap.
    """

    pairs: int
    disjoint: int

    @property
    def share(self) -> float:
        """The disjoint share of the pairs, 0 if there are none."""
        return self.disjoint / max(1, self.pairs)

    def __add__(self, other: IdentityCheck) -> IdentityCheck:
        """Return the counts of both."""
        return IdentityCheck(self.pairs + other.pairs, self.disjoint + other.disjoint)


def check_identities(truth: Tracks) -> IdentityCheck:
    """Count the pairs of boxes with the same identity in consecutive frames, and those that are disjoint."""
    order = np.lexsort((truth.frames, truth.ids))
    frames, ids, boxes = truth.frames[order], truth.ids[order], truth.boxes[order]
    consecutive = (np.diff(ids) == 0) & (np.diff(frames) == 1)
    apart = np.minimum(boxes[1:, 2:], boxes[:-1, 2:]) <= np.maximum(boxes[1:, :2], boxes[:-1, :2])
    return IdentityCheck(int(consecutive.sum()), int((consecutive & apart.any(1)).sum()))


def identity_table(truths: Mapping[str, Tracks]) -> Table:
    """Tabulate the check of several sequences: a row for each, and one for all."""
    checks = {name: check_identities(truth) for name, truth in truths.items()}
    total = sum(checks.values(), IdentityCheck(0, 0))
    rows = [
        [name, str(check.pairs), str(check.disjoint), f"{100 * check.share:.1f} %"]
        for name, check in (*checks.items(), ("all", total))
    ]
    return Table(
        "boxes with the same identity in consecutive frames", ["sequence", "pairs", "disjoint", "share"], rows
    )


def relink(truth: Tracks, *, reach: float = 1.5, memory: int = 0) -> Tracks:
    """Return the boxes of a truth with new identities.

    Parameters
    ----------
    truth : Tracks
        Its boxes must be right, of positive width and height; its identities are not looked at.
    reach : float
        How far an object may come from where it is expected, in sizes of its box.
    memory : int
        For how many frames an object without a box is still expected, at constant velocity. With 0 it
        begins anew.

    Returns
    -------
    Tracks
        The same rows with identities from 0, in order of appearance.

    Raises
    ------
    DataError
        A box has no area.
    SettingError
        The reach is not positive and finite, or the memory is negative.
    """
    if not 0 < reach < np.inf:
        raise SettingError(f"reach {reach}", "a positive number", "1.5 box sizes suit cars.")
    if memory < 0:
        raise SettingError(f"memory {memory}", "0 frames or more", "Correct it.")
    flat = (truth.boxes[:, 2:] <= truth.boxes[:, :2]).any(1)
    if flat.any():
        row = int(np.argmax(flat))
        raise DataError(
            f"the box {truth.boxes[row].tolist()} in frame {truth.frames[row]}",
            "x1 < x2 and y1 < y2",
            "Leave it out.",
        )
    boxes = to_space(truth.boxes, "xywh")
    ids = np.empty(len(truth), np.int64)
    objects, count = _Objects.none(), 0
    for frame, rows in truth.by_frame():
        here = boxes[rows]
        objects = objects[np.flatnonzero(frame - objects.frames <= memory + 1)]
        columns = assign_within(_costs(objects, here, frame), reach)
        found = columns >= 0
        of_frame = np.full(len(here), -1)
        of_frame[columns[found]] = objects.ids[found]
        new = of_frame < 0
        of_frame[new] = count + np.arange(new.sum())
        count += int(new.sum())
        velocities = np.zeros((len(here), 2))
        passed = frame - objects.frames[found]
        moved = here[columns[found], :2] - objects.boxes[found, :2]
        velocities[columns[found]] = moved / passed[:, None]
        ids[rows] = of_frame
        seen = _Objects(of_frame, here, velocities, np.full(len(here), frame))
        objects = objects[np.flatnonzero(~found)].and_also(seen)
    return replace(truth, ids=ids)


@dataclass(frozen=True)
class _Objects:
    """Objects with their last boxes ``xywh``, velocities of the centre a frame, and last frames."""

    ids: Ints
    boxes: Floats
    velocities: Floats
    frames: Ints

    @classmethod
    def none(cls) -> _Objects:
        empty = np.empty(0, np.int64)
        return cls(empty, np.empty((0, 4)), np.empty((0, 2)), empty)

    def __getitem__(self, rows: Ints) -> _Objects:
        return _Objects(self.ids[rows], self.boxes[rows], self.velocities[rows], self.frames[rows])

    def and_also(self, others: _Objects) -> _Objects:
        return _Objects(
            np.concatenate([self.ids, others.ids]),
            np.concatenate([self.boxes, others.boxes]),
            np.concatenate([self.velocities, others.velocities]),
            np.concatenate([self.frames, others.frames]),
        )


def _costs(objects: _Objects, boxes: Floats, frame: int) -> Floats:
    """Return the costs of objects with the boxes of a frame, of shape (objects, boxes)."""
    expected = objects.boxes[:, :2] + objects.velocities * (frame - objects.frames)[:, None]
    distance = np.linalg.norm(expected[:, None] - boxes[None, :, :2], axis=2)
    change = np.abs(objects.boxes[:, None, 2:] - boxes[None, :, 2:]).sum(2) / 2
    return np.ascontiguousarray((distance + change) / np.sqrt(objects.boxes[:, 2:].prod(1))[:, None])
