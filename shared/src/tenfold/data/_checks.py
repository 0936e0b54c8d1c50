"""Errors and checks that every file reader needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import DataError


def corrupt(path: Path, what: str, expected: str) -> DataError:
    """Return the error for a file that is there and wrong.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    what : str
        What is wrong with it, as the rest of a clause that the file name opens.
    expected : str
        What would have been right.
    """
    return DataError(
        f"{path} {what}",
        expected,
        "Replace it by the published file; one in the cache can be deleted, and is then downloaded again.",
    )


def class_indices(path: Path, raw: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Widen the label bytes of a file, once all of them name a class.

    Parameters
    ----------
    path : pathlib.Path
        The file that the labels came from, for the error.
    raw : numpy.ndarray
        uint8, shape (n,).
    classes : int
        How many classes there are.

    Returns
    -------
    numpy.ndarray
        int64, shape (n,).

    Raises
    ------
    tenfold.DataError
        If a label is not below `classes`.
    """
    wrong = np.flatnonzero(raw >= classes)
    if wrong.size:
        raise corrupt(
            path,
            f"has label {raw[wrong[0]]} at position {wrong[0]} and {wrong.size - 1} more out of range",
            f"labels from 0 to {classes - 1}",
        )
    return raw.astype(np.int64)
