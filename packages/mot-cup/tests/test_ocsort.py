"""OC-SORT against a slow one written from the method, and what it promises beside."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_trackers import crowd, ocsort, same

from mot_cup import BoxCovariance, Detections, OCSort
from mot_cup._boxes import Floats
from mot_cup._ocsort_step import _arcsin
from tenfold import DataError, SettingError

BOX = np.array([[10.0, 10.0, 30.0, 50.0]])


def at(x: float) -> Floats:
    return BOX + np.array([x, 0, x, 0])


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    low=st.booleans(),
    delta_t=st.integers(1, 5),
    max_age=st.integers(0, 8),
    min_hits=st.integers(0, 3),
    state=st.booleans(),
)
def test_tracks_are_those_of_the_slow_tracker(
    seed: int, low: bool, delta_t: int, max_age: int, min_hits: int, state: bool
) -> None:
    frames = crowd(seed, frames=25, objects=10, side=120)
    tracker = OCSort(
        det_thresh=0.4,
        use_byte=low,
        delta_t=delta_t,
        inertia=0.6,
        max_age=max_age,
        min_hits=min_hits,
        report="state" if state else "detection",
    )
    slow = ocsort(
        frames,
        high=0.4,
        low=low,
        delta_t=delta_t,
        inertia=0.6,
        max_age=max_age,
        min_hits=min_hits,
        report_state=state,
    )
    assert len(slow) > 10
    same(tracker.track(frames), slow)


@pytest.mark.parametrize("seed", range(4))
def test_recovery_by_generalised_overlap_is_that_of_the_slow_tracker(seed: int) -> None:
    """Seeds without ties: two tracks of one detection are the same point, and either may be recovered."""
    frames = crowd(seed, frames=25)
    tracker = OCSort(det_thresh=0.4, recovery="giou", min_hits=1, max_age=4)
    slow = ocsort(frames, high=0.4, generalised=True, min_hits=1, max_age=4)
    same(tracker.track(frames), slow)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_an_exact_covariance_is_that_of_whole_matrices(seed: int) -> None:
    frames = crowd(seed, frames=25, objects=10, side=120)
    tracker = OCSort(det_thresh=0.3, min_hits=1, uncertainty="covariance")
    slow = ocsort(frames, high=0.3, min_hits=1, space="xywh", uncertain=True)
    same(tracker.track(frames), slow, atol=1e-8)


def test_the_arcsine_is_numpys() -> None:
    cosines = np.concatenate([np.linspace(-1, 1, 1001), [-0.5, 0.5, 1e-9, 1e-300]])
    found = np.array([_arcsin(cosine) for cosine in cosines.tolist()])
    np.testing.assert_allclose(found, np.arcsin(cosines), rtol=0, atol=1e-14)


@pytest.mark.parametrize("uncertainty", ["off", "covariance"])
def test_frame_by_frame_is_the_same_as_the_whole(uncertainty: Any) -> None:
    frames = crowd(3, objects=40)
    tracker = OCSort(uncertainty=uncertainty, min_hits=1)
    whole = tracker.track(frames)
    tracker.reset()
    rows = np.concatenate([tracker.update(frame) for frame in frames])
    assert len(whole) > 500
    np.testing.assert_array_equal(rows[:, :4], whole.boxes)
    np.testing.assert_array_equal(rows[:, 4], whole.ids)
    np.testing.assert_array_equal(rows[:, 7], whole.rows)


def test_a_track_has_one_class() -> None:
    frames = crowd(5, kinds=3, objects=20)
    tracks = OCSort(per_class=True, min_hits=1, det_thresh=0.3).track(frames)
    mixed = OCSort(min_hits=1, det_thresh=0.3).track(frames)
    of_track = {(i, k) for i, k in zip(tracks.ids.tolist(), tracks.classes.tolist(), strict=True)}
    of_mixed = {(i, k) for i, k in zip(mixed.ids.tolist(), mixed.classes.tolist(), strict=True)}
    assert len(of_track) == len(set(tracks.ids.tolist()))
    assert len(of_mixed) > len(set(mixed.ids.tolist()))


def test_a_track_is_found_where_it_was_last_seen() -> None:
    """One that stops while it is hidden has drifted off in the filter, but not in its last detection."""
    way = [10.0 * t for t in range(12)]
    seen = {t: Detections(at(x)) for t, x in enumerate(way, 1)}
    there = seen[12]
    frames = {**seen, 30: there, 31: there}
    assert len(set(OCSort().track(frames).ids.tolist())) == 1


@pytest.mark.parametrize(("uncertainty", "tracks"), [("off", 1), ("covariance", 2)])
def test_a_track_of_one_detection_is_a_point_as_published_and_not_known_else(
    uncertainty: Any, tracks: int
) -> None:
    covariance = BoxCovariance.diagonal([[1.0] * 4], "xywh", "px")
    boxes = [[[200.0, 200.0, 230.0, 240.0]], [[0.0, 0.0, 30.0, 40.0]]]
    frames = [Detections(np.array(box), covariance=covariance) for box in boxes]
    found = OCSort(recovery="giou", uncertainty=uncertainty).track(frames)
    assert len(set(found.ids.tolist())) == tracks


def test_coordinates_below_zero_are_coordinates() -> None:
    frames = crowd(7, objects=12)
    moved = [Detections(frame.boxes - 1e4, frame.scores) for frame in frames]
    here, there = OCSort(min_hits=1).track(frames), OCSort(min_hits=1).track(moved)
    np.testing.assert_array_equal(here.ids, there.ids)
    np.testing.assert_allclose(here.boxes - 1e4, there.boxes, atol=1e-6)


@pytest.mark.parametrize("report", ["detection", "state"])
def test_either_the_detection_or_the_state_is_reported(report: Any) -> None:
    frames = crowd(9)
    tracks = OCSort(min_hits=1, report=report).track(frames)
    late = tracks.frames > 2
    given_ = np.stack(
        [frames[t - 1].boxes[row] for t, row in zip(tracks.frames[late], tracks.rows[late], strict=True)]
    )
    difference = np.abs(given_ - tracks.boxes[late]).max(1)
    assert (difference.max() < 1e-5) == (report == "detection")


def test_a_step_in_time_is_predicted_and_retraced() -> None:
    times = np.array([0, 1, 2, 3, 4, 5, 6, 9, 12, 13.5, 14])
    frames = [Detections(at(9 * t)) for t in times]
    hidden = Detections(np.empty((0, 4)))
    frames[8] = hidden
    timed, untimed = OCSort(min_hits=1).track(frames, times), OCSort(min_hits=1).track(frames)
    assert len(set(timed.ids.tolist())) == 1
    assert len(set(untimed.ids.tolist())) > 1
    assert timed.frames.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]


def test_tracks_take_no_more_room_in_a_long_stream() -> None:
    tracker = OCSort(max_age=5, det_thresh=0.3)
    frames = [frame for seed in range(10) for frame in crowd(seed)]
    for frame in frames:
        tracker.update(frame)
    room = len(tracker._notes)
    for frame in frames:
        tracker.update(frame)
    assert len(tracker._notes) == room <= 64


def test_no_detections_no_tracks() -> None:
    tracker = OCSort()
    assert tracker.update(np.empty((0, 5))).shape == (0, 8)
    assert len(tracker.track([])) == len(tracker.track({})) == 0


@pytest.mark.parametrize(
    "settings_",
    [
        {"det_thresh": -0.1},
        {"iou_threshold": np.nan},
        {"max_age": -1},
        {"min_hits": 1.5},
        {"delta_t": 0},
        {"inertia": np.inf},
        {"recovery": "diou"},
        {"uncertainty": "on"},
        {"report": "both"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        OCSort(**settings_)


def test_detections_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingError, match="detections in m for a tracker in px"):
        OCSort().update(Detections(BOX, unit="m"))
    with pytest.raises(DataError, match="without a covariance"):
        OCSort(uncertainty="covariance").update(BOX)
    metres = BoxCovariance.diagonal([[1.0] * 4], "xywh", "m")
    assert (
        len(OCSort(uncertainty="covariance", unit="m").update(Detections(BOX, None, None, metres, "m"))) == 1
    )
