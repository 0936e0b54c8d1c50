"""Truth and tracks side by side, frame by frame, as the compiled counts of the metrics take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._matching import overlaps
from mot_cup._tracks import Ints, Tracks
from tenfold import DataError, SettingError


class Pairing(NamedTuple):
    """Boxes of two sources in the frames that either has, with identities counted from 0.

    Attributes
    ----------
    truth_starts, track_starts, given_starts : ndarray of int64
        Shape (frames + 1,): where the rows of a frame begin, and the similarities that were given.
    truth_ids, track_ids : ndarray of int64
        Shapes (n,) and (m,).
    truth_boxes, track_boxes : ndarray of float64
        Corners, of shapes (n, 4) and (m, 4).
    given : ndarray of float64
        The similarities of all frames, flat; empty where they are to be the boxes' overlaps.
    """

    truth_starts: Ints
    track_starts: Ints
    given_starts: Ints
    truth_ids: Ints
    track_ids: Ints
    truth_boxes: Floats
    track_boxes: Floats
    given: Floats


def pair(truth: Tracks, tracks: Tracks, similarities: Mapping[int, ArrayLike] | None = None) -> Pairing:
    """Lay truth and tracks side by side.

    Parameters
    ----------
    truth, tracks : Tracks
    similarities : mapping from frame to array_like, optional
        Of the truth's rows with the tracks' rows of the frame, from 0 to 1, for every frame that has both.
        Default: intersection over union.

    Raises
    ------
    DataError
        Similarities of a frame have the wrong shape or are not between 0 and 1.
    SettingError
        Similarities of a frame are missing.
    """
    frames = np.union1d(truth.frames, tracks.frames)
    truth_starts, track_starts = (
        np.append(np.searchsorted(source.frames, frames), len(source)).astype(np.int64)
        for source in (truth, tracks)
    )
    given, given_starts = np.empty(0), np.zeros(len(frames) + 1, np.int64)
    if similarities is not None:
        shapes = np.stack([np.diff(truth_starts), np.diff(track_starts)], axis=1)
        parts = [
            _similarity(int(frame), (int(n), int(m)), similarities)
            for frame, (n, m) in zip(frames, shapes, strict=True)
        ]
        given = np.concatenate([np.empty(0), *parts])
        given_starts[1:] = np.cumsum(shapes.prod(1))
    return Pairing(
        truth_starts,
        track_starts,
        given_starts,
        np.unique(truth.ids, return_inverse=True)[1].astype(np.int64),
        np.unique(tracks.ids, return_inverse=True)[1].astype(np.int64),
        np.ascontiguousarray(truth.boxes),
        np.ascontiguousarray(tracks.boxes),
        given,
    )


@compiled
def similarity(pairing: Pairing, frame: int) -> Floats:
    """Return the similarities of the frame that has this number, of shape (truth's rows, tracks' rows)."""
    first, end = pairing.truth_starts[frame], pairing.truth_starts[frame + 1]
    track_first, track_end = pairing.track_starts[frame], pairing.track_starts[frame + 1]
    if len(pairing.given):
        flat = pairing.given[pairing.given_starts[frame] : pairing.given_starts[frame + 1]]
        return flat.reshape((end - first, track_end - track_first))
    return overlaps(pairing.truth_boxes[first:end], pairing.track_boxes[track_first:track_end])


def _similarity(frame: int, shape: tuple[int, int], similarities: Mapping[int, ArrayLike]) -> Floats:
    if 0 in shape:
        return np.empty(0)
    if frame not in similarities:
        raise SettingError(
            f"no similarities of frame {frame}",
            "those of every frame with truth and tracks",
            "Add them, zero where nothing is alike.",
        )
    values = np.asarray(similarities[frame], dtype=np.float64)
    if values.shape != shape:
        raise DataError(
            f"similarities of shape {values.shape} in frame {frame}",
            f"shape {shape}, a row for each box of the truth and a column for each of the tracks",
            "Keep the order of the boxes in the frame.",
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError(
            f"similarities from {values.min()} to {values.max()} in frame {frame}",
            "numbers from 0 to 1",
            "Turn a distance d into max(0, 1 - d / zero).",
        )
    return values.ravel()
