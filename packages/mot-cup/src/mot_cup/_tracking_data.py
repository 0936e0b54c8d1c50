"""Where files of tracking data lie that the package does not bring."""

from __future__ import annotations

import os
from pathlib import Path

from tenfold import DataError


def tracking_folder(name: str) -> Path:
    """Return the folder ``tracking/<name>`` below the one that ``TENFOLD_DATA`` names.

    Raises
    ------
    DataError
        The variable is not set, or there is no such folder.
    """
    root = os.environ.get("TENFOLD_DATA")
    if not root:
        raise DataError(
            f"the data set {name!r} and no TENFOLD_DATA",
            f"the variable to name a folder with tracking/{name} in it",
            "Set it, or use the simulated data.",
        )
    folder = Path(root).expanduser() / "tracking" / name
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder}",
            "the files of the data set there",
            "Put them there, or use the simulated data.",
        )
    return folder
