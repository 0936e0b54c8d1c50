"""Innovations of running trackers: chi-square where the filter is right, and not where it is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from mot_cup import BoxCovariance, Detections, FilterpyModel, Noise, Sort
from mot_cup._boxes import from_space
from mot_cup.conformal import Calibration, InnovationConformal
from mot_cup.scores import chi_square_bounds
from tenfold import DataError, SettingError

R = (4.0, 2.0, 1.0, 3.0)
NOISE = Noise(
    measurement=R,
    process=(0.3, 0.2, 0.05, 0.1),
    process_velocity=(0.05, 0.02, 0.01, 0.01),
    first=R,
    first_velocity=(4.0, 1.0, 0.04, 0.04),
)
OBJECTS, FRAMES = 10, 60


def simulated(seed: int, noise: Noise = NOISE) -> tuple[list[Detections], np.ndarray]:
    """Simulate objects far apart that move as the filter says, with their true corners in every frame."""
    generator = np.random.default_rng(seed)
    state = np.zeros((OBJECTS, 4))
    state[:, 0], state[:, 1], state[:, 2:] = 5000.0 * np.arange(OBJECTS), 0.0, 200.0
    velocity = generator.normal(size=(OBJECTS, 4)) * np.sqrt(noise.first_velocity)
    frames, truth = [], []
    for frame in range(FRAMES):
        if frame:
            state = state + velocity + generator.normal(size=state.shape) * np.sqrt(noise.process)
            velocity = velocity + generator.normal(size=state.shape) * np.sqrt(noise.process_velocity)
        z = state + generator.normal(size=state.shape) * np.sqrt(noise.measurement)
        covariance = BoxCovariance.diagonal(np.tile(noise.measurement, (OBJECTS, 1)), "xywh", "px")
        frames.append(Detections(from_space(z, "xywh"), covariance=covariance))
        truth.append(from_space(state, "xywh"))
    return frames, np.array(truth)


@pytest.mark.parametrize("uncertainty", ["off", "covariance"])
def test_nis_and_nees_are_chi_square_where_the_filter_is_right(uncertainty: str) -> None:
    found, errors = [], []
    for seed in range(10):
        frames, truth = simulated(seed)
        tracker = Sort(state="xywh", noise=NOISE, uncertainty=uncertainty, keep_innovations=True)  # type: ignore[arg-type]
        tracker.track(frames)
        innovations = tracker.innovations
        assert len(innovations) == OBJECTS * (FRAMES - 1)
        found.append(innovations.nis())
        errors.append(innovations.nees(truth[innovations.frames - 1, innovations.rows]))
    nis, nees = np.concatenate(found), np.concatenate(errors)
    low, high = chi_square_bounds(len(nis), 4, 0.999)
    assert low < nis.mean() < high
    np.testing.assert_allclose(nis.var(), 8, rtol=0.1)
    # Errors of one track are correlated in time, so that their mean scatters more.
    np.testing.assert_allclose(nees.mean(), 4, rtol=0.05)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_nis_tells_a_measurement_noise_that_is_wrong(factor: float) -> None:
    frames, _ = simulated(0)
    wrong = replace(NOISE, measurement=tuple(factor * np.array(R)))  # type: ignore[arg-type]
    tracker = Sort(state="xywh", noise=wrong, keep_innovations=True)
    tracker.track(frames)
    nis = tracker.innovations.nis()
    low, high = chi_square_bounds(len(nis), 4, 0.999)
    assert nis.mean() > high if factor < 1 else nis.mean() < low


def test_innovations_of_frames_are_those_of_the_sequence() -> None:
    frames, _ = simulated(1)
    whole = Sort(state="xywh", noise=NOISE, keep_innovations=True)
    numbered = dict(enumerate(frames, 7))
    tracks = whole.track(numbered)
    online, parts = Sort(state="xywh", noise=NOISE, keep_innovations=True), []
    for frame in frames:
        online.update(frame)
        parts.append(online.innovations)
    assert whole.innovations.frames.min() == 8
    for name in ("rows", "ids", "values", "covariances", "states", "state_covariances"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole.innovations, name), err_msg=name)
    np.testing.assert_array_equal(
        np.concatenate([part.frames for part in parts]) + 6, whole.innovations.frames
    )
    first = frames[1].boxes[whole.innovations.rows[0]]
    np.testing.assert_allclose(
        from_space(whole.innovations.states[:1], "xywh"), tracks.boxes[tracks.frames == 8][:1], atol=1e-9
    )
    assert np.abs(first - from_space(whole.innovations.states[:1], "xywh")).max() < 20


def test_a_tracker_gives_its_innovations_to_the_conformal_scale() -> None:
    """Errors are three times what the detector says; the scale finds it without a label."""
    kappa = np.abs(np.random.default_rng(0).normal(size=(20_000, 4)))
    calibration = Calibration(np.full((1, 4), 1.645), np.array([1000]), level=0.9)
    following = InnovationConformal(calibration, kappa, step=0.02)
    tracker = Sort(state="xywh", noise=NOISE, uncertainty="covariance", keep_innovations=True)
    for frame in simulated(2)[0]:
        assert frame.covariance is not None
        claimed = BoxCovariance(frame.covariance.matrices / 9, "xywh", "px")
        rows = following.track(tracker, replace(frame, covariance=claimed))
    assert len(rows) == OBJECTS
    np.testing.assert_allclose(following.scale, 3.0, rtol=0.2)
    with pytest.raises(SettingError, match="xysr"):
        following.track(Sort(keep_innovations=True), frame)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(SettingError, match="not kept"):
        _ = Sort().innovations
    with pytest.raises(SettingError, match="FilterpyModel"):
        Sort(state=FilterpyModel(lambda z, errors: None), keep_innovations=True)
    frames, _ = simulated(0)
    tracker = Sort(keep_innovations=True)
    assert len(tracker.innovations) == 0
    tracker.track(frames[:3])
    with pytest.raises(DataError, match="one for each"):
        tracker.innovations.nees(np.zeros((1, 4)))
