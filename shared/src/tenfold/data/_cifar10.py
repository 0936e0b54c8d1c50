"""CIFAR-10, as the published binary batches or as JPEG.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The original test
part is `test`; of the training part the last 5,000 are `validation` and the other 45,000
`train`. The JPEG form is sorted by class: its training and test parts are first put into the
hashed order of the salts ``tenfold/cifar10-jpeg/train`` and ``tenfold/cifar10-jpeg/test``, so its
validation images are not those of the original form.
"""

from __future__ import annotations

from pathlib import Path

from tenfold.data._cifar_binary import read_archive, read_batches
from tenfold.data._download import Remote
from tenfold.data._jpeg_npz import read_jpeg_npz
from tenfold.data._locate import Layout
from tenfold.data._order import hashed_order
from tenfold.data._registry import register_files
from tenfold.data._types import Split, Splits

TRAIN, TEST, VALIDATION, BATCH = 50_000, 10_000, 5_000, 10_000

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_ARCHIVE = "cifar-10-binary.tar.gz"
_BATCHES = (
    *(f"cifar-10-batches-bin/data_batch_{batch}.bin" for batch in range(1, 6)),
    "cifar-10-batches-bin/test_batch.bin",
)
_JPEG_TRAIN = "cifar10_train_jpeg.npz"
_JPEG_TEST = "cifar10_test_jpeg.npz"


def read_original_batches(folder: Path) -> Splits:
    """Read the extracted folder ``cifar-10-batches-bin``.

    Raises
    ------
    tenfold.DataError
        If a batch has another size or a label above 9.
    """
    return _divide(read_batches(folder, _BATCHES, BATCH))


def read_original_archive(folder: Path) -> Splits:
    """Read ``cifar-10-binary.tar.gz`` without unpacking it to disk.

    Raises
    ------
    tenfold.DataError
        If the archive is cut short or lacks a batch, or a batch has another size or a label above 9.
    """
    return _divide(read_archive(folder / _ARCHIVE, _BATCHES, BATCH))


def read_jpeg(folder: Path) -> Splits:
    """Read the two files of JPEG bytes and shuffle them by the fixed order.

    Raises
    ------
    tenfold.DataError
        If a file is corrupt, see `read_jpeg_npz`.
    """
    train = read_jpeg_npz(folder / _JPEG_TRAIN, TRAIN, CLASSES)
    test = read_jpeg_npz(folder / _JPEG_TEST, TEST, CLASSES)
    train = train.take(hashed_order("tenfold/cifar10-jpeg/train", TRAIN))
    return (
        train.take(slice(TRAIN - VALIDATION)),
        train.take(slice(TRAIN - VALIDATION, None)),
        test.take(hashed_order("tenfold/cifar10-jpeg/test", TEST)),
    )


def _divide(whole: Split) -> Splits:
    return (
        whole.take(slice(TRAIN - VALIDATION)),
        whole.take(slice(TRAIN - VALIDATION, TRAIN)),
        whole.take(slice(TRAIN, None)),
    )


# Mirrors: the author's page, and the copy that Swift for TensorFlow's data sets use. The author
# publishes the MD5 sum c32a1d4ab5d03f1284b67883e8d87530; this is the SHA-256 sum of the same file.
register_files(
    "cifar10",
    classes=CLASSES,
    layouts=(
        Layout("original", ("cifar10", "images/cifar10"), _BATCHES, read_original_batches),
        Layout("original", ("cifar10", "images/cifar10"), (_ARCHIVE,), read_original_archive),
        Layout(
            "jpeg", ("cifar10", "cifar10_jpeg", "images/cifar10_jpeg"), (_JPEG_TRAIN, _JPEG_TEST), read_jpeg
        ),
    ),
    stand_in="mnist-5k",
    remote=Remote(
        mirrors=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        ),
        sha256={_ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    ),
)
