"""Noise by likelihood: the joint density of a track, and noise that is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mot_cup import NOISE, BoxCovariance, Detections, Noise, Sort, Tracks
from mot_cup._boxes import from_space
from mot_cup.likelihood import Observations, fit, load, negative_log_likelihood, observations, pooled, save
from tenfold import DataError, OutputError, UnknownNameError

NO_ERRORS = np.empty((0, 4, 4))
R = np.array([4.0, 2.0, 1.0, 3.0])
Q = np.array([0.5, 0.2, 0.05, 0.1])
Q_VELOCITY = np.array([0.2, 0.1, 0.05, 0.05])
FIRST_VELOCITY = np.array([4.0, 1.0, 0.25, 0.25])


def noise(scale: float = 1.0) -> Noise:
    return Noise(
        measurement=tuple(scale * R),  # type: ignore[arg-type]
        process=tuple(Q),  # type: ignore[arg-type]
        process_velocity=tuple(Q_VELOCITY),  # type: ignore[arg-type]
        first=tuple(scale * R),  # type: ignore[arg-type]
        first_velocity=tuple(FIRST_VELOCITY),  # type: ignore[arg-type]
    )


def simulated(
    seed: int, objects: int = 60, frames: int = 60, relative: bool = False
) -> tuple[dict[int, Detections], Tracks]:
    """Simulate objects that move as the filter says; relative: noise is in thousandths of the height."""
    generator = np.random.default_rng(seed)
    state = np.zeros((objects, 4))
    state[:, 0], state[:, 2:] = 20_000.0 * np.arange(objects), 3000.0
    unit = np.ones((objects, 1))
    if relative:
        state[:, 2:] = generator.uniform(1000, 4000, (objects, 1))
        unit = state[:, 3:] / 1000
    velocity = unit * generator.normal(size=state.shape) * np.sqrt(FIRST_VELOCITY)
    found, true = {}, []
    for frame in range(1, frames + 1):
        if frame > 1:
            state = state + velocity + unit * generator.normal(size=state.shape) * np.sqrt(Q)
            velocity = velocity + unit * generator.normal(size=state.shape) * np.sqrt(Q_VELOCITY)
        z = state + unit * generator.normal(size=state.shape) * np.sqrt(R)
        covariance = BoxCovariance.diagonal(unit**2 * R, "xywh", "px")
        found[frame] = Detections(from_space(z, "xywh"), covariance=covariance)
        true.append(from_space(state, "xywh"))
    numbers = np.repeat(np.arange(1, frames + 1), objects)
    return found, Tracks(numbers, np.tile(np.arange(objects), frames), np.concatenate(true))


def test_it_is_the_joint_density_of_the_boxes() -> None:
    """Of one object in frames 1, 2, 4, 5: positions are linear in independent normal numbers."""
    generator = np.random.default_rng(0)
    z = 100 + generator.normal(size=(4, 4))
    observed = Observations(z, np.array([0.0, 1.0, 2.0, 1.0]), NO_ERRORS)
    found = negative_log_likelihood(observed, noise())
    for j in range(4):
        # Columns: first position, first velocity, then of each step its two noises. Rows: frames 1 to 5.
        effect = np.zeros((5, 10))
        position, velocity = np.zeros(10), np.zeros(10)
        position[0], velocity[1] = 1.0, 1.0
        effect[0] = position
        for step in range(4):
            position = position + velocity
            position[2 + 2 * step] += 1.0
            velocity = velocity.copy()
            velocity[3 + 2 * step] += 1.0
            effect[step + 1] = position
        variances = np.array([R[j], FIRST_VELOCITY[j], *([Q[j], Q_VELOCITY[j]] * 4)])
        later = [1, 3, 4]
        covariance = (effect * variances) @ effect.T
        # Given the first box, the first position is normal around it with variance R.
        joint = covariance[np.ix_(later, later)] + R[j] * np.eye(3)
        expected = -multivariate_normal(np.full(3, z[0, j]), joint).logpdf(z[1:, j]) / 3
        np.testing.assert_allclose(found[j], expected, rtol=1e-9)


@pytest.mark.parametrize("known", [False, True])
def test_noise_that_is_known_is_recovered(known: bool) -> None:
    detections, truth = simulated(0)
    observed = observations(detections, truth, "xywh", covariances=known)
    assert len(observed) == 3600
    assert (observed.steps == 0).sum() == 60
    fitted = fit(observed, of_height=False)
    np.testing.assert_allclose(fitted.measurement, R, rtol=0.15)
    assert fitted.first == fitted.measurement
    np.testing.assert_allclose(np.log(fitted.process_velocity), np.log(Q_VELOCITY), atol=0.3)
    np.testing.assert_allclose(np.log(fitted.first_velocity), np.log(FIRST_VELOCITY), atol=0.8)
    best, true = (negative_log_likelihood(observed, item) for item in (fitted, noise()))
    assert (best <= true + 1e-6).all()
    assert (best > true - 0.01).all()
    # The two parts of the process are told apart badly, and what they predict does not depend on it.
    new = observations(*simulated(9), "xywh", covariances=known)
    excess = negative_log_likelihood(new, fitted) - negative_log_likelihood(new, noise())
    assert (excess < 0.005).all()


def test_noise_that_grows_with_the_box_is_recovered() -> None:
    detections, truth = simulated(1, relative=True)
    fitted = fit(observations(detections, truth, "xywh", covariances=False))
    np.testing.assert_allclose(np.array(fitted.measurement_fraction) * 1e6, R, rtol=0.2)
    assert fitted.measurement == (0, 0, 0, 0)


def test_a_trackers_own_output_will_do_where_objects_are_apart() -> None:
    detections, truth = simulated(2)
    tracks = Sort(state="xywh", min_hits=0, noise=noise()).track(detections)
    labelled = observations(detections, truth, "xywh", covariances=False)
    unlabelled = observations(detections, tracks, "xywh", covariances=False)
    np.testing.assert_array_equal(labelled.boxes, unlabelled.boxes)
    fitted = fit(unlabelled, of_height=False)
    # Where the likelihood is greatest no common factor of all variances makes it greater: v^2 / S is 1.
    np.testing.assert_allclose(squares(fitted, detections), 1.0, atol=0.003)
    # On new objects it is as consistent as what was fitted is exact: R of 3540 boxes, to some 4 %.
    new = [simulated(seed)[0] for seed in range(3, 9)]
    true = np.mean([squares(noise(), item) for item in new], axis=0)
    np.testing.assert_allclose(true, 1.0, atol=4 * np.sqrt(2 / (6 * 3540)))
    found = np.mean([squares(fitted, item) for item in new], axis=0)
    np.testing.assert_allclose(found / true, 1.0, atol=0.06)


def squares(of: Noise, detections: dict[int, Detections]) -> np.ndarray:
    """Return the mean of v^2 / S of a tracker, in every coordinate."""
    tracker = Sort(state="xywh", noise=of, keep_innovations=True)
    tracker.track(detections)
    return np.asarray((tracker.innovations.scores() ** 2).mean(axis=0))


def test_objects_are_put_together_over_gaps_and_sequences() -> None:
    detections, truth = simulated(4, objects=2, frames=4)
    seen = truth[~((truth.frames == 2) & (truth.ids == 1))]
    observed = observations(detections, seen, "xywh")
    assert observed.steps.tolist() == [0, 1, 1, 1, 0, 2, 1]
    np.testing.assert_allclose(observed.errors, np.tile(np.diag(R), (7, 1, 1)))
    both = pooled([observed, observed])
    assert len(both) == 14
    assert len(both.errors) == 14
    bare = observations(detections, seen, "xywh", covariances=False)
    assert len(pooled([observed, bare]).errors) == 0
    np.testing.assert_allclose(
        negative_log_likelihood(both, noise()), negative_log_likelihood(observed, noise())
    )
    # With covariances those of the noise have no say.
    np.testing.assert_array_equal(
        negative_log_likelihood(observed, noise(9.0)), negative_log_likelihood(observed, noise())
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    for kept, state in ((noise(), "xywh"), (NOISE["xyah"], "xyah")):
        save(path, kept, state)  # type: ignore[arg-type]
        assert load(path) == (kept, state)
    document = json.loads(path.read_text())
    for change in (
        {"schema": "another"},
        {"state": "xyz"},
        {"process": [1, 1, 1]},
        {"process": [1, 1, 1, -1]},
        {"q": 1},
    ):
        path.write_text(json.dumps({**document, **change}))
        with pytest.raises(DataError, match="cannot be read"):
            load(path)
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(DataError, match="cannot be read"):
            load(path)
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "nothing")
    with pytest.raises(UnknownNameError, match="xyz"):
        save(tmp_path / "other.json", noise(), "xyz")  # type: ignore[arg-type]
    with pytest.raises(OutputError):
        save(path / "noise.json", noise(), "xywh")
    assert [file.name for file in tmp_path.iterdir()] == ["noise.json"]


def test_what_cannot_be_fitted_is_refused() -> None:
    detections, truth = simulated(5, objects=2, frames=10)
    observed = observations(detections, truth, "xywh")
    with pytest.raises(DataError, match="18 boxes that follow another"):
        fit(observed)
    still = Observations(np.full((40, 4), 9.0), np.array([0.0] + [1.0] * 39), NO_ERRORS)
    with pytest.raises(DataError, match="every coordinate"):
        fit(still)
    with pytest.raises(UnknownNameError, match="xyz"):
        observations(detections, truth, "xyz")  # type: ignore[arg-type]
    empty = observations(detections, replace(truth[:0]), "xywh")
    with pytest.raises(DataError, match="0 boxes"):
        negative_log_likelihood(empty, noise())
