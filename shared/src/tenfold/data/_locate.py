"""Where the files of a data set may lie, and whether they do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from tenfold.data._types import Source, Splits
from tenfold.errors import SettingError


@dataclass(frozen=True)
class Layout:
    """One form in which a data set can lie on disk.

    Parameters
    ----------
    variant : str
        The `ImageData.variant` that this form holds.
    folders : tuple of str
        Folders below ``TENFOLD_DATA`` or the cache, tried in this order.
    files : tuple of str
        The files inside the folder; all must be there.
    read : callable
        ``read(folder) -> (train, validation, test)``; raises `tenfold.DataError` on a bad file.
    """

    variant: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Path], Splits]

    def missing(self, folder: Path) -> list[str]:
        """Return the files that `folder` lacks, in the order of `files`."""
        return [name for name in self.files if not (folder / name).is_file()]


@dataclass(frozen=True)
class Found:
    """A data set that can be loaded now, without the network.

    Parameters
    ----------
    source : {"TENFOLD_DATA", "cache", "download", "embedded"}
        Where it is.
    folder : pathlib.Path or None
        The folder of its files; None for an embedded set.
    variant : str
        The `ImageData.variant` that loading would give.
    """

    source: Source
    folder: Path | None
    variant: str


def cache_root() -> Path:
    """Return the folder of downloaded data sets, which need not exist."""
    return user_cache_path("tenfold") / "data"


def places(layouts: Sequence[Layout]) -> Iterator[tuple[Source, Layout, Path]]:
    """Yield every place to look, in order: ``TENFOLD_DATA`` first, then the cache.

    Raises
    ------
    tenfold.SettingError
        If ``TENFOLD_DATA`` is set and is not a folder.
    """
    roots: list[tuple[Source, Path]] = [("cache", cache_root())]
    if named := os.environ.get("TENFOLD_DATA"):
        root = Path(named).expanduser()
        if not root.is_dir():
            raise SettingError(
                f"TENFOLD_DATA is {named!r}, which is not a folder",
                "an existing folder of data sets",
                "Correct the variable or unset it.",
            )
        roots.insert(0, ("TENFOLD_DATA", root))
    for source, root in roots:
        for layout in layouts:
            for folder in layout.folders:
                yield source, layout, root / folder


def locate(layouts: Sequence[Layout]) -> tuple[Source, Layout, Path] | None:
    """Return the first place that holds every file of a layout, or None."""
    for source, layout, folder in places(layouts):
        if not layout.missing(folder):
            return source, layout, folder
    return None


def nearly(layouts: Sequence[Layout]) -> list[str]:
    """Return one clause for each folder that holds a part of a layout, naming what it lacks."""
    return [
        f"{folder} lacks {', '.join(missing)}"
        for _, layout, folder in places(layouts)
        if 0 < len(missing := layout.missing(folder)) < len(layout.files)
    ]
