"""The IDX format of MNIST: a big-endian header, then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data._checks import corrupt

_UBYTE = 0x08


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Parameters
    ----------
    path : pathlib.Path
        The ``.gz`` file.
    shape : tuple of int
        The dimensions that its header must announce.

    Returns
    -------
    numpy.ndarray
        uint8 of that shape.

    Raises
    ------
    tenfold.DataError
        If the file cannot be decompressed, has another magic number or other dimensions,
        or holds fewer or more bytes than announced.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise corrupt(path, f"cannot be decompressed ({error})", "a complete gzip file") from error

    magic = bytes([0, 0, _UBYTE, len(shape)])
    if content[:4] != magic:
        raise corrupt(
            path, f"begins with {content[:4].hex() or 'nothing'}", f"the IDX magic number {magic.hex()}"
        )
    header = struct.Struct(f">4x{len(shape)}I")
    if len(content) < header.size:
        raise corrupt(
            path, f"ends inside its header, after {len(content)} bytes", f"{header.size} bytes of header"
        )
    announced = header.unpack_from(content)
    if announced != shape:
        raise corrupt(path, f"announces dimensions {announced}", f"dimensions {shape}")
    expected = math.prod(shape)
    if len(content) - header.size != expected:
        raise corrupt(
            path,
            f"holds {len(content) - header.size} bytes after its header",
            f"{expected} bytes for {shape}",
        )
    # Through a bytearray, so that the array can be written to and torch takes it without a warning.
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=header.size).reshape(shape)
