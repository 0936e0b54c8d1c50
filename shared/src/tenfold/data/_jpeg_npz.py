"""Images kept as JPEG bytes, one after another, in an npz file.

``jpeg_bytes`` (uint8) holds image i from ``offsets[i]`` to ``offsets[i + 1]`` (n + 1 integers);
``labels`` (n integers) index ``class_names``.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from tenfold.data._checks import class_indices, corrupt
from tenfold.data._types import Split

_KEYS = ("jpeg_bytes", "offsets", "labels", "class_names")


def read_jpeg_npz(path: Path, count: int, classes: Sequence[str]) -> Split:
    """Read and decode one npz file of 32 x 32 colour JPEG images.

    Parameters
    ----------
    path : pathlib.Path
        The npz file.
    count : int
        How many images it must hold.
    classes : sequence of str
        The class names that it must hold, in order.

    Returns
    -------
    Split
        `count` colour images, in the order of the file.

    Raises
    ------
    tenfold.DataError
        If the file is cut short, lacks a key, has other class names, a label out of range or
        offsets that do not divide the bytes, or an image that cannot be decoded or has
        another size.
    """
    arrays = _read_arrays(path)
    names = [str(name) for name in arrays["class_names"]]
    if names != list(classes):
        raise corrupt(path, f"has classes {', '.join(names)}", ", ".join(classes))
    raw, offsets = arrays["labels"], arrays["offsets"]
    if raw.shape != (count,) or raw.dtype != np.uint8:
        raise corrupt(path, f"has {raw.dtype} labels of shape {raw.shape}", f"{count} bytes")
    _check_offsets(path, offsets, count, arrays["jpeg_bytes"])
    labels = class_indices(path, raw, len(classes))
    return Split(_decode(path, arrays["jpeg_bytes"].tobytes(), offsets.tolist()), labels)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, NpzFile):
            raise corrupt(path, "cannot be read (it holds a single array)", "a complete npz file")
        with stored:
            lacking = [key for key in _KEYS if key not in stored]
            arrays = {key: stored[key] for key in _KEYS if key in stored}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise corrupt(path, f"cannot be read ({error})", "a complete npz file") from error
    if lacking:
        raise corrupt(path, f"lacks {', '.join(lacking)}", f"the keys {', '.join(_KEYS)}")
    return arrays


def _check_offsets(path: Path, offsets: NDArray[Any], count: int, content: NDArray[Any]) -> None:
    expected = f"{count + 1} increasing integers from 0 to the {content.size} bytes of jpeg_bytes"
    if offsets.shape != (count + 1,) or offsets.dtype.kind not in "iu":
        raise corrupt(path, f"has {offsets.dtype} offsets of shape {offsets.shape}", expected)
    if offsets[0] != 0 or offsets[-1] != content.size or np.any(offsets[1:] <= offsets[:-1]):
        raise corrupt(path, f"has offsets from {offsets[0]} to {offsets[-1]} that do not divide it", expected)


def _decode(path: Path, content: bytes, offsets: list[int]) -> NDArray[np.uint8]:
    from PIL import Image

    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    for index in range(len(images)):
        try:
            image = Image.open(io.BytesIO(content[offsets[index] : offsets[index + 1]]), formats=("JPEG",))
            found = (image.mode, image.size)
            pixels = image.tobytes() if found == ("RGB", (32, 32)) else b""
        except (OSError, SyntaxError, ValueError) as error:
            raise corrupt(path, f"has an undecodable image {index} ({error})", "JPEG images") from error
        if not pixels:
            raise corrupt(path, f"has image {index} of mode {found[0]} and size {found[1]}", "RGB of 32 x 32")
        images[index] = np.frombuffer(pixels, np.uint8).reshape(32, 32, 3)
    return images
