"""ByteTrack against a slow one written from the method, and what it promises beside."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_trackers import bytetrack, crowd, same

from mot_cup import BoxCovariance, ByteTrack, Detections, PaperCompat, Stage, Tracks
from mot_cup._boxes import Floats
from tenfold import DataError, SettingError

BOX = np.array([[10.0, 10.0, 30.0, 50.0]])


def at(x: float) -> Floats:
    return BOX + np.array([x, 0, x, 0])


def in_ratios(frames: list[Detections]) -> list[Detections]:
    """Return detections with independent variances in ByteTrack's own coordinates."""
    return [
        Detections(
            frame.boxes,
            frame.scores,
            frame.classes,
            BoxCovariance.diagonal(
                np.diagonal(frame.covariance.matrices, axis1=1, axis2=2) * [1, 1, 1e-3, 1], "xyah", "px"
            ),
        )
        for frame in frames
        if frame.covariance is not None
    ]


def online(tracker: ByteTrack, frames: list[Detections]) -> Tracks:
    tracker.reset()
    out = [tracker.update(frame) for frame in frames]
    rows = np.concatenate(out)
    numbers = np.repeat(np.arange(1, len(frames) + 1), [len(part) for part in out])
    return Tracks(
        numbers,
        rows[:, 4].astype(int),
        rows[:, :4],
        rows[:, 5],
        rows[:, 6].astype(int),
        rows[:, 7].astype(int),
    )


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), buffer=st.integers(0, 8), fuse=st.booleans(), per_class=st.booleans())
def test_tracks_are_those_of_the_slow_tracker(seed: int, buffer: int, fuse: bool, per_class: bool) -> None:
    frames = crowd(seed, frames=25, kinds=2)
    tracker = ByteTrack(track_thresh=0.5, track_buffer=buffer, fuse_score=fuse, per_class=per_class)
    slow = bytetrack(frames, high=0.5, buffer=buffer, fuse=fuse, per_class=per_class)
    assert len(slow) > 50
    same(tracker.track(frames), slow)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_an_exact_covariance_is_that_of_whole_matrices(seed: int) -> None:
    frames = crowd(seed, frames=25)
    slow = bytetrack(frames, space="xywh", uncertainty="covariance")
    same(ByteTrack(uncertainty="covariance").track(frames), slow, atol=1e-8)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), tau=st.none() | st.floats(2, 200))
def test_the_papers_filter_and_association_are_those_of_the_slow_tracker(
    seed: int, tau: float | None
) -> None:
    frames = in_ratios(crowd(seed, frames=25))
    tracker = ByteTrack(uncertainty=PaperCompat(each=1), leftover=None if tau is None else Stage("nll", tau))
    same(tracker.track(frames), bytetrack(frames, uncertainty="paper", tau=tau))


@pytest.mark.parametrize("uncertainty", ["off", "covariance"])
@pytest.mark.parametrize("leftover", [None, Stage("mahalanobis", 30), Stage("giou", -0.5)])
def test_frame_by_frame_is_the_same_as_the_whole(uncertainty: Any, leftover: Stage | None) -> None:
    frames = crowd(3, objects=40)
    tracker = ByteTrack(uncertainty=uncertainty, leftover=leftover)
    whole, by_frame = tracker.track(frames), online(tracker, frames)
    for name in ("frames", "ids", "boxes", "scores", "classes", "rows"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(by_frame, name))


def test_a_class_is_tracked_as_if_it_were_alone() -> None:
    frames = crowd(5, kinds=3, objects=20)
    tracker = ByteTrack(per_class=True)
    together = tracker.track(frames)
    for kind in range(3):
        alone = tracker.track([frame[frame.classes == kind] for frame in frames])
        mine = together.classes == kind
        assert len(alone) > 50
        np.testing.assert_array_equal(together.frames[mine], alone.frames)
        np.testing.assert_array_equal(together.boxes[mine], alone.boxes)
        pairs = set(zip(together.ids[mine].tolist(), alone.ids.tolist(), strict=True))
        assert len(pairs) == len(set(alone.ids.tolist())) == len(set(together.ids[mine].tolist()))


def test_what_the_measure_for_what_is_left_over_adds() -> None:
    """A box that jumps its own width has no overlap, but is near in units of its covariance."""
    steps = [0, 4, 8, 12, 45, 49, 53]
    frames = [
        Detections(at(step), covariance=BoxCovariance.diagonal([[9.0] * 4], "xywh", "px")) for step in steps
    ]
    with_it = ByteTrack(uncertainty="covariance", leftover=Stage("mahalanobis", 40)).track(frames)
    without = ByteTrack(uncertainty="covariance").track(frames)
    assert len(set(with_it.ids.tolist())) == 1
    assert len(set(without.ids.tolist())) == 2


@pytest.mark.parametrize(("begins", "score", "taken"), [(1, 0.05, True), (2, 0.3, True), (2, 0.05, False)])
def test_which_scores_the_measure_for_what_is_left_over_takes(begins: int, score: float, taken: bool) -> None:
    """A track of one detection takes no score below the least; those begun in frame 1 count as confirmed."""
    covariance = BoxCovariance.diagonal([[9.0] * 4], "xywh", "px")
    frames = {1: Detections(np.empty((0, 4))), begins: Detections(BOX, [0.9], covariance=covariance)}
    frames[begins + 1] = Detections(at(3), [score], covariance=covariance)
    tracker = ByteTrack(uncertainty="covariance", leftover=Stage("mahalanobis", 40))
    assert (begins + 1 in tracker.track(frames).frames) == taken


def test_low_scores_only_prolong_tracks() -> None:
    frames = [Detections(BOX + step, [score]) for step, score in enumerate([0.9, 0.9, 0.3, 0.3, 0.9])]
    tracks = ByteTrack().track(frames)
    assert tracks.frames.tolist() == [1, 2, 3, 4, 5]
    assert len(set(tracks.ids.tolist())) == 1
    assert len(ByteTrack().track(frames[2:4])) == 0


@pytest.mark.parametrize("before", [1, 5])
def test_of_two_tracks_on_one_place_the_longer_lived_stays_or_else_the_lost(before: int) -> None:
    """Pairs must be closer than duplicates, so that a box nearby begins a second track."""
    tracker = ByteTrack(match_thresh=0.05)
    ids = [out[0, 4] for out in (tracker.update(BOX) for _ in range(before))]
    assert len(tracker.update(at(1))) == 0
    assert tracker.update(BOX)[:, 4].tolist() == [ids[0]]


def test_a_lost_track_ends_below_a_longer_lived_one() -> None:
    both, gone = Detections(np.concatenate([BOX, at(101)])), Detections(np.empty((0, 4)))
    passing = [Detections(at(x)) for x in range(99, -99, -2)]
    tracker = ByteTrack(track_buffer=1000)
    ended = tracker.track([both, both, *passing, Detections(BOX), Detections(BOX)])
    found = tracker.track([both, both, *[gone] * len(passing), Detections(BOX), Detections(BOX)])
    assert ended.ids.tolist() == [1, 2, 1, 2] + [2] * len(passing) + [3]
    assert found.ids.tolist() == [1, 2, 1, 2, 1, 1]


@pytest.mark.parametrize(("frame_rate", "kept"), [(30, True), (10, False)])
def test_the_frame_rate_scales_how_long_a_track_is_kept(frame_rate: float, kept: bool) -> None:
    seen = Detections(BOX)
    frames = {1: seen, 2: seen, 23: seen, 24: seen}
    tracks = ByteTrack(frame_rate=frame_rate).track(frames)
    assert (len(set(tracks.ids.tolist())) == 1) == kept


def test_a_step_in_time_is_predicted() -> None:
    times = np.array([0, 1, 2, 3, 4, 5, 6, 12, 13.5, 14])
    frames = [Detections(at(9 * t)) for t in times]
    timed, untimed = ByteTrack().track(frames, times), ByteTrack().track(frames)
    assert len(set(timed.ids.tolist())) == 1
    assert len(set(untimed.ids.tolist())) > 1
    tracker = ByteTrack()
    out = np.concatenate(
        [tracker.update(frame, dt) for frame, dt in zip(frames, np.diff(times, prepend=-1), strict=True)]
    )
    np.testing.assert_array_equal(out[:, :4], timed.boxes)


def test_tracks_take_no_more_room_in_a_long_stream() -> None:
    tracker = ByteTrack(track_buffer=5)
    frames = [frame for seed in range(10) for frame in crowd(seed)]
    for frame in frames:
        tracker.update(frame)
    room = len(tracker._notes)
    for frame in frames:
        tracker.update(frame)
    assert len(tracker._notes) == room <= 64


def test_no_detections_no_tracks() -> None:
    tracker = ByteTrack()
    assert tracker.update(np.empty((0, 5))).shape == (0, 8)
    assert len(tracker.track([])) == len(tracker.track({})) == 0
    assert len(tracker.track([Detections(np.empty((0, 4)))] * 3)) == 0


def test_rows_without_scores_are_certain() -> None:
    out = ByteTrack().update(BOX)
    np.testing.assert_allclose(out, [[10, 10, 30, 50, 1, 1, 0, 0]])


@pytest.mark.parametrize(
    "settings_",
    [
        {"track_thresh": 1.5},
        {"match_thresh": np.nan},
        {"frame_rate": 0},
        {"track_buffer": -1},
        {"edge": -1},
        {"uncertainty": "on"},
        {"state": "xysr"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        ByteTrack(**settings_)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ([[0, 0, np.nan, 1, 0.9]], DataError, "finite"),
        ([[5, 0, 5, 1, 0.9]], DataError, "x1 < x2"),
        (Detections(BOX, unit="m"), SettingError, "detections in m for a tracker in px"),
    ],
)
def test_a_frame_that_makes_no_sense_changes_nothing(bad: Any, error: type[Exception], message: str) -> None:
    def boxes(tracker: ByteTrack, with_bad: bool) -> Floats:
        tracker.update(BOX)
        if with_bad:
            with pytest.raises(error, match=message):
                tracker.update(bad)
        return tracker.update(BOX + 1)

    np.testing.assert_array_equal(boxes(ByteTrack(), True), boxes(ByteTrack(), False))


def test_a_covariance_that_is_wanted_and_missing_is_refused() -> None:
    with pytest.raises(DataError, match="without a covariance"):
        ByteTrack(uncertainty="covariance").update(BOX)
    with pytest.raises(DataError, match="a positive number"):
        ByteTrack().update(BOX, dt=0)
