"""Polygons against a point-in-polygon test, run lengths against loops and against COCO's own code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slr_prune._masks import decode_run_lengths, polygon_mask, resize_nearest, run_length_mask

MASKS = st.integers(1, 9).flatmap(
    lambda height: st.integers(1, 9).flatmap(
        lambda width: st.lists(st.booleans(), min_size=height * width, max_size=height * width).map(
            lambda bits: np.array(bits).reshape(height, width)
        )
    )
)
COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=12)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's run lengths, counted pixel by pixel down the columns."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def compress(counts: list[int]) -> str:
    """COCO's compressed form, written from its description."""
    text = ""
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = rest & 31
            rest >>= 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


@given(MASKS)
def test_run_lengths_give_the_mask_back(mask: np.ndarray) -> None:
    assert np.array_equal(run_length_mask(run_lengths(mask), *mask.shape), mask)


@given(COUNTS)
def test_compressed_run_lengths_give_the_lengths_back(counts: list[int]) -> None:
    assert decode_run_lengths(compress(counts)) == counts


@given(MASKS)
def test_run_lengths_are_those_of_cocos_code(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(run_length_mask(decode_run_lengths(encoded), *mask.shape), mask)


@pytest.mark.parametrize("counts", [[3], [3, 2], [-1, 5], [[4]], [1, 2, 2]])
def test_run_lengths_that_do_not_fit_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        run_length_mask(counts, 2, 2)


@pytest.mark.parametrize(
    ("text", "message"), [("a", "break off"), ("1 2", "character ' '"), ("é", "character")]
)
def test_garbled_compressed_run_lengths_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_run_lengths(text)


def inside(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Even-odd rule with a ray to the left, edge by edge."""
    crossings = 0
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y1 <= y) != (y2 <= y):
            crossings += x1 + (y - y1) / (y2 - y1) * (x2 - x1) <= x
    return crossings % 2 == 1


@given(st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=8))
def test_polygons_are_the_pixels_whose_centres_they_hold(corners: list[tuple[float, float]]) -> None:
    x, y = np.array(corners).T
    mask = polygon_mask(x, y, 8, 10)
    expected = [[inside(column + 0.5, row + 0.5, corners) for column in range(10)] for row in range(8)]
    crossed = np.array(expected) != mask
    assert not crossed.any()


def test_a_rectangle_is_its_pixels() -> None:
    mask = polygon_mask(np.array([2.0, 5, 5, 2]), np.array([1.0, 1, 4, 4]), 6, 7)
    expected = np.zeros((6, 7), bool)
    expected[1:4, 2:5] = True
    assert np.array_equal(mask, expected)


@given(MASKS, st.integers(1, 12), st.integers(1, 12))
def test_resizing_samples_at_the_new_centres(mask: np.ndarray, height: int, width: int) -> None:
    small = resize_nearest(mask, height, width)
    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) * mask.shape[0] / height, (column + 0.5) * mask.shape[1] / width
            if y % 1 and x % 1:
                assert small[row, column] == mask[int(y), int(x)]
    assert np.array_equal(resize_nearest(mask, *mask.shape), mask)
