"""Rotated boxes and corners against closed forms, sampling and differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mot_cup import RotatedDetections
from mot_cup._boxes import to_space
from mot_cup._rotated import (
    bounding_boxes,
    bounding_jacobian,
    corners_covariance,
    corners_jacobian,
    from_corners,
    rectangle_corners,
    resolve_flips,
    rotated_iou,
    to_corners,
    wrap,
)
from tenfold import DataError

Box = list[float]
places = st.floats(-50, 50)
sizes = st.floats(0.5, 20)
turns = st.floats(-7, 7)
boxes = st.tuples(places, places, sizes, sizes, turns).map(list)
uprights = st.tuples(places, places, places, sizes, sizes, sizes, turns).map(list)
BOXES = np.array([[1.0, 2.0, 2.0, 4.5, 0.3], [-3.0, 5.0, 1.8, 4.0, -2.0], [0.0, 0.0, 3.0, 1.0, 1.9]])
UPRIGHTS = np.array([[1.0, 2.0, 3.0, 2.0, 4.5, 1.5, 0.3], [-3.0, 5.0, 0.0, 1.8, 4.0, 1.4, -2.0]])


@settings(deadline=None)
@given(box=boxes)
def test_a_box_covers_itself_and_its_own_half_turn(box: Box) -> None:
    turned = [*box[:4], box[4] + np.pi]
    assert rotated_iou([box], [box, turned])[0] == pytest.approx([1, 1], abs=1e-9)


@settings(deadline=None)
@given(first=boxes, second=boxes, turn=turns, shift=st.tuples(places, places))
def test_the_overlap_is_symmetric_and_moves_with_the_plane(
    first: Box, second: Box, turn: float, shift: tuple[float, float]
) -> None:
    second[:2] = [first[0] + second[0] / 10, first[1] + second[1] / 10]
    pair = np.array([first, second])
    moved = pair.copy()
    c, s = np.cos(turn), np.sin(turn)
    moved[:, :2] = pair[:, :2] @ np.array([[c, s], [-s, c]]) + shift
    moved[:, 4] += turn
    overlap = rotated_iou(pair[:1], pair[1:])[0, 0]
    assert 0 <= overlap <= 1
    assert rotated_iou(pair[1:], pair[:1])[0, 0] == pytest.approx(overlap, abs=1e-9)
    assert rotated_iou(moved[:1], moved[1:])[0, 0] == pytest.approx(overlap, abs=1e-9)


@settings(deadline=None)
@given(x=st.floats(-5, 5), y=st.floats(-5, 5), w=sizes, length=sizes)
def test_without_turns_it_is_the_overlap_of_axis_aligned_boxes(
    x: float, y: float, w: float, length: float
) -> None:
    first = np.array([0.0, 0.0, 2.0, 4.0, 0.0])
    second = np.array([x, y, w, length, 0.0])
    (a,), (b,) = bounding_boxes(first[None]), bounding_boxes(second[None])
    common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    expected = common / (8 + w * length - common)
    assert rotated_iou([first], [second])[0, 0] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(side=sizes, turn=st.floats(0, np.pi / 2))
def test_a_square_turned_about_its_centre(side: float, turn: float) -> None:
    common = side**2 * 2 / (1 + abs(np.sin(turn)) + abs(np.cos(turn)))
    expected = common / (2 * side**2 - common)
    found = rotated_iou([[3, 4, side, side, 0.2]], [[3, 4, side, side, 0.2 + turn]])
    assert found[0, 0] == pytest.approx(expected, abs=1e-9)


def test_overlaps_are_those_of_points_thrown_at_the_boxes() -> None:
    generator = np.random.default_rng(0)
    first = np.column_stack([generator.uniform(-2, 2, (6, 2)), generator.uniform(1, 5, (6, 2)), np.arange(6)])
    second = np.column_stack(
        [generator.uniform(-2, 2, (6, 2)), generator.uniform(1, 5, (6, 2)), generator.normal(size=6)]
    )
    points = generator.uniform(-6, 6, (200_000, 2))
    inside_first, inside_second = _inside(points, first), _inside(points, second)
    common = (inside_first[:, None] & inside_second[None]).sum(2)
    union = (inside_first[:, None] | inside_second[None]).sum(2)
    np.testing.assert_allclose(rotated_iou(first, second), common / union, atol=0.01)


def test_far_boxes_do_not_meet_and_touching_ones_have_no_overlap() -> None:
    found = rotated_iou([[0, 0, 2, 4, 0]], [[100, 0, 2, 4, 0], [4, 0, 2, 4, 0], [0, 2, 2, 4, 0]])
    assert found.tolist() == [[0, 0, 0]]
    assert rotated_iou([], [[0, 0, 1, 1, 0]]).shape == (0, 1)


def test_a_small_overlap_far_from_the_origin_keeps_its_digits() -> None:
    near = rotated_iou([[0, 0, 2, 4, 0.3]], [[3.9, 0.5, 2, 4, 0.3]])
    far = rotated_iou([[1e6, 1e6, 2, 4, 0.3]], [[1e6 + 3.9, 1e6 + 0.5, 2, 4, 0.3]])
    assert near[0, 0] > 0
    np.testing.assert_allclose(far, near, atol=1e-8)


@settings(deadline=None)
@given(angle=st.floats(-50, 50), reference=turns)
def test_headings_wrap_and_flips_end_within_a_quarter_turn(angle: float, reference: float) -> None:
    wrapped = wrap(angle)
    assert -np.pi <= wrapped < np.pi
    assert np.cos(wrapped - angle) == pytest.approx(1)
    resolved = resolve_flips(angle, reference)
    assert np.abs(wrap(resolved - reference)) <= np.pi / 2 + 1e-9
    assert np.abs(np.sin(resolved - angle)) == pytest.approx(0, abs=1e-9)


def test_a_bounding_box_holds_all_corners_tightly() -> None:
    corners = rectangle_corners(BOXES)
    found = bounding_boxes(BOXES)
    np.testing.assert_allclose(found, np.hstack([corners.min(1), corners.max(1)]), atol=1e-12)


def test_the_bounding_jacobian_is_that_of_differences() -> None:
    step = 1e-6

    for column in range(5):
        moved = step * np.eye(5)[column]
        ends = [to_space(bounding_boxes(BOXES + way * moved), "xywh") for way in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(bounding_jacobian(BOXES)[:, :, column], slope, atol=1e-6)


def test_an_axis_aligned_covariance_is_that_of_many_turned_boxes() -> None:
    generator = np.random.default_rng(1)
    root = 0.01 * np.tril(generator.normal(size=(5, 5)))
    detections = RotatedDetections(BOXES[:1], covariance=(root @ root.T)[None])
    draws = RotatedDetections(BOXES[0] + generator.normal(size=(100_000, 5)) @ root.T).axis_aligned()
    centred = np.hstack(
        [(draws.boxes[:, :2] + draws.boxes[:, 2:]) / 2, draws.boxes[:, 2:] - draws.boxes[:, :2]]
    )
    found = detections.axis_aligned().covariance
    assert found is not None
    sampled = np.cov(centred.T)
    np.testing.assert_allclose(found.matrices[0], sampled, atol=0.02 * np.abs(sampled).max())


@settings(deadline=None)
@given(box=uprights)
def test_eight_corners_give_their_box_back(box: Box) -> None:
    back = from_corners(to_corners([box]))[0]
    np.testing.assert_allclose(back[:6], box[:6], atol=1e-7)
    # Of a square base the heading is found as well: the corners are in order.
    assert np.cos(back[6] - box[6]) == pytest.approx(1)


def test_the_corners_jacobian_is_that_of_differences() -> None:
    step = 1e-6
    for column in range(7):
        moved = step * np.eye(7)[column]
        slope = (to_corners(UPRIGHTS + moved) - to_corners(UPRIGHTS - moved)) / (2 * step)
        np.testing.assert_allclose(corners_jacobian(UPRIGHTS)[..., column], slope, atol=1e-6)


def test_no_box_near_by_fits_noisy_corners_better() -> None:
    generator = np.random.default_rng(2)
    corners = to_corners(UPRIGHTS) + 0.3 * generator.normal(size=(2, 8, 3))
    fitted = from_corners(corners)
    least = ((to_corners(fitted) - corners) ** 2).sum((1, 2))
    for scale in (1e-1, 1e-3):
        for _ in range(200):
            other = fitted + scale * generator.normal(size=fitted.shape)
            assert (((to_corners(other) - corners) ** 2).sum((1, 2)) > least).all()


def test_the_covariance_of_fitted_boxes_is_that_of_many_fits() -> None:
    generator = np.random.default_rng(3)
    root = 0.01 * generator.normal(size=(24, 24))
    noise = (generator.normal(size=(50_000, 24)) @ root.T).reshape(-1, 8, 3)
    fits = from_corners(to_corners(UPRIGHTS[:1]) + noise)
    found = corners_covariance(UPRIGHTS[:1], (root @ root.T)[None])[0]
    sampled = np.cov(fits.T)
    np.testing.assert_allclose(found, sampled, atol=0.03 * np.abs(sampled).max())


def test_corners_in_space_become_rotated_boxes_seen_from_above() -> None:
    generator = np.random.default_rng(4)
    root = 0.01 * generator.normal(size=(2, 24, 24))
    found = RotatedDetections.from_corners(
        to_corners(UPRIGHTS), np.array([0.5, 0.6]), covariance=root @ root.transpose(0, 2, 1), unit="m"
    )
    np.testing.assert_allclose(found.boxes, UPRIGHTS[:, [0, 1, 3, 4, 6]], atol=1e-12)
    assert (found.unit, found.scores.tolist()) == ("m", [0.5, 0.6])
    noise = (generator.normal(size=(20_000, 24)) @ root[0].T).reshape(-1, 8, 3)
    sampled = np.cov(RotatedDetections.from_corners(to_corners(UPRIGHTS[:1]) + noise).boxes.T)
    assert found.covariance is not None
    np.testing.assert_allclose(found.covariance[0], sampled, atol=0.04 * np.abs(sampled).max())
    with pytest.raises(DataError, match="positive sizes"):
        RotatedDetections.from_corners(to_corners(UPRIGHTS)[:, ::-1])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([[0, 0, 0, 1, 0]], "positive sizes"),
        ([[0, 0, 1, 1, np.nan]], "finite"),
        ([[0, 0, 1, 1]], r"shape \(n, 5\)"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(box: list[Box], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rotated_iou(box, BOXES)
    with pytest.raises(DataError, match=message):
        RotatedDetections(np.array(box))


def test_parts_of_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="covariance of shape"):
        RotatedDetections(BOXES, covariance=np.eye(5)[None])
    with pytest.raises(DataError, match="negative eigenvalues"):
        RotatedDetections(BOXES[:1], covariance=-np.eye(5)[None])
    with pytest.raises(DataError, match="scores that are not finite"):
        RotatedDetections(BOXES, np.full(3, np.nan))
    with pytest.raises(DataError, match="eight points"):
        from_corners(np.zeros((1, 4, 2)))
    whole = RotatedDetections(BOXES, np.arange(3.0), covariance=np.tile(np.eye(5), (3, 1, 1)))
    assert whole[[2]].scores.tolist() == [2]
    assert len(RotatedDetections([])) == 0  # type: ignore[arg-type]


def _inside(points: NDArray[np.float64], rectangles: NDArray[np.float64]) -> NDArray[np.bool_]:
    offsets = points - rectangles[:, None, :2]
    c, s = np.cos(rectangles[:, 4, None]), np.sin(rectangles[:, 4, None])
    along, across = offsets[..., 0] * c + offsets[..., 1] * s, offsets[..., 1] * c - offsets[..., 0] * s
    inside: NDArray[np.bool_] = (np.abs(along) <= rectangles[:, 3, None] / 2) & (
        np.abs(across) <= rectangles[:, 2, None] / 2
    )
    return inside
