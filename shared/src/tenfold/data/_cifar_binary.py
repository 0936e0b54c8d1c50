"""CIFAR's binary batches: records of one label byte and three 32 x 32 planes."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tenfold.data._checks import class_indices, corrupt
from tenfold.data._types import Split

_RECORD = 1 + 3 * 32 * 32


def read_batches(folder: Path, names: Sequence[str], records: int) -> Split:
    """Read batch files and join them in the order given.

    Parameters
    ----------
    folder : pathlib.Path
        Folder that the names start from.
    names : sequence of str
        Relative file names.
    records : int
        How many records each file must hold.

    Returns
    -------
    Split
        ``len(names) * records`` colour images.

    Raises
    ------
    tenfold.DataError
        If a file cannot be read, has another size, or a label above 9.
    """
    contents = {}
    for name in names:
        try:
            contents[folder / name] = (folder / name).read_bytes()
        except OSError as error:
            raise corrupt(folder / name, f"cannot be read ({error})", "a readable file") from error
    return _join(contents, records)


def read_archive(path: Path, names: Sequence[str], records: int) -> Split:
    """Read batch files out of a gzipped tar archive, and join them in the order given.

    Parameters
    ----------
    path : pathlib.Path
        The archive.
    names : sequence of str
        Member names.
    records : int
        How many records each member must hold.

    Returns
    -------
    Split
        ``len(names) * records`` colour images.

    Raises
    ------
    tenfold.DataError
        If the archive cannot be decompressed to its end or lacks a member, or a member has
        another size or a label above 9.
    """
    members: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped) as archive:
            # In the order of the archive: going back would decompress it again from the start.
            for member in archive:
                if member.name in names and (stream := archive.extractfile(member)):
                    members[member.name] = stream.read()
            # gzip compares its checksum only at the end of the file, which tarfile does not reach.
            while unzipped.read(1 << 20):
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise corrupt(path, f"cannot be unpacked ({error})", "a complete .tar.gz file") from error
    if lacking := [name for name in names if name not in members]:
        raise corrupt(path, f"lacks {', '.join(lacking)}", f"{len(names)} batches")
    return _join({path / name: members[name] for name in names}, records)


def _join(contents: Mapping[Path, bytes], records: int) -> Split:
    images = np.empty((len(contents) * records, 32, 32, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    for start, (path, content) in zip(range(0, len(images), records), contents.items(), strict=True):
        if len(content) != records * _RECORD:
            raise corrupt(path, f"holds {len(content)} bytes", f"{records} records of {_RECORD} bytes")
        table = np.frombuffer(content, np.uint8).reshape(records, _RECORD)
        labels[start : start + records] = class_indices(path, table[:, 0], 10)
        images[start : start + records] = table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(images, labels)
