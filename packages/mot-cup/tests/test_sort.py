from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from filterpy_models import model as noisy_model

from mot_cup import NOISE, BoxCovariance, Detections, Noise, PaperCompat, Sort, Stage, Tracks
from mot_cup._filterpy import FilterpyModel
from mot_cup._tracker import CAPACITY
from tenfold import DataError, SettingError, UnknownNameError


def scene(seed: int, frames: int, objects: int, correlated: bool = False) -> list[Detections]:
    """Return detections of objects that move, with gaps, false alarms and covariances of their own."""
    generator = np.random.default_rng(seed)
    centre, size = generator.uniform(0, 600, (objects, 2)), generator.uniform(30, 90, (objects, 2))
    velocity = generator.normal(scale=4, size=(objects, 2))
    result = []
    for _ in range(frames):
        centre = centre + velocity
        seen = generator.random(objects) < 0.85
        roots = (
            generator.normal(size=(objects, 4, 4))
            if correlated
            else np.eye(4) * generator.random((objects, 1, 4))
        )
        covariance = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(4)
        shape = np.concatenate([centre, size], axis=1)
        shape = shape + np.einsum(
            "nij,nj->ni", np.linalg.cholesky(covariance), generator.normal(size=(objects, 4))
        )
        boxes = np.concatenate([shape[:, :2] - shape[:, 2:] / 2, shape[:, :2] + shape[:, 2:] / 2], axis=1)
        result.append(
            Detections(
                boxes[seen],
                generator.random(objects)[seen],
                np.arange(objects)[seen] % 2,
                BoxCovariance(covariance, "xywh", "px")[seen],
            )
        )
    return result


def online(tracker: Sort, frames: list[Detections]) -> list[np.ndarray]:
    return [tracker.update(frame) for frame in frames]


def same(tracks: Tracks, outs: list[np.ndarray]) -> None:
    out = np.concatenate(outs)
    order = np.lexsort((out[:, 4], np.repeat(np.arange(len(outs)), [len(o) for o in outs])))
    found = np.lexsort((tracks.ids, tracks.frames))
    assert (
        tracks.frames[found].tolist()
        == np.repeat(np.arange(1, len(outs) + 1), [len(o) for o in outs]).tolist()
    )
    np.testing.assert_allclose(tracks.boxes[found], out[order, :4], rtol=0, atol=1e-9)
    for column, values in enumerate((tracks.ids, tracks.scores, tracks.classes, tracks.rows), start=4):
        assert values[found].tolist() == out[order, column].tolist()


SETTINGS: list[dict[str, Any]] = [
    {},
    {"max_age": 4, "min_hits": 1, "iou_threshold": 0.2, "per_class": True},
    {"state": "xywh", "stages": [Stage("iou", 0.3), Stage("mahalanobis", 9.49)]},
    {"state": "xyah", "stages": [Stage("giou", -0.3)]},
    {"max_age": 6, "min_hits": 2, "coast": 3, "begin_score": 0.4},
    {"uncertainty": "covariance", "stages": [Stage("innovation", 20.0)]},
    {"uncertainty": PaperCompat((2, 2, 2, 2)), "stages": [Stage("iou", 0.3), Stage("nll", 100.0)]},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("correlated", [False, True])
def test_frame_by_frame_is_the_whole_sequence(settings: dict[str, Any], correlated: bool) -> None:
    frames = scene(0, 60, 12, correlated)
    tracker = Sort(**settings)
    outs = online(tracker, frames)
    assert sum(map(len, outs)) > 300
    same(tracker.track(frames), outs)
    tracker.reset()
    assert all(map(np.array_equal, online(tracker, frames), outs))


@pytest.mark.parametrize("state", ["xysr", "xyah", "xywh"])
@pytest.mark.parametrize("stages", [[Stage("iou", 0.3)], [Stage("mahalanobis", 20.0)]])
def test_compiled_tracks_are_those_of_filterpy(state: Any, stages: list[Stage]) -> None:
    # R that grows with the box is that of the present height, which a filterpy filter is not told of.
    none = (0.0, 0.0, 0.0, 0.0)
    noise = replace(NOISE[state], measurement=(4, 4, 4, 0.1), measurement_fraction=none)
    frames = scene(1, 40, 10)
    tracker = Sort(state=noisy_model(noise, state), stages=stages, max_age=3)
    same(Sort(state=state, noise=noise, stages=stages, max_age=3).track(frames), online(tracker, frames))


@pytest.mark.parametrize("correlated", [False, True])
def test_compiled_tracks_with_covariances_are_those_of_filterpy(correlated: bool) -> None:
    frames = scene(2, 40, 10, correlated)
    stages = [Stage("iou", 0.3), Stage("mahalanobis", 9.49)]
    settings: dict[str, Any] = {"uncertainty": "covariance", "stages": stages, "max_age": 3}
    tracker = Sort(state=noisy_model(NOISE["xywh"], "xywh"), **settings)
    same(Sort(**settings).track(frames), online(tracker, frames))


def test_a_track_is_reported_once_it_has_been_seen_often_enough() -> None:
    box = np.array([[10.0, 10, 50, 90, 0.7, 3]])
    tracker = Sort(min_hits=2, max_age=1)
    assert [len(tracker.update(box)) for _ in range(2)] == [1, 1]
    assert len(tracker.update(np.empty((0, 6)))) == 0
    assert [len(tracker.update(box)) for _ in range(3)] == [0, 1, 1]
    assert tracker.update(box)[0, 4:].tolist() == [1, 0.7, 3, 0]
    for _ in range(2):
        tracker.update(np.empty((0, 4)))
    assert [len(tracker.update(box)) for _ in range(3)] == [0, 0, 1]
    assert tracker.update(box[:, :4])[0, 4:].tolist() == [2, 1, 0, 0]
    tracker.reset()
    assert tracker.update(box)[0, 4] == 1


def test_an_area_that_would_vanish_is_kept() -> None:
    def square(side: float) -> np.ndarray:
        return np.array([[100 - side / 2, 100 - side / 2, 100 + side / 2, 100 + side / 2]])

    tracker = Sort(max_age=20, min_hits=0)
    for side in (40.0, 36, 32, 28, 24):
        tracker.update(square(side))
    areas = []
    for _ in range(10):
        tracker.update(np.empty((0, 4)))
        areas.append(tracker._filters[0, 2])
    assert areas[0] > areas[1] == areas[-1] > 0
    # Without the guard the area were below zero by now, the box none, and the track at its end.
    assert tracker.update(square(float(np.sqrt(areas[-1]))))[0, 4] == 1


def test_more_tracks_than_there_was_room_for() -> None:
    corner = 100.0 * np.arange(5 * CAPACITY)[:, None]
    boxes = np.concatenate([corner, corner, corner + 50, corner + 50], axis=1)
    tracker = Sort()
    for count in (CAPACITY - 1, CAPACITY + 1, len(boxes), 1):
        out = tracker.update(boxes[:count])
        assert out[:, 4].tolist() == list(range(1, count + 1))


def test_a_mapping_may_leave_out_frames_and_be_in_any_order() -> None:
    frames = scene(2, 12, 6)
    empty = frames[0][:0]
    gaps = {7 + k: frame for k, frame in enumerate(frames) if k not in (4, 5, 9)}
    with_empty = [empty if k in (4, 5, 9) else frame for k, frame in enumerate(frames)]
    tracks = Sort().track(dict(reversed(gaps.items())))
    expected = Sort().track(with_empty)
    assert tracks.frames.tolist() == (expected.frames + 6).tolist()
    assert np.array_equal(tracks.boxes, expected.boxes)
    assert np.array_equal(tracks.ids, expected.ids)
    for nothing in ([], {}):
        assert len(Sort().track(nothing)) == 0


def test_a_long_step_is_a_frame_that_was_left_out() -> None:
    frames = scene(3, 30, 8)
    settings: dict[str, Any] = {"max_age": 3, "min_hits": 0, "state": "xysr"}
    with_gaps, steps = [], []
    for k, frame in enumerate(frames):
        with_gaps.append(frame[:0] if k % 3 == 1 else frame)
        steps.append(k)
    kept = [k for k in range(30) if k % 3 != 1]
    tracks = Sort(**settings).track([frames[k] for k in kept], times=kept)
    expected = Sort(**settings).track(with_gaps)
    assert tracks.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(tracks.boxes, expected.boxes, rtol=0, atol=1e-9)


def test_real_time_steps_foresee_where_objects_are() -> None:
    def at(time: float) -> np.ndarray:
        return np.array([[5 * time, 0, 5 * time + 40, 40]])

    times = np.cumsum([1, 1, 1, 1, 1, 1, 1, 7.5, 0.25, 6])
    tracker = Sort(max_age=10, min_hits=0)
    steps = np.diff(times, prepend=0)
    outs = [tracker.update(at(time), dt) for time, dt in zip(times, steps, strict=True)]
    assert [out[0, 4] for out in outs] == [1] * 10
    assert np.abs(outs[-1][0, :4] - at(times[-1])).max() < 0.5
    tracker.reset()
    assert [tracker.update(at(time))[0, 4] for time in times][-3] > 1


def test_a_sure_detection_moves_a_track_more_than_an_unsure_one() -> None:
    first, second = np.array([[0.0, 0, 40, 80]]), np.array([[4.0, 4, 44, 84]])

    def after(variance: float) -> float:
        tracker = Sort(uncertainty="covariance", min_hits=0)
        for boxes, own in ((first, 1.0), (second, variance)):
            out = tracker.update(
                Detections(boxes, covariance=BoxCovariance.diagonal([[own] * 4], "xyxy", "px"))
            )
        return float(out[0, 0])

    assert 3.9 < after(1e-6) <= 4
    assert 0 <= after(1e6) < 0.1
    assert after(1e-6) > after(1.0) > after(100.0)


def test_covariances_of_any_parametrisation_are_the_same_errors() -> None:
    frames = scene(4, 30, 6, correlated=True)
    moved = [
        replace(frame, covariance=frame.covariance.to_space(frame.boxes, "xyxy"))
        for frame in frames
        if frame.covariance
    ]
    tracks, others = (Sort(uncertainty="covariance").track(each) for each in (frames, moved))
    np.testing.assert_allclose(tracks.boxes, others.boxes, atol=1e-8)
    mixed = [moved[0], *frames[1:]]
    np.testing.assert_allclose(Sort(uncertainty="covariance").track(mixed).boxes, tracks.boxes, atol=1e-8)


def test_another_unit_scales_boxes_alone() -> None:
    frames = scene(5, 30, 6)
    metres = [
        Detections(
            frame.boxes / 4,
            frame.scores,
            frame.classes,
            frame.covariance.to_unit("m", 0.25),
            "m",
        )
        for frame in frames
        if frame.covariance
    ]
    pixels = Sort(uncertainty="covariance").track(frames)
    found = Sort(uncertainty="covariance", unit="m").track(metres)
    assert found.ids.tolist() == pixels.ids.tolist()
    np.testing.assert_allclose(4 * found.boxes, pixels.boxes, rtol=1e-9)


def test_singular_covariances_are_exact_along_a_direction() -> None:
    tracker = Sort(uncertainty="covariance", min_hits=0)
    exact = np.diag([0.0, 0, 4, 4])[None]
    for k in range(5):
        boxes = np.array([[2.0 * k, 0, 2 * k + 40, 80]])
        out = tracker.update(Detections(boxes, covariance=BoxCovariance(exact, "xywh", "px")))
    np.testing.assert_allclose(out[0, :4], boxes[0], atol=1e-9)


def test_bad_frames_are_refused_and_change_nothing() -> None:
    good, tracker = np.array([[0.0, 0, 10, 10]]), Sort(min_hits=0)
    tracker.update(good)
    for rows, message in (
        ([[0, 0, np.nan, 10]], "finite corners"),
        ([[0, 0, 0, 10]], "x1 < x2"),
        ([[10, 0, 0, 10]], "x1 < x2"),
        ([[0, 0, 10, 10, np.nan]], "a number for a score"),
        ([[0, 0, 10, 10, 1, 0.5]], "a whole number for a class"),
        ([[0, 0, 10, 10, 1, np.nan]], "a whole number for a class"),
        ([[0, 0, 10]], "4 to 6 columns"),
        ([[0, 0, 10, 10, 1, 0, 0]], "4 to 6 columns"),
        ([0, 0, 10, 10], "4 to 6 columns"),
    ):
        with pytest.raises(DataError, match=message):
            tracker.update(rows)
    for dt in (0, -1, np.nan, np.inf):
        with pytest.raises(DataError, match="frames after the last"):
            tracker.update(good, dt)
    with pytest.raises(SettingError, match="detections in m for a tracker in px"):
        tracker.update(Detections(good, unit="m"))
    with pytest.raises(SettingError, match="detections in m for a tracker in px"):
        tracker.track([Detections(good, unit="m")])
    assert tracker.update(good)[0, 4] == 1


def test_bad_sequences_are_refused() -> None:
    frame = Detections(np.array([[0.0, 0, 10, 10]]))
    for times in ([0, 1, 1], [0, 2, 1], [0, 1, np.nan]):
        with pytest.raises(DataError, match="times that increase"):
            Sort().track([frame] * 3, times=times)
    with pytest.raises(DataError, match="times of shape"):
        Sort().track([frame] * 3, times=[0, 1])
    with pytest.raises(DataError, match="whole numbers"):
        Sort().track({0.5: frame})  # type: ignore[dict-item]
    with pytest.raises(DataError, match="frames from the first to the last"):
        Sort().track({1: frame, 10**13: frame})
    for uncertainty in ("covariance", PaperCompat()):
        with pytest.raises(DataError, match="detections without a covariance"):
            Sort(uncertainty=uncertainty).track([frame])
        with pytest.raises(DataError, match="detections without a covariance"):
            Sort(uncertainty=uncertainty).update(frame.boxes)
        assert len(Sort(uncertainty=uncertainty).update(np.empty((0, 4)))) == 0


def test_a_track_that_coasts_is_reported_where_it_is_predicted() -> None:
    def boxes(frame: int) -> np.ndarray:
        return np.array([[10.0 * frame, 0, 10.0 * frame + 40, 20]])

    tracker = Sort(max_age=5, min_hits=2, coast=2, stages=[Stage("iou", 0.1)])
    for frame in range(10):
        tracker.update(boxes(frame))
    empty = np.empty((0, 4))
    for frame in (10, 11):
        (row,) = tracker.update(empty)
        assert row[[4, 5, 7]].tolist() == [1, 0, -1]
        np.testing.assert_allclose(row[:4], boxes(frame)[0], atol=2)
    assert len(tracker.update(empty)) == 0
    (row,) = tracker.update(boxes(13))
    assert row[[4, 7]].tolist() == [1, 0]  # two hits in a row are not asked for again


def test_a_track_that_was_never_confirmed_does_not_coast() -> None:
    tracker = Sort(max_age=5, min_hits=2, coast=5)
    for _ in range(4):
        tracker.update(np.empty((0, 4)))
    tracker.update(np.array([[0.0, 0, 10, 10]]))
    assert len(tracker.update(np.empty((0, 4)))) == 0


def test_detections_below_begin_score_continue_tracks_and_begin_none() -> None:
    low, high, far = ([[x, 0.0, x + 10, 10, score]] for x, score in ((0.0, 0.3), (0.0, 0.7), (200.0, 0.3)))
    tracker = Sort(min_hits=0, begin_score=0.5)
    assert len(tracker.update(low)) == 0
    assert tracker.update(high)[0, 4] == 1
    assert tracker.update(low)[0, 4] == 1
    assert len(tracker.update(far)) == 0


def test_coasting_over_long_gaps_and_short_steps_reports_all_there_is_room_for() -> None:
    first = np.array([[0.0, 0, 10, 10], [50, 0, 60, 10]])
    frames = {1: Detections(first), 40: Detections(first)}
    tracks = Sort(min_hits=0, max_age=1000, coast=1000).track(frames)
    assert np.bincount(tracks.frames)[1:].tolist() == [2] * 40
    times = np.linspace(0, 1, 40)
    assert len(Sort(min_hits=0, coast=1).track(frames, times=times)) == 80
    assert len(Sort(min_hits=0, max_age=1000, coast=20).track(frames)) == 2 * 22


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="coast 3"):
        Sort(max_age=2, coast=3)
    with pytest.raises(SettingError, match="coast -1"):
        Sort(coast=-1)
    with pytest.raises(SettingError, match="begin_score nan"):
        Sort(begin_score=np.nan)
    with pytest.raises(SettingError, match="beside a FilterpyModel"):
        Sort(state=noisy_model(NOISE["xywh"], "xywh"), coast=1)
    for settings in ({"max_age": -1}, {"min_hits": -1}, {"min_hits": 1.5}, {"max_age": np.nan}):
        with pytest.raises(SettingError, match="max_age"):
            Sort(**settings)
    with pytest.raises(SettingError, match="iou with a limit of 3"):
        Sort(iou_threshold=3)
    with pytest.raises(SettingError, match="no stage"):
        Sort(stages=[])
    with pytest.raises(SettingError, match="uncertainty 'on'"):
        Sort(uncertainty="on")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="state model"):
        Sort(state="xyxy")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="four variances"):
        Noise(process=(1, 1, 1, -1))
    with pytest.raises(SettingError, match="four factors"):
        PaperCompat((1, 1, 1, 0))
    own = FilterpyModel(lambda z, r: None)
    with pytest.raises(SettingError, match="noise beside"):
        Sort(state=own, noise=Noise())
    with pytest.raises(SettingError, match="without `move`"):
        Sort(state=own).update(np.array([[0.0, 0, 10, 10]]), 2.0)
    with pytest.raises(UnknownNameError, match="parametrisation"):
        FilterpyModel(lambda z, r: None, space="whxy")  # type: ignore[arg-type]
