import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tenfold
from tenfold import data
from tenfold.data import _cifar10, _mnist
from tenfold.data._idx import read_idx
from tenfold.data._jpeg_npz import read_jpeg_npz
from tenfold.data._order import hashed_order

RNG = np.random.default_rng(5)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty TENFOLD_DATA, for sets that are a thousand times smaller than the published ones."""
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module, sizes in (
        (_mnist, {"TRAIN": 60, "TEST": 10, "VALIDATION": 5}),
        (_cifar10, {"TRAIN": 50, "TEST": 10, "VALIDATION": 5, "BATCH": 10}),
    ):
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)
    return tmp_path


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    arrays = {
        "train-images-idx3": RNG.integers(0, 256, (60, 28, 28)),
        "train-labels-idx1": np.arange(60) % 10,
        "t10k-images-idx3": RNG.integers(0, 256, (10, 28, 28)),
        "t10k-labels-idx1": np.arange(10)[::-1],
    }
    for name, array in arrays.items():
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx(array.astype(np.uint8))))
    return arrays


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_set(root, name):
    arrays = write_mnist(root / name)
    loaded = data.load(name)
    assert (loaded.source, loaded.variant, loaded.peak) == ("TENFOLD_DATA", "original", 255)
    np.testing.assert_array_equal(loaded.train.images, arrays["train-images-idx3"][:55])
    np.testing.assert_array_equal(loaded.validation.images, arrays["train-images-idx3"][55:])
    np.testing.assert_array_equal(loaded.test.images, arrays["t10k-images-idx3"])
    np.testing.assert_array_equal(loaded.train.labels, arrays["train-labels-idx1"][:55])
    np.testing.assert_array_equal(loaded.validation.labels, arrays["train-labels-idx1"][55:])
    np.testing.assert_array_equal(loaded.test.labels, arrays["t10k-labels-idx1"])
    assert loaded.train.labels.dtype == np.int64
    assert loaded.train.images.flags.writeable


LABELS = np.arange(60, dtype=np.uint8) % 10
IDX = idx(LABELS)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (gzip.compress(IDX)[:-10], "cannot be decompressed"),
        (gzip.compress(IDX)[:15], "cannot be decompressed"),
        (IDX, "cannot be decompressed"),
        (b"", "begins with nothing"),
        (gzip.compress(IDX) + b"more", "cannot be decompressed"),
        (gzip.compress(IDX)[:-8] + bytes(4) + gzip.compress(IDX)[-4:], "cannot be decompressed"),
        (
            gzip.compress(b"\0\0\x09" + IDX[3:]),
            r"begins with 00000901; expected the IDX magic number 00000801",
        ),
        (gzip.compress(idx(LABELS.reshape(6, 10))), "begins with 00000802"),
        (gzip.compress(IDX[:6]), "ends inside its header, after 6 bytes"),
        (gzip.compress(idx(LABELS[:59])), r"announces dimensions \(59,\); expected dimensions \(60,\)"),
        (gzip.compress(IDX[:-1]), "holds 59 bytes after its header; expected 60 bytes"),
        (gzip.compress(IDX + b"\0"), "holds 61 bytes after its header"),
        (gzip.compress(IDX[:-1] + b"\x0a"), "label 10 at position 59 .* labels from 0 to 9"),
    ],
    ids=[
        "gzip cut by a little",
        "gzip cut by half",
        "not gzipped",
        "empty",
        "bytes after the gzip",
        "wrong gzip checksum",
        "wrong type",
        "wrong rank",
        "header cut",
        "wrong count",
        "payload short",
        "payload long",
        "label out of range",
    ],
)
def test_corrupt_idx(root, content, complaint):
    write_mnist(root / "mnist")
    (root / "mnist/train-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(
        tenfold.DataError,
        match=rf"mnist/train-labels-idx1-ubyte\.gz.*{complaint}.*Replace it by the published",
    ):
        data.load("mnist")


def test_a_small_set_is_not_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    write_mnist(tmp_path / "mnist")
    with pytest.raises(tenfold.DataError, match=r"dimensions \(60, 28, 28\); expected .*\(60000, 28, 28\)"):
        data.load("mnist")


def test_unreadable_idx(tmp_path):
    with pytest.raises(tenfold.DataError, match=r"none\.gz cannot be decompressed"):
        read_idx(tmp_path / "none.gz", (1,))


BATCHES = [*(f"data_batch_{batch}.bin" for batch in range(1, 6)), "test_batch.bin"]


def cifar() -> tuple[np.ndarray, np.ndarray]:
    return RNG.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8), RNG.integers(0, 10, 60).astype(np.uint8)


def write_batches(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(BATCHES):
        rows = slice(10 * number, 10 * number + 10)
        # A record is the label, then the red, the green and the blue plane, row by row.
        records = [
            bytes([label]) + image[..., 0].tobytes() + image[..., 1].tobytes() + image[..., 2].tobytes()
            for image, label in zip(images[rows], labels[rows], strict=True)
        ]
        (folder / name).write_bytes(b"".join(records))


def write_archive(path: Path, batches: Path, names: list[str]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(batches, "cifar-10-batches-bin", recursive=False)
        for name in names:
            archive.add(batches / name, f"cifar-10-batches-bin/{name}")


@pytest.fixture
def archive(root):
    images, labels = cifar()
    write_batches(root / "batches", images, labels)
    (root / "cifar10").mkdir()
    write_archive(root / "cifar10/cifar-10-binary.tar.gz", root / "batches", BATCHES[::-1])
    return root / "cifar10/cifar-10-binary.tar.gz"


def check_cifar(images: np.ndarray, labels: np.ndarray) -> None:
    loaded = data.load("cifar10")
    assert loaded.variant == "original"
    assert loaded.classes[3] == "cat"
    for split, rows in (
        (loaded.train, slice(45)),
        (loaded.validation, slice(45, 50)),
        (loaded.test, slice(50, 60)),
    ):
        np.testing.assert_array_equal(split.images, images[rows])
        np.testing.assert_array_equal(split.labels, labels[rows])


def test_cifar_batches(root):
    images, labels = cifar()
    write_batches(root / "cifar10/cifar-10-batches-bin", images, labels)
    check_cifar(images, labels)


def test_cifar_archive_in_any_member_order(root):
    images, labels = cifar()
    write_batches(root / "batches", images, labels)
    (root / "images/cifar10").mkdir(parents=True)
    write_archive(root / "images/cifar10/cifar-10-binary.tar.gz", root / "batches", BATCHES[::-1])
    check_cifar(images, labels)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda content: content[:-1], "holds 30729 bytes; expected 10 records of 3073 bytes"),
        (lambda content: content + b"\0", "holds 30731 bytes"),
        (lambda content: b"\x0a" + content[1:], "label 10 at position 0"),
    ],
    ids=["short", "long", "label"],
)
def test_corrupt_batch(root, change, complaint):
    write_batches(root / "cifar10/cifar-10-batches-bin", *cifar())
    path = root / "cifar10/cifar-10-batches-bin/data_batch_4.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(tenfold.DataError, match=rf"data_batch_4\.bin.*{complaint}"):
        data.load("cifar10")


@pytest.mark.parametrize("kept", [0, 5, 100, 0.3, 0.9, -1, -8, -12])
def test_archive_cut_short(archive, kept):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(tenfold.DataError, match=r"cifar-10-binary\.tar\.gz.*(cannot be unpacked|lacks)"):
        data.load("cifar10")


def test_archive_with_a_cut_tar_inside(archive):
    content = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(content[: len(content) // 2]))
    with pytest.raises(tenfold.DataError, match=r"cifar-10-binary\.tar\.gz cannot be unpacked"):
        data.load("cifar10")


def test_archive_lacks_a_batch(root, archive):
    write_archive(archive, root / "batches", BATCHES[1:])
    with pytest.raises(tenfold.DataError, match=r"lacks cifar-10-batches-bin/data_batch_1\.bin"):
        data.load("cifar10")


def test_archive_with_a_short_batch(root, archive):
    (root / "batches/test_batch.bin").write_bytes(b"\1" * 3073)
    write_archive(archive, root / "batches", BATCHES)
    with pytest.raises(tenfold.DataError, match=r"test_batch\.bin holds 3073 bytes"):
        data.load("cifar10")


def jpeg(colour: tuple[int, int, int], mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def jpeg_arrays(count: int, blue: int) -> dict[str, np.ndarray]:
    """Images sorted by class, each of one colour that tells its position."""
    images = [jpeg((4 * index, 128, blue)) for index in range(count)]
    return arrays_of(images, np.arange(count) * 10 // count)


def arrays_of(images: list[bytes], labels: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "jpeg_bytes": np.frombuffer(b"".join(images), np.uint8),
        "offsets": np.cumsum([0, *map(len, images)]),
        "labels": labels.astype(np.uint8),
        "class_names": np.array(_cifar10.CLASSES),
    }


def test_jpeg_set_is_shuffled_and_says_so(root):
    folder = root / "images/cifar10_jpeg"
    folder.mkdir(parents=True)
    np.savez(folder / "cifar10_train_jpeg.npz", **jpeg_arrays(50, 0))
    np.savez(folder / "cifar10_test_jpeg.npz", **jpeg_arrays(10, 255))
    loaded = data.load("cifar10")
    assert loaded.variant == "jpeg"

    train_order = hashed_order("tenfold/cifar10-jpeg/train", 50)
    test_order = hashed_order("tenfold/cifar10-jpeg/test", 10)
    for split, order, count, blue in (
        (loaded.train, train_order[:45], 50, 0),
        (loaded.validation, train_order[45:], 50, 0),
        (loaded.test, test_order, 10, 255),
    ):
        assert split.labels.tolist() == (order * 10 // count).tolist()
        colours = split.images.mean(axis=(1, 2))
        np.testing.assert_allclose(colours[:, 0], 4 * order, atol=3)
        np.testing.assert_allclose(colours[:, 2], blue, atol=3)


def corrupted(**changes: object) -> dict[str, np.ndarray]:
    arrays = jpeg_arrays(10, 0)
    for key, change in changes.items():
        arrays[key] = change(arrays[key].copy())
    return arrays


def at(index: int, value: int):
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


def with_image(image: bytes) -> dict[str, np.ndarray]:
    return arrays_of([*(jpeg((0, 0, 0)) for _ in range(9)), image], np.arange(10))


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        (corrupted(offsets=at(0, 1)), "offsets from 1"),
        (corrupted(offsets=at(-1, 9)), "offsets from 0 to 9 that do not divide it"),
        (corrupted(offsets=at(4, 0)), "do not divide"),
        (corrupted(offsets=at(4, 2**62)), "do not divide"),
        (corrupted(offsets=lambda a: a[:-1]), r"offsets of shape \(10,\)"),
        (corrupted(offsets=lambda a: a.astype(float)), "float64 offsets"),
        (corrupted(jpeg_bytes=lambda a: a[:-1]), "do not divide"),
        (corrupted(labels=at(2, 10)), "label 10 at position 2"),
        (corrupted(labels=lambda a: a[:-1]), r"labels of shape \(9,\); expected 10 bytes"),
        (corrupted(labels=lambda a: a.astype(float)), "float64 labels"),
        (corrupted(class_names=lambda a: a[::-1]), "has classes truck"),
        (corrupted(labels=lambda a: a.astype(object)), "cannot be read .*allow_pickle"),
        (with_image(jpeg((0, 0, 0))[:-40]), "undecodable image 9"),
        (with_image(b"no JPEG"), "undecodable image 9"),
        (with_image(jpeg((0, 0, 0), mode="L")), "image 9 of mode L"),
        (with_image(jpeg((0, 0, 0), size=(32, 31))), r"image 9 of mode RGB and size \(32, 31\)"),
        *(
            ({key: value for key, value in jpeg_arrays(10, 0).items() if key != lacking}, f"lacks {lacking}")
            for lacking in jpeg_arrays(1, 0)
        ),
    ],
)
def test_corrupt_jpeg_npz(tmp_path, arrays, complaint):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(tenfold.DataError, match=rf"set\.npz.*{complaint}"):
        read_jpeg_npz(tmp_path / "set.npz", 10, _cifar10.CLASSES)


@pytest.mark.parametrize("kept", [0, 3, 50, 0.5, 0.95, -1])
def test_npz_cut_short(tmp_path, kept):
    path = tmp_path / "set.npz"
    np.savez(path, **jpeg_arrays(10, 0))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(tenfold.DataError, match=r"set\.npz cannot be read"):
        read_jpeg_npz(path, 10, _cifar10.CLASSES)


def test_npz_with_flipped_bytes(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, **jpeg_arrays(10, 0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(tenfold.DataError, match=r"set\.npz"):
        read_jpeg_npz(path, 10, _cifar10.CLASSES)


def test_npy_is_not_npz(tmp_path):
    np.save(tmp_path / "set.npy", np.zeros(3))
    (tmp_path / "set.npy").rename(tmp_path / "set.npz")
    with pytest.raises(tenfold.DataError, match=r"set\.npz cannot be read"):
        read_jpeg_npz(tmp_path / "set.npz", 10, _cifar10.CLASSES)
