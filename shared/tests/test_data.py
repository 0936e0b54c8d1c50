import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tenfold
from tenfold import data
from tenfold.data import Found, Layout, Split, _registry
from tenfold.data._locate import cache_root


def constant(value: int, n: int = 6) -> Split:
    return Split(np.full((n, 2, 2), value, np.uint8), np.zeros(n, np.int64))


def read_byte(folder: Path) -> data.Splits:
    split = constant((folder / "byte").read_bytes()[0])
    return split, split, split


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine with an empty TENFOLD_DATA and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "sets").mkdir()
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "sets"))
    monkeypatch.setattr(_registry, "_SETS", dict(_registry._SETS))
    return tmp_path / "sets"


def put(folder: Path, *names: str, content: bytes = b"\0") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


MNIST_FILES = [
    f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]


def test_import_is_cheap():
    heavy = ("torch", "sklearn", "mlxtend", "pooch", "PIL", "pandas", "requests", "scipy")
    code = f"import sys, tenfold.data; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_unknown_name():
    for ask in (data.load, data.find):
        with pytest.raises(tenfold.UnknownNameError, match=r"data set.*'minst'.*Did you mean 'mnist'"):
            ask("minst")


def test_missing_set_is_an_error_that_says_what_to_do(root):
    with pytest.raises(tenfold.DataError) as caught:
        data.load("mnist", download=False)
    message = str(caught.value)
    for part in ("TENFOLD_DATA", "images/mnist", str(cache_root() / "mnist"), "'mnist-5k'", *MNIST_FILES):
        assert part in message


def test_missing_file_is_named(root):
    put(root / "images/mnist", *MNIST_FILES[:3])
    assert data.find("mnist") is None
    with pytest.raises(tenfold.DataError, match=rf"images/mnist lacks {MNIST_FILES[3]};"):
        data.load("mnist", download=False)


@pytest.mark.parametrize("set_to_file", [False, True])
def test_tenfold_data_that_is_no_folder(root, monkeypatch, set_to_file):
    if set_to_file:
        (root / "gone").touch()
    monkeypatch.setenv("TENFOLD_DATA", str(root / "gone"))
    for ask in (data.load, data.find):
        with pytest.raises(tenfold.SettingError, match=r"TENFOLD_DATA is '.*gone'"):
            ask("mnist")


@pytest.mark.parametrize(
    ("name", "folder", "files", "variant"),
    [
        ("mnist", "mnist", MNIST_FILES, "original"),
        ("mnist", "images/mnist", MNIST_FILES, "original"),
        ("fashion-mnist", "fashion-mnist", MNIST_FILES, "original"),
        ("fashion-mnist", "images/fashion_mnist", MNIST_FILES, "original"),
        ("cifar10", "cifar10", ["cifar-10-binary.tar.gz"], "original"),
        (
            "cifar10",
            "images/cifar10",
            [
                *(f"cifar-10-batches-bin/data_batch_{b}.bin" for b in range(1, 6)),
                "cifar-10-batches-bin/test_batch.bin",
            ],
            "original",
        ),
        ("cifar10", "cifar10", ["cifar10_train_jpeg.npz", "cifar10_test_jpeg.npz"], "jpeg"),
        ("cifar10", "images/cifar10_jpeg", ["cifar10_train_jpeg.npz", "cifar10_test_jpeg.npz"], "jpeg"),
    ],
)
@pytest.mark.parametrize("source", ["TENFOLD_DATA", "cache"])
def test_layouts_found(root, name, folder, files, variant, source):
    top = root if source == "TENFOLD_DATA" else cache_root()
    put(top / folder, *files)
    assert data.find(name) == Found(source, top / folder, variant)
    assert data.available()[name] == data.find(name)
    (top / folder / files[-1]).unlink()
    assert data.find(name) is None
    assert name not in data.available()


def test_original_preferred_to_jpeg(root):
    put(root / "images/cifar10_jpeg", "cifar10_train_jpeg.npz", "cifar10_test_jpeg.npz")
    put(root / "images/cifar10", "cifar-10-binary.tar.gz")
    assert data.find("cifar10").variant == "original"


def test_search_order(root, monkeypatch):
    data.register_files(
        "byte",
        classes=("only",),
        layouts=(Layout("original", ("byte",), ("byte",), read_byte),),
        stand_in="digits",
    )
    with pytest.raises(tenfold.DataError, match=r"cannot be downloaded.*'digits'"):
        data.load("byte")
    put(cache_root() / "byte", "byte", content=b"\1")
    loaded = data.load("byte")
    assert (loaded.source, loaded.train.images[0, 0, 0]) == ("cache", 1)
    put(root / "byte", "byte", content=b"\2")
    loaded = data.load("byte")
    assert (loaded.source, loaded.train.images[0, 0, 0]) == ("TENFOLD_DATA", 2)
    monkeypatch.setenv("TENFOLD_DATA", "")
    assert data.load("byte").source == "cache"


def test_embedded_are_always_available(root):
    assert data.available() == {
        "digits": Found("embedded", None, "original"),
        "mnist-5k": Found("embedded", None, "subset"),
    }


def test_register(root):
    @data.register("ones", classes=("one",), variant="original", peak=1)
    def ones() -> data.Splits:
        return constant(1, 3), constant(1, 2), constant(1, 1)

    assert callable(ones)
    loaded = data.load("ones", download=False)
    assert (loaded.name, loaded.source, loaded.variant, loaded.classes, loaded.peak) == (
        "ones",
        "embedded",
        "original",
        ("one",),
        1,
    )
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (3, 2, 1)
    with pytest.raises(tenfold.SettingError, match="'ones' is registered already"):
        data.register("ones", classes=("one",), variant="original")(ones)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4), np.float32), np.zeros(2, np.int64)),
        (np.zeros((2, 16), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.uint8)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros((2, 1), np.int64)),
    ],
)
def test_split_refuses_other_shapes_and_dtypes(images, labels):
    with pytest.raises(tenfold.SettingError, match=r"uint8|int64"):
        Split(images, labels)


def test_take_keeps_images_with_their_labels():
    split = Split(np.arange(5, dtype=np.uint8).repeat(4).reshape(5, 2, 2), np.arange(5))
    taken = split.take(np.array([3, 0]))
    assert taken.images[:, 0, 0].tolist() == taken.labels.tolist() == [3, 0]
    assert split.take(slice(1, 3)).labels.tolist() == [1, 2]
