"""Tracking of rotated boxes: against a plain filter, through flips, and on simulated scenes."""

import numpy as np
import pytest
from filterpy.kalman import KalmanFilter
from scipy.stats import chi2

from mot_cup import RotatedDetections, RotatedNoise, RotatedSort, _rotated_sort, fusion
from mot_cup._rotated import rotated_iou, wrap
from mot_cup.fusion import to_common
from mot_cup.metrics import evaluate
from mot_cup.simulation import SceneSettings, simulate
from tenfold import DataError, SettingError, UnknownNameError

CAR = np.array([0.0, 0.0, 2.0, 4.5, 0.3])


def moving(frames: int, noise: float = 0.0, seed: int = 0) -> list[RotatedDetections]:
    generator = np.random.default_rng(seed)
    boxes = CAR + np.arange(frames)[:, None] * np.array([1.0, 0.3, 0, 0, 0.05])
    covariance = noise**2 * np.eye(5) + 1e-6 * np.eye(5)
    return [
        RotatedDetections((box + noise * generator.normal(size=5))[None], covariance=covariance[None])
        for box in boxes
    ]


@pytest.mark.parametrize(("gate", "dimensions"), [(_rotated_sort.GATE, 5), (fusion.GATE, 4)])
def test_gates_are_quantiles_of_chi_square(gate: float, dimensions: int) -> None:
    assert gate == pytest.approx(chi2.ppf(0.9973, dimensions), rel=1e-12)


def test_the_filter_is_filterpy_s() -> None:
    noise = RotatedNoise(acceleration=0.3, size=0.1, heading=0.2, speed=2.0)
    tracker = RotatedSort(min_hits=0, noise=noise, uncertainty="covariance")
    oracle = KalmanFilter(7, 5)
    oracle.H = np.eye(5, 7)
    oracle.F[0, 5] = oracle.F[1, 6] = 1
    for place, velocity in ((0, 5), (1, 6)):
        oracle.Q[[place, velocity, place, velocity], [place, velocity, velocity, place]] = 0
        oracle.Q[place, place], oracle.Q[velocity, velocity] = 0.09 / 3, 0.09
        oracle.Q[place, velocity] = oracle.Q[velocity, place] = 0.09 / 2
    oracle.Q[2, 2] = oracle.Q[3, 3] = 0.01
    oracle.Q[4, 4] = 0.04
    for frame, found in enumerate(moving(12, 0.05)):
        assert found.covariance is not None
        (row,) = tracker.update(found)
        if frame == 0:
            oracle.x = np.append(found.boxes[0], [0, 0])[:, None]
            oracle.P = np.diag([*np.diag(found.covariance[0]), 4, 4])
        else:
            oracle.predict()
            oracle.update(found.boxes[0][:, None], R=found.covariance[0])
        np.testing.assert_allclose(row[:5], oracle.x[:5, 0], atol=1e-9)
        assert row[5:].tolist() == [1, 1, 0, 0]


def test_a_step_of_two_frames_is_that_of_a_frame_left_out() -> None:
    noise = RotatedNoise(acceleration=0.0, size=0.1, heading=0.1)
    skipped, emptied = (RotatedSort(min_hits=0, max_age=3, noise=noise) for _ in range(2))
    nothing = RotatedDetections(np.empty((0, 5)))
    first, second, _, fourth = moving(4)
    for tracker in (skipped, emptied):
        tracker.update(first)
        tracker.update(second)
    assert len(emptied.update(nothing)) == 0
    np.testing.assert_allclose(skipped.update(fourth, dt=2.0), emptied.update(fourth), atol=1e-9)


def test_reversed_headings_turn_no_track() -> None:
    frames = moving(20, 0.02)
    true = [found.boxes[0, 4] for found in frames]
    for number in (1, 4, 5, 9, 14):
        frames[number].boxes[0, 4] += np.pi
    rows = RotatedSort(min_hits=0).track(frames)
    assert set(rows.ids.tolist()) == {1}
    assert np.abs(wrap(rows.boxes[:, 4] - true)).max() < 0.4


def test_a_track_that_began_reversed_is_turned_by_most_of_its_detections() -> None:
    frames = moving(12, 0.02)
    true = frames[-1].boxes[0, 4]
    frames[0].boxes[0, 4] += np.pi
    rows = RotatedSort(min_hits=0).track(frames)
    assert np.abs(wrap(rows.boxes[0, 4] - rows.boxes[-1, 4])) > 2
    assert np.abs(wrap(rows.boxes[-1, 4] - true)) < 0.4


def test_headings_may_pass_pi() -> None:
    turns = 2.9 + 0.05 * np.arange(12)
    turning = [RotatedDetections((CAR + turn * np.eye(5)[4])[None]) for turn in turns]
    rows = RotatedSort(min_hits=0).track(turning)
    assert len(rows) == 12
    expected = np.array([found.boxes[0, 4] for found in turning])
    assert np.abs(wrap(rows.boxes[:, 4] - expected)).max() < 0.2
    assert (np.abs(rows.boxes[:, 4]) <= np.pi).all()


@pytest.mark.parametrize("association", ["iou", "mahalanobis"])
def test_simulated_cars_are_followed(association: str) -> None:
    scene = simulate(SceneSettings(frames=50, cars=60), np.random.default_rng(1))
    agent = scene.agents[0]
    frames = [to_common(found, pose) for found, pose in zip(agent.rotated, agent.poses, strict=True)]
    noise = RotatedNoise(acceleration=1.0, heading=0.1)
    tracker = RotatedSort(max_age=3, uncertainty="covariance", association=association, noise=noise)  # type: ignore[arg-type]
    tracks = tracker.track(frames)
    scores = evaluate(agent.truth, tracks.axis_aligned())
    assert scores["MOTP"] > 0.85
    assert scores["AssA"] > 0.5
    for frame, row, box in zip(tracks.frames, tracks.rows, tracks.boxes, strict=True):
        assert rotated_iou(frames[frame - 1].boxes[[row]], [box])[0, 0] > 0.2
    again = tracker.track(dict(enumerate(frames, start=1)))
    np.testing.assert_array_equal(again.boxes, tracks.boxes)


def test_tracks_end_after_their_age_and_classes_part_them() -> None:
    first, second, third, fourth = moving(4)
    nothing = RotatedDetections(np.empty((0, 5)))
    rows = RotatedSort(min_hits=0, max_age=1).track({1: first, 2: second, 4: fourth})
    assert rows.ids.tolist() == [1, 1, 1]
    assert RotatedSort(min_hits=0, max_age=0).track({1: first, 3: third}).ids.tolist() == [1, 2]
    other = RotatedDetections(second.boxes, classes=np.array([1]))
    assert RotatedSort(min_hits=0, per_class=True).track([first, other]).ids.tolist() == [1, 2]
    assert RotatedSort(min_hits=0).track([first, other]).ids.tolist() == [1, 1]
    assert len(RotatedSort().track([nothing, nothing])) == 0
    assert len(RotatedSort().track([])) == 0


def test_what_makes_no_sense_is_refused_and_changes_nothing() -> None:
    tracker = RotatedSort(min_hits=0, uncertainty="covariance")
    (first,) = tracker.update(moving(1)[0])
    with pytest.raises(DataError, match="without covariances"):
        tracker.update(RotatedDetections(CAR[None]))
    with pytest.raises(DataError, match="singular"):
        tracker.update(RotatedDetections(CAR[None], covariance=np.zeros((1, 5, 5))))
    with pytest.raises(SettingError, match="detections in m"):
        tracker.update(RotatedDetections(CAR[None], unit="m"))
    with pytest.raises(DataError, match="since the last"):
        tracker.update(moving(1)[0], dt=0)
    (second,) = tracker.update(moving(2)[1])
    assert (first[5], second[5]) == (1, 1)
    with pytest.raises(UnknownNameError, match="association"):
        RotatedSort(association="nll")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="uncertainty"):
        RotatedSort(uncertainty="paper")
    with pytest.raises(SettingError, match="max_age"):
        RotatedSort(max_age=-1)
    with pytest.raises(SettingError, match="min_hits"):
        RotatedSort(min_hits=1.5)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="five positive"):
        RotatedNoise(measurement=(1, 1, 1, 1, 0))
    with pytest.raises(SettingError, match="speed"):
        RotatedNoise(speed=-1)
