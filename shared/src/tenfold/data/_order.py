"""Orders and splits that are fixed for ever, whatever numpy's generators become.

Rows are ranked by the SHA-256 digest of ``"<salt>:<row>"``, so that anybody can recompute
a split with nothing but a hash function.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def hashed_order(salt: str, rows: int) -> NDArray[np.intp]:
    """Return a fixed permutation.

    Parameters
    ----------
    salt : str
        Sets the permutation apart from others.
    rows : int
        How many rows to permute.

    Returns
    -------
    numpy.ndarray
        intp, shape (rows,): 0 to rows - 1 in increasing order of the digest.
    """
    digests = [hashlib.sha256(f"{salt}:{row}".encode()).digest() for row in range(rows)]
    return np.array(sorted(range(rows), key=digests.__getitem__), dtype=np.intp)


def stratified(
    salt: str, labels: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Divide rows into train, validation and test, each class in the same proportion.

    Of a class of n rows in hashed order, the first ``n // 5`` go to test, the next ``n // 10``
    to validation and the others to train. Each split is then put into the order of a second
    salt, ``"<salt>/order"``: in the first one its classes would come in clumps.

    Parameters
    ----------
    salt : str
        Salt of the order.
    labels : numpy.ndarray
        int64, shape (n,).

    Returns
    -------
    train, validation, test : numpy.ndarray
        intp row numbers, disjoint, together all rows.
    """
    order = hashed_order(salt, len(labels))
    # 0 train, 1 validation, 2 test
    part = np.zeros(len(labels), dtype=np.uint8)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        test, validation = len(members) // 5, len(members) // 10
        part[members[:test]] = 2
        part[members[test : test + validation]] = 1
    mixed = hashed_order(f"{salt}/order", len(labels))
    return mixed[part[mixed] == 0], mixed[part[mixed] == 1], mixed[part[mixed] == 2]
