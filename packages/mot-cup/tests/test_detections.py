"""Boxes and their covariances in every parametrisation and unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mot_cup import BoxCovariance, Detections, DetectionSequence, Tracks
from mot_cup._boxes import SPACES, Space, from_space, jacobian, to_space
from tenfold import DataError, SettingError, UnknownNameError

BOXES = np.array([[1.0, 2.0, 5.0, 4.0], [-3.0, 0.0, 0.5, 10.0]])
sizes = st.floats(0.5, 100)


@pytest.mark.parametrize("space", SPACES)
@given(x=st.floats(-100, 100), y=st.floats(-100, 100), w=sizes, h=sizes)
def test_a_box_comes_back_from_every_space(space: Space, x: float, y: float, w: float, h: float) -> None:
    box = np.array([[x, y, x + w, y + h]])
    np.testing.assert_allclose(from_space(to_space(box, space), space), box, atol=1e-9)


@pytest.mark.parametrize("space", SPACES)
def test_the_jacobian_is_that_of_differences(space: Space) -> None:
    step = 1e-6
    for column in range(4):
        moved = step * np.eye(4)[column]
        slope = (to_space(BOXES + moved, space) - to_space(BOXES - moved, space)) / (2 * step)
        np.testing.assert_allclose(jacobian(BOXES, space)[:, :, column], slope, atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_a_covariance_is_that_of_many_noisy_boxes(space: Space) -> None:
    generator = np.random.default_rng(0)
    errors = 0.01 * np.array([1.0, 2.0, 3.0, 4.0])
    draws = BOXES[0] + errors * generator.normal(size=(200_000, 4))
    sampled = np.cov(to_space(draws, space).T)
    covariance = BoxCovariance.diagonal([errors**2], "xyxy", "px").to_space(BOXES[:1], space)
    np.testing.assert_allclose(covariance.matrices[0], sampled, rtol=0.02, atol=2e-2 * np.abs(sampled).max())
    back = covariance.to_space(BOXES[:1], "xyxy")
    np.testing.assert_allclose(back.matrices[0], np.diag(errors**2), atol=1e-12)


def test_units_scale_each_coordinate_by_its_power() -> None:
    metres = BoxCovariance.diagonal([[1.0, 1.0, 1.0, 1.0]], "xysr", "m")
    pixels = metres.to_unit("px", 4)
    assert np.diag(pixels.matrices[0]).tolist() == [16.0, 16.0, 256.0, 1.0]
    assert pixels.unit == "px"
    with pytest.raises(SettingError, match="covariance in m of boxes in px"):
        Detections(BOXES[:1], covariance=metres)
    with pytest.raises(SettingError, match="positive"):
        metres.to_unit("px", 0)


def test_rows_of_four_to_six_columns() -> None:
    rows = np.array([[0, 0, 1, 1, 0.5, 3], [0, 0, 2, 2, 0.25, 4]])
    whole = Detections.from_array(rows)
    assert whole.scores.tolist() == [0.5, 0.25]
    assert whole.classes.tolist() == [3, 4]
    assert whole[[1]].boxes.tolist() == [[0, 0, 2, 2]]
    assert Detections.from_array(rows[:, :4]).scores.tolist() == [1, 1]
    assert len(Detections.from_array([])) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 0, 1]], "x1 < x2"),
        ([[0, 0, np.nan, 1]], "finite corners"),
        ([[0, 0, 1, 1, np.nan]], "a number for a score"),
        ([[0, 0, 1, 1, 1, 0.5]], "a whole number for a class"),
        ([[0, 0, 1]], "4 to 6 columns"),
    ],
)
def test_detections_that_make_no_sense_are_refused(rows: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Detections.from_array(rows)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.diag([1.0, 1, 1, -1]), "no negative eigenvalue"),
        (np.eye(4) + np.eye(4, k=1), "symmetric"),
        (np.full((4, 4), np.inf), "finite entries"),
        (np.eye(3), "shape"),
    ],
)
def test_covariances_that_are_none_are_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        BoxCovariance(matrix[None], "xywh", "px")


def test_a_singular_covariance_is_one() -> None:
    assert len(BoxCovariance(np.ones((1, 4, 4)), "xywh", "px")) == 1
    with pytest.raises(UnknownNameError, match="xyrs"):
        BoxCovariance(np.ones((1, 4, 4)), "xyrs", "px")  # type: ignore[arg-type]


def test_tracks_are_rows_in_order_with_an_identity_once_a_frame() -> None:
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (3, 1))
    tracks = Tracks(np.array([1, 1, 4]), np.array([7, 8, 7]), boxes)
    assert list(tracks.by_frame()) == [(1, slice(0, 2)), (4, slice(2, 3))]
    assert list(Tracks(np.array([], int), np.array([], int), np.empty((0, 4))).by_frame()) == []
    with pytest.raises(DataError, match="identity 7 twice in frame 1"):
        Tracks(np.array([1, 1]), np.array([7, 7]), boxes[:2])
    with pytest.raises(DataError, match="frame 1 after frame 4"):
        Tracks(np.array([4, 1]), np.array([7, 7]), boxes[:2])
    with pytest.raises(DataError, match="finite"):
        Tracks(np.array([1]), np.array([7]), np.full((1, 4), np.nan))


def test_a_sequence_is_a_mapping_of_its_frames() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 9, 9]])
    covariance = BoxCovariance.diagonal(np.arange(12.0).reshape(3, 4), "xywh", "px")
    whole = Detections(boxes, np.array([0.1, 0.2, 0.3]), np.array([0, 1, 2]), covariance)
    sequence = DetectionSequence([3, 3, 6], whole)
    assert list(sequence) == [3, 6]
    assert len(sequence) == 2
    assert 4 not in sequence
    assert sequence.get(4) is None
    np.testing.assert_array_equal(sequence[3].boxes, boxes[:2])
    np.testing.assert_array_equal(sequence[6].rows, [[5, 5, 9, 9, 0.3, 2]])
    assert sequence[6].covariance is not None
    np.testing.assert_array_equal(sequence[6].covariance.matrices, covariance.matrices[2:])
    numbers, starts = sequence.layout
    assert numbers.tolist() == [3, 4, 5, 6]
    assert starts.tolist() == [0, 2, 2, 2, 3]


def test_a_sequence_without_detections_is_empty() -> None:
    sequence = DetectionSequence([], Detections(np.empty((0, 4))))
    assert dict(sequence) == {}
    assert [part.tolist() for part in sequence.layout] == [[], [0]]


@pytest.mark.parametrize("frames", [[1], [2, 1], [1, 1.5], [1, np.nan]])
def test_frames_that_are_none_are_refused(frames: list[float]) -> None:
    with pytest.raises(DataError, match="frame"):
        DetectionSequence(frames, Detections(np.array([[0.0, 0, 1, 1], [0, 0, 2, 2]])))


def test_a_row_alone_is_no_detections() -> None:
    found = Detections(np.array([[0.0, 0, 1, 1], [0, 0, 2, 2]]))
    assert len(found[[1]]) == len(found[1:]) == len(found[np.array([False, True])]) == 1
    with pytest.raises(DataError, match="list of one"):
        found[1]  # type: ignore[index]
