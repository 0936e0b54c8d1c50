import numpy as np
import pytest
from filterpy_models import diagonals, make_filter, move

from mot_cup import NOISE, Noise
from mot_cup._kalman import (
    DENSE,
    MEASUREMENT,
    make_filters,
    predict,
    start,
    to_dense,
    update,
)

NONE = np.empty((0, 4, 4))
BOXES = np.array([[300.0, 200.0, 40.0, 90.0], [50.0, 80.0, 4000.0, 0.5]])


def covariance(filters: np.ndarray, track: int) -> np.ndarray:
    return to_dense(filters)[track, 8:].reshape(8, 8)


def covariances(generator: np.random.Generator, count: int) -> np.ndarray:
    roots = generator.normal(size=(count, 4, 4))
    return roots @ roots.transpose(0, 2, 1)


@pytest.mark.parametrize("model", ["xywh", "xyah", "xysr"])
@pytest.mark.parametrize("dense", [False, True])
def test_filters_are_filterpys(model: str, dense: bool) -> None:
    noise, generator = NOISE[model], np.random.default_rng(0)
    table, filters = noise.table(), make_filters(3)
    if dense:
        filters = to_dense(filters)
    z = BOXES + generator.normal(size=(2, 4))
    z[:, 3] = np.abs(z[:, 3])
    theirs = [make_filter(row, noise) for row in z]
    for track in range(2):
        start(filters, track, z, track, table, NONE, False)
    for frame in range(40):
        dt = float(generator.integers(1, 4))
        predict(filters, 2, table, dt)
        seen = generator.random(2) < 0.7
        tracks = np.where(seen, [0, 1], -1)
        z = filters[:2, :4] + generator.normal(size=(2, 4)) * [3, 3, 1, 0.1]
        for track, kf in enumerate(theirs):
            move(kf, dt, noise)
            kf.predict()
            if seen[track]:
                kf.update(z[track].reshape(4, 1), R=np.diag(diagonals(noise, float(kf.x[3, 0]))[MEASUREMENT]))
        update(filters, tracks, z, 0, 2, table, NONE)
        for track, kf in enumerate(theirs):
            np.testing.assert_allclose(
                filters[track, :8], kf.x.ravel(), rtol=1e-9, atol=1e-9, err_msg=str(frame)
            )
            np.testing.assert_allclose(covariance(filters, track), kf.P, rtol=1e-8, atol=1e-9)


def test_correlated_errors_are_filterpys() -> None:
    noise, generator = NOISE["xywh"], np.random.default_rng(1)
    table, filters = noise.table(), to_dense(make_filters(1))
    z, errors = BOXES[:1], covariances(generator, 1)
    kf = make_filter(z[0], noise, errors[0])
    start(filters, 0, z, 0, table, errors, True)
    for _ in range(20):
        predict(filters, 1, table, 1.0)
        move(kf, 1.0, noise)
        kf.predict()
        z, errors = filters[:1, :4] + generator.normal(size=(1, 4)), covariances(generator, 1)
        update(filters, np.zeros(1, np.int64), z, 0, 1, table, errors)
        kf.update(z[0].reshape(4, 1), R=errors[0])
        np.testing.assert_allclose(filters[0, :8], kf.x.ravel(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(covariance(filters, 0), kf.P, rtol=1e-8, atol=1e-9)
    p = covariance(filters, 0)
    assert np.array_equal(p, p.T)
    assert np.linalg.eigvalsh(p)[0] > 0


def test_split_and_dense_filters_agree_on_diagonal_errors() -> None:
    generator, table = np.random.default_rng(2), NOISE["xywh"].table()
    z, errors = BOXES.copy(), generator.random((2, 4, 1)) * np.eye(4)
    split = make_filters(2)
    for track in range(2):
        start(split, track, z, track, table, errors, True)
    dense = to_dense(split)
    assert dense.shape[1] == DENSE
    for filters in (split, dense):
        predict(filters, 2, table, 2.5)
        update(filters, np.arange(2), z + 1, 0, 2, table, errors)
    np.testing.assert_allclose(dense[:, :8], split[:, :8], rtol=1e-12)
    np.testing.assert_allclose(dense, to_dense(split), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dense", [False, True])
def test_a_long_step_is_as_many_short_ones(dense: bool) -> None:
    table, filters = Noise(process=(1, 2, 3, 4), process_velocity=(5, 6, 7, 8)).table(), make_filters(1)
    filters[0, :8] = [1, 2, 3, 4, 0.1, 0.2, 0.3, 0.4]
    filters = to_dense(filters) if dense else filters
    others = filters.copy()
    predict(filters, 1, table, 5.0)
    for _ in range(5):
        predict(others, 1, table, 1.0)
    np.testing.assert_allclose(filters, others, rtol=1e-12)


@pytest.mark.parametrize("dt", [0.1, 0.5, 0.99, 1.0, 1.01, 1.5, 2.7, 10.0])
def test_noise_of_any_step_is_a_covariance_that_grows(dt: float) -> None:
    table, filters = Noise(process_velocity=(1, 1, 1, 1)).table(), make_filters(2)
    predict(filters, 1, table, dt)
    predict(filters[1:], 1, table, dt * 1.05)
    assert np.linalg.eigvalsh(covariance(filters, 0))[0] >= -1e-12
    assert (filters[1, [8, 10]] >= filters[0, [8, 10]]).all()


@pytest.mark.parametrize("dense", [False, True])
def test_what_nothing_is_known_to_vary_stays(dense: bool) -> None:
    filters, table = make_filters(1), Noise().table()
    filters[0, :4] = BOXES[0]
    filters[0, 8] = 4.0
    filters = to_dense(filters) if dense else filters
    # The first coordinate alone has a variance, and the measurement none at all.
    update(filters, np.zeros(1, np.int64), BOXES[:1] + 1, 0, 1, table, np.zeros((1, 4, 4)))
    assert filters[0, :8].tolist() == [BOXES[0, 0] + 1, *BOXES[0, 1:], 0, 0, 0, 0]
    assert not covariance(filters, 0).any()


def test_exact_measurements_along_one_direction() -> None:
    filters, table = to_dense(make_filters(1)), Noise().table()
    filters[0, 8:].reshape(8, 8)[:4, :4] = np.eye(4)
    direction = np.array([1.0, -1, 0, 0]) / np.sqrt(2)
    errors = (np.eye(4) - np.outer(direction, direction))[None]
    update(filters, np.zeros(1, np.int64), np.array([[1.0, -1, 1, 0]]), 0, 1, table, errors)
    # Halfway where both are as sure, all the way where the measurement is exact.
    np.testing.assert_allclose(filters[0, :4], [1, -1, 0.5, 0], atol=1e-12)
    assert direction @ covariance(filters, 0)[:4, :4] @ direction == pytest.approx(0, abs=1e-12)
