"""The published sets themselves, where TENFOLD_DATA or the cache has them."""

import hashlib

import numpy as np
import pytest

from tenfold import data


@pytest.fixture
def real(request):
    name = request.param
    if not data.find(name):
        pytest.skip(f"{name} is neither in TENFOLD_DATA nor in the cache")
    return data.load(name, download=False)


@pytest.mark.parametrize(
    ("real", "md5"),
    [
        # MD5 of the pixels, the train part and then the test part, of files whose whole content has the
        # MD5 sums of the published files once decompressed.
        ("mnist", ("6510e85a72c3e9475c492d559d3770d2", "240610fa99e73bfa49df8e7fc24d3206")),
        ("fashion-mnist", ("f209073e486d5113ebe2cc431d4df862", "b7656a891b218fc13e45205c48a92cae")),
    ],
    indirect=["real"],
)
def test_idx_sets(real, md5):
    assert list(map(len, (real.train, real.validation, real.test))) == [55_000, 5_000, 10_000]
    train = hashlib.md5(real.train.images, usedforsecurity=False)
    train.update(real.validation.images)
    assert (train.hexdigest(), hashlib.md5(real.test.images, usedforsecurity=False).hexdigest()) == md5
    labels = np.concatenate([real.train.labels, real.validation.labels])
    if real.name == "fashion-mnist":
        assert (np.bincount(labels) == 6_000).all()
    else:
        # Class counts of MNIST's training part.
        assert np.bincount(labels).tolist() == [
            5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
        ]  # fmt: skip


@pytest.mark.parametrize("real", ["mnist"], indirect=True)
def test_mnist_5k_is_of_the_training_part(real):
    small = data.load("mnist-5k")
    published = {
        image.tobytes(): label
        for split in (real.train, real.validation)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    unseen = {image.tobytes() for image in real.test.images}
    for split in (small.train, small.validation, small.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert published[image.tobytes()] == label
            assert image.tobytes() not in unseen


@pytest.mark.parametrize("real", ["cifar10"], indirect=True)
def test_cifar10(real):
    assert list(map(len, (real.train, real.validation, real.test))) == [45_000, 5_000, 10_000]
    assert real.train.images.shape[1:] == (32, 32, 3)
    assert real.variant in ("original", "jpeg")
    counts = np.bincount(real.train.labels) + np.bincount(real.validation.labels)
    assert (counts == 5_000).all()
    assert (np.bincount(real.test.labels) == 1_000).all()
    # The commonly quoted statistics of the training part; recompression moves them a little.
    mean, deviation = data.channel_statistics(real.train)
    np.testing.assert_allclose(mean, [125.3, 123.0, 113.9], atol=0.6)
    np.testing.assert_allclose(deviation, [63.0, 62.1, 66.7], atol=1.5)
    # Shuffled: a prefix holds every class.
    assert len(set(real.train.labels[:100].tolist())) == 10
    assert len(set(real.test.labels[:100].tolist())) == 10
