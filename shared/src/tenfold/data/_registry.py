"""The data sets by name, and the search for one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tenfold.data._download import Remote, fetch
from tenfold.data._locate import Found, Layout, cache_root, locate, nearly
from tenfold.data._types import ImageData, Splits
from tenfold.errors import DataError, SettingError, UnknownNameError


def load(name: str, *, download: bool = True) -> ImageData:
    """Load a data set.

    It is looked for in the folder that ``TENFOLD_DATA`` names, then in the user's cache, and
    is then downloaded. One data set never stands in for another: choose with `find`, as in
    ``load("mnist" if find("mnist") else "mnist-5k")``.

    Parameters
    ----------
    name : str
        A registered name: ``"digits"``, ``"mnist-5k"``, ``"mnist"``, ``"fashion-mnist"``, ``"cifar10"``,
        or one that a package registered.
    download : bool
        Whether the network may be used when the files are nowhere on this machine.

    Returns
    -------
    ImageData
        The splits, with the source and variant that were loaded.

    Raises
    ------
    tenfold.UnknownNameError
        If no data set has that name.
    tenfold.DataError
        If the files are missing, truncated or corrupt, or cannot be downloaded.
    tenfold.SettingError
        If ``TENFOLD_DATA`` is set and is not a folder.
    """
    return _named(name).load(download)


def find(name: str) -> Found | None:
    """Say where a data set would be loaded from without the network; reads no data.

    Parameters
    ----------
    name : str
        A registered name.

    Returns
    -------
    Found or None
        None when the files are neither in ``TENFOLD_DATA`` nor in the cache.

    Raises
    ------
    tenfold.UnknownNameError
        If no data set has that name.
    tenfold.SettingError
        If ``TENFOLD_DATA`` is set and is not a folder.
    """
    return _named(name).find()


def available() -> dict[str, Found]:
    """Return every data set that can be loaded now without the network, and from where.

    Returns
    -------
    dict of str to Found
        Names in alphabetical order.

    Raises
    ------
    tenfold.SettingError
        If ``TENFOLD_DATA`` is set and is not a folder.
    """
    return {name: found for name in sorted(_SETS) if (found := _SETS[name].find())}


def register(
    name: str, *, classes: tuple[str, ...], variant: str, peak: int = 255
) -> Callable[[Callable[[], Splits]], Callable[[], Splits]]:
    """Register an embedded data set: one that an installed package ships or generates.

    Parameters
    ----------
    name : str
        The name to load it by.
    classes : tuple of str
        Class names; a label indexes them.
    variant : str
        See `ImageData`.
    peak : int
        The pixel value of full intensity.

    Returns
    -------
    callable
        A decorator for a function without arguments that returns (train, validation, test).

    Raises
    ------
    tenfold.SettingError
        If the name is taken.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfold import data
    >>> @data.register("dark", classes=("night",), variant="original")
    ... def dark() -> data.Splits:
    ...     split = data.Split(np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64))
    ...     return split, split, split
    >>> len(data.load("dark").train)
    2
    """

    def decorate(read: Callable[[], Splits]) -> Callable[[], Splits]:
        _add(name, _Embedded(name, classes, variant, peak, read))
        return read

    return decorate


def register_files(
    name: str,
    *,
    classes: tuple[str, ...],
    layouts: tuple[Layout, ...],
    stand_in: str,
    remote: Remote | None = None,
    peak: int = 255,
) -> None:
    """Register a data set that lies in files.

    Parameters
    ----------
    name : str
        The name to load it by, and the folder of the cache that its download goes to.
    classes : tuple of str
        Class names; a label indexes them.
    layouts : tuple of Layout
        The forms that the files may have, best first.
    stand_in : str
        The embedded data set that the error recommends when the files are nowhere.
    remote : Remote, optional
        The published files, if they can be downloaded; they must make up one of the `layouts`.
    peak : int
        The pixel value of full intensity.

    Raises
    ------
    tenfold.SettingError
        If the name is taken.
    """
    _add(name, _Files(name, classes, peak, layouts, stand_in, remote))


class _DataSet(Protocol):
    def load(self, may_download: bool) -> ImageData: ...
    def find(self) -> Found | None: ...


_SETS: dict[str, _DataSet] = {}


def _named(name: str) -> _DataSet:
    try:
        return _SETS[name]
    except KeyError:
        raise UnknownNameError("data set", name, _SETS) from None


def _add(name: str, data_set: _DataSet) -> None:
    if name in _SETS:
        raise SettingError(
            f"a data set named {name!r} is registered already", "a new name", "Choose another name."
        )
    _SETS[name] = data_set


@dataclass(frozen=True)
class _Embedded:
    name: str
    classes: tuple[str, ...]
    variant: str
    peak: int
    read: Callable[[], Splits]

    def find(self) -> Found:
        return Found("embedded", None, self.variant)

    def load(self, may_download: bool) -> ImageData:
        return ImageData(self.name, "embedded", self.variant, self.classes, self.peak, *self.read())


@dataclass(frozen=True)
class _Files:
    name: str
    classes: tuple[str, ...]
    peak: int
    layouts: tuple[Layout, ...]
    stand_in: str
    remote: Remote | None

    def find(self) -> Found | None:
        if place := locate(self.layouts):
            source, layout, folder = place
            return Found(source, folder, layout.variant)
        return None

    def load(self, may_download: bool) -> ImageData:
        if place := locate(self.layouts):
            source, layout, folder = place
            return ImageData(self.name, source, layout.variant, self.classes, self.peak, *layout.read(folder))
        if not may_download:
            raise self._nowhere("the download was not allowed")
        if self.remote is None:
            raise self._nowhere("it cannot be downloaded")
        try:
            fetch(self.remote, cache_root() / self.name)
        except DataError as error:
            raise self._nowhere(error.came) from error
        place = locate(self.layouts)
        if place is None:
            raise self._nowhere("what was downloaded makes up none of its layouts")
        _, layout, folder = place
        return ImageData(self.name, "download", layout.variant, self.classes, self.peak, *layout.read(folder))

    def _nowhere(self, download_failure: str) -> DataError:
        wanted = "; or ".join(
            f"{', '.join(layout.files)} in {' or '.join(layout.folders)}" for layout in self.layouts
        )
        return DataError(
            "; ".join(
                [f"data set {self.name!r} is not on this machine", *nearly(self.layouts), download_failure]
            ),
            f"below the folder that TENFOLD_DATA names or below {cache_root()}: {wanted}",
            f"Set TENFOLD_DATA to such a folder, let the download fill {cache_root() / self.name}, "
            f"or load the embedded stand-in {self.stand_in!r}.",
        )
