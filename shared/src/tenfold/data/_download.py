"""Checksummed downloads from the first mirror that has the right bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import DataError


@dataclass(frozen=True)
class Remote:
    """The published files of a data set.

    Parameters
    ----------
    mirrors : tuple of str
        Base addresses, each ending in a slash, tried in this order for each file.
    sha256 : mapping of str to str
        File name to the checksum of the published file.
    """

    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]


def fetch(remote: Remote, folder: Path) -> None:
    """Bring every file of `remote` into `folder`.

    A file gets its name only once its checksum is right: until then its bytes are in a
    temporary file, so that a download cut short is never taken for the data set. A file
    that is already there and right is not fetched again.

    Parameters
    ----------
    remote : Remote
        What to fetch.
    folder : pathlib.Path
        Where to; made if missing.

    Raises
    ------
    tenfold.DataError
        If no mirror gives a file with the right checksum, or `folder` cannot be written.
    """
    for name, digest in remote.sha256.items():
        _fetch_file(remote.mirrors, name, digest, folder)


def _fetch_file(mirrors: tuple[str, ...], name: str, digest: str, folder: Path) -> None:
    import pooch

    # Without this a server may unpack a .gz on the way, and its checksum would not fit.
    downloader = pooch.HTTPDownloader(headers={"Accept-Encoding": "identity"}, timeout=30)
    failures = []
    for mirror in mirrors:
        try:
            pooch.retrieve(mirror + name, f"sha256:{digest}", name, folder, downloader=downloader)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong checksum a ValueError
            failures.append(f"{mirror}{name}: {error}")
        else:
            return
    raise DataError(
        f"{name} could not be downloaded into {folder} ({'; '.join(failures)})",
        f"a file with SHA-256 {digest} from one of {len(mirrors)} mirrors",
        f"Check the network, or put {name} into {folder} by hand.",
    )
