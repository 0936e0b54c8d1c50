import numpy as np
import pytest

import tenfold
from tenfold import data
from tenfold.data import Split


def split(shape: tuple[int, ...], seed: int = 0) -> Split:
    images = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return Split(images, np.zeros(len(images), np.int64))


@pytest.mark.parametrize("shape", [(2300, 5, 4), (2300, 5, 4, 3), (1, 5, 4)])
def test_statistics_match_numpy(shape):
    made = split(shape)
    planes = made.images.reshape(len(made), 20, -1).astype(np.float64)
    mean, deviation = data.channel_statistics(made)
    np.testing.assert_allclose(mean, planes.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(deviation, planes.std(axis=(0, 1)), rtol=1e-12)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_normalise_matches_the_formula(channels):
    train, test = split((30, 5, 4, *channels)), split((7, 5, 4, *channels), seed=1)
    reference = train.images.reshape(30, 5, 4, -1).transpose(0, 3, 1, 2).astype(np.float64)
    planes = test.images.reshape(7, 5, 4, -1).transpose(0, 3, 1, 2)
    mean = reference.mean(axis=(0, 2, 3), keepdims=True)
    expected = (planes - mean) / reference.std(axis=(0, 2, 3), keepdims=True)

    out = data.normalise(test, train)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out.shape == (7, 3 if channels else 1, 5, 4)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    flat = data.normalise(test, train, layout="flat")
    assert flat.shape == (7, out[0].size)
    np.testing.assert_array_equal(flat, out.reshape(7, -1))


def test_empty_split_converts_to_an_empty_array():
    assert data.normalise(split((0, 5, 4)), split((3, 5, 4))).shape == (0, 1, 5, 4)


def test_refusals():
    grey = split((3, 5, 4))
    with pytest.raises(tenfold.SettingError, match="layout is 'nhwc'"):
        data.normalise(grey, grey, layout="nhwc")
    with pytest.raises(tenfold.SettingError, match=r"\(5, 4\) and those of the reference \(4, 5\)"):
        data.normalise(grey, split((3, 4, 5)))
    with pytest.raises(tenfold.SettingError, match="empty"):
        data.normalise(grey, split((0, 5, 4)))
    with pytest.raises(tenfold.SettingError, match="standard deviations"):
        data.normalise(grey, Split(np.full((3, 5, 4), 7, np.uint8), np.zeros(3, np.int64)))
