"""MNIST and Fashion-MNIST, four gzipped IDX files each.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE, 1998; Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
The original test part is `test`; of the training part, in the original order, the last
5,000 are `validation` and the other 55,000 `train`.
"""

from __future__ import annotations

from pathlib import Path

from tenfold.data._checks import class_indices
from tenfold.data._download import Remote
from tenfold.data._idx import read_idx
from tenfold.data._locate import Layout
from tenfold.data._registry import register_files
from tenfold.data._types import Split, Splits

TRAIN, TEST, VALIDATION = 60_000, 10_000, 5_000

_TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
_TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
_TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
_TEST_LABELS = "t10k-labels-idx1-ubyte.gz"


def read(folder: Path) -> Splits:
    """Read the four files in `folder`.

    Returns
    -------
    train, validation, test : Split
        55,000, 5,000 and 10,000 images of 28 x 28.

    Raises
    ------
    tenfold.DataError
        If a file is corrupt, see `read_idx`, or has a label above 9.
    """
    train = _read_part(folder / _TRAIN_IMAGES, folder / _TRAIN_LABELS, TRAIN)
    test = _read_part(folder / _TEST_IMAGES, folder / _TEST_LABELS, TEST)
    return train.take(slice(TRAIN - VALIDATION)), train.take(slice(TRAIN - VALIDATION, None)), test


def _read_part(images: Path, labels: Path, count: int) -> Split:
    return Split(read_idx(images, (count, 28, 28)), class_indices(labels, read_idx(labels, (count,)), 10))


def _layout(*folders: str) -> Layout:
    files = (_TRAIN_IMAGES, _TRAIN_LABELS, _TEST_IMAGES, _TEST_LABELS)
    return Layout("original", folders, files, read)


# The authors' own page no longer serves the files. Checksums: those of the files that both mirrors
# serve, as TensorFlow Datasets and torchvision (there as MD5) publish them.
register_files(
    "mnist",
    classes=tuple("0123456789"),
    layouts=(_layout("mnist", "images/mnist"),),
    stand_in="mnist-5k",
    remote=Remote(
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        sha256={
            _TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            _TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            _TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            _TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
)

# Mirrors: the authors' bucket, their repository, and the copy that Keras uses. The authors publish
# MD5 sums; these are the SHA-256 sums of the same files.
register_files(
    "fashion-mnist",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    layouts=(_layout("fashion-mnist", "fashion_mnist", "images/fashion_mnist"),),
    stand_in="mnist-5k",
    remote=Remote(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        sha256={
            _TRAIN_IMAGES: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            _TRAIN_LABELS: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            _TEST_IMAGES: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            _TEST_LABELS: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
)
