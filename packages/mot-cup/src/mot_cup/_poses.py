"""Errors of several agents' poses, by what they find in common.

A detection of agent a, moved by the pose that a reports, lies off its object x by its own error v and by the
error e_a of the pose, which all detections of a frame share:

    z = x + J e_a + v,    J = [1, 0, -(z_y - a_y); 0, 1, z_x - a_x],    v ~ N(0, R),    e_a ~ N(0, C).

Objects that several agents find tell e apart from v. All x and e together have one least-squares solution,
of which the x are eliminated; what is left has three unknowns an agent. Two different objects may have been
taken for one, or a false alarm for an object: weights 1 / (1 + d^2 / 4), d^2 a detection's squared residual
over its variance, make such pairs count for little (Cauchy's, iterated).
"""

from __future__ import annotations

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._tracks import Ints

SCALE = 4.0
"""Squared residual that halves the weight of a detection."""
ITERATIONS = 3


def pose_errors(
    places: Floats,
    covariances: Floats,
    owners: Ints,
    objects: Ints,
    poses: Floats,
    known: Floats,
    errors: Floats,
) -> tuple[Floats, Floats]:
    """Return the errors of poses and their covariances.

    Parameters
    ----------
    places : ndarray of float64
        x, y of the detections, moved by `poses`, of shape (n, 2).
    covariances : ndarray of float64
        Of the detections' own errors, of shape (n, 2, 2).
    owners, objects : ndarray of int64
        The number of the agent and of the object of each detection.
    poses : ndarray of float64
        x, y, heading, of shape (agents, 3): those reported less `known`.
    known : ndarray of float64
        What the poses have been corrected by already, of shape (agents, 3).
    errors : ndarray of float64
        Covariances of the errors of the poses reported, of shape (agents, 3, 3). They may be singular.

    Returns
    -------
    errors : ndarray of float64
        Of the poses reported, of shape (agents, 3).
    covariances : ndarray of float64
        Of what is left of each, of shape (agents, 3, 3).
    """
    count = len(poses)
    by_pose = _by_pose(places, owners, poses)
    targets = places + by_pose @ known.ravel()
    roots = np.zeros((3 * count, 3 * count))
    for agent, covariance in enumerate(errors):
        values, vectors = np.linalg.eigh(covariance)
        own = slice(3 * agent, 3 * agent + 3)
        roots[own, own] = vectors * np.sqrt(np.maximum(values, 0))
    # The last column is of the targets, so that one elimination serves both sides.
    columns = np.concatenate([by_pose @ roots, targets[..., None]], axis=2)
    information = np.linalg.inv(covariances)
    member = (np.arange(objects.max() + 1)[:, None] == objects).astype(np.float64)
    weights = np.ones(len(places))
    for _ in range(ITERATIONS):
        weighted = weights[:, None, None] * information
        sides = weighted @ columns
        of_objects, of_columns = _sums(member, weighted), _sums(member, sides)
        centred = np.linalg.solve(of_objects, of_columns)
        normal = np.tensordot(columns, sides, ([0, 1], [0, 1]))
        normal -= np.tensordot(of_columns, centred, ([0, 1], [0, 1]))
        posterior = np.linalg.inv(np.eye(3 * count) + normal[:-1, :-1])
        found = posterior @ normal[:-1, -1]
        residuals = (columns - centred[objects]) @ np.append(-found, 1.0)
        weights = 1 / (1 + np.einsum("ni,nij,nj->n", residuals, information, residuals) / SCALE)
    whole = roots @ posterior @ roots.T
    blocks = whole.reshape(count, 3, count, 3)[np.arange(count), :, np.arange(count)]
    return (roots @ found).reshape(count, 3), (blocks + blocks.transpose(0, 2, 1)) / 2


def _by_pose(places: Floats, owners: Ints, poses: Floats) -> Floats:
    """Return how places move with the poses, of shape (n, 2, 3 agents)."""
    result = np.zeros((len(places), 2, 3 * len(poses)))
    rows, apart = np.arange(len(places)), places - poses[owners, :2]
    result[rows, 0, 3 * owners] = result[rows, 1, 3 * owners + 1] = 1
    result[rows, 0, 3 * owners + 2], result[rows, 1, 3 * owners + 2] = -apart[:, 1], apart[:, 0]
    return result


def _sums(member: Floats, values: Floats) -> Floats:
    result: Floats = np.tensordot(member, values, 1)
    return result
