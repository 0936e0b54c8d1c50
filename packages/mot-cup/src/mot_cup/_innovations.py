"""What a filter did not expect: innovations of a running tracker, and whether they fit its covariances.

An innovation v is a detection less its prediction, in the coordinates of the state, and S = H P H' + R its
covariance. In a consistent filter v' S^-1 v, the NIS, has a chi-square distribution of four degrees, and so
has e' P^-1 e, the NEES, e the corrected state less the truth (`mot_cup.scores.chi_square_bounds`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats, Space, to_space
from mot_cup._tracks import Ints
from mot_cup.scores import nees, nis
from tenfold import DataError


@dataclass(frozen=True)
class Innovations:
    """Innovations of the detections that a track took, in the order of the detections.

    Attributes
    ----------
    frames : ndarray of int64
        Shape (n,).
    rows : ndarray of int64
        Shape (n,): the row of the detection in its frame.
    ids : ndarray of int64
        Shape (n,): identities of the tracks, those too that are not reported yet.
    values : ndarray of float64
        v, of shape (n, 4).
    covariances : ndarray of float64
        S, of shape (n, 4, 4).
    states : ndarray of float64
        Corrected positions, of shape (n, 4).
    state_covariances : ndarray of float64
        Their P, of shape (n, 4, 4).
    space : {"xyxy", "xywh", "xyah", "xysr"}
        The coordinates of all of them.
    """

    frames: Ints
    rows: Ints
    ids: Ints
    values: Floats
    covariances: Floats
    states: Floats
    state_covariances: Floats
    space: Space

    def __len__(self) -> int:
        return len(self.frames)

    def scores(self) -> Floats:
        """Return abs(v) / sqrt(S) of every coordinate, of shape (n, 4)."""
        return np.asarray(np.abs(self.values) / np.sqrt(np.diagonal(self.covariances, 0, 1, 2)))

    def nis(self) -> Floats:
        """Return v' S^-1 v, of shape (n,).

        Raises
        ------
        DataError
            A covariance is singular.
        """
        return nis(self.values, self.covariances)

    def nees(self, truth: ArrayLike) -> Floats:
        """Return e' P^-1 e of the corrected positions, of shape (n,).

        Parameters
        ----------
        truth : array_like
            Corners of the true box of each, of shape (n, 4).

        Raises
        ------
        DataError
            The shape is another, or a covariance is singular.
        """
        boxes = np.asarray(truth, dtype=np.float64)
        if boxes.shape != (len(self), 4):
            raise DataError(
                f"true boxes of shape {boxes.shape}", f"shape ({len(self)}, 4)", "Give one for each."
            )
        return nees(self.states - to_space(boxes, self.space), self.state_covariances)
