"""Simulated scenes: plausible traffic, honest covariances, and what the settings do to them."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mot_cup import Detections, Tracks
from mot_cup._boxes import from_space, to_space
from mot_cup._detector import measure
from mot_cup._rotated import bounding_boxes, rectangle_corners, rotated_iou, wrap
from mot_cup._sight import SHARES, visible_points
from mot_cup._traffic import CROSSING
from mot_cup.fusion import to_common
from mot_cup.simulation import Noise, Scene, SceneSettings, Streets, fit_noise, simulate
from tenfold import DataError, SettingError

Array = NDArray[np.float64]
DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "tracking" / "v2xsim"
EXAMPLES = Path(__file__).parents[1] / "examples"
CLEAN = SceneSettings(frames=60, false_alarms=0)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulate(SceneSettings(), np.random.default_rng(0))


@pytest.fixture(scope="module")
def clean() -> Scene:
    return simulate(CLEAN, np.random.default_rng(1))


def residuals(scene: Scene) -> tuple[Array, Array]:
    """Return the errors in x, y, w, h of all agents, and the covariances that they report."""
    off, covariances = [], []
    for agent in scene.agents:
        for frame, (found, sources) in enumerate(zip(agent.detections, agent.sources, strict=True)):
            true = bounding_boxes(scene.boxes[frame, sources - 1])
            off.append(to_space(found.boxes, "xywh") - to_space(true, "xywh"))
            assert found.covariance is not None
            assert (found.covariance.space, found.covariance.unit, found.unit) == ("xywh", "px", "px")
            covariances.append(found.covariance.matrices)
    return np.concatenate(off), np.concatenate(covariances)


def nees(off: Array, covariances: Array) -> Array:
    squares: Array = np.einsum("ni,nij,nj->n", off, np.linalg.inv(covariances), off)
    return squares


def test_cars_drive_turn_and_stop_on_their_streets_and_never_into_each_other(scene: Scene) -> None:
    settings, boxes = scene.settings, scene.boxes * np.array([*[0.25] * 4, 1])
    steps = np.diff(boxes[..., :2], axis=0)
    speeds = np.linalg.norm(steps, axis=2) * settings.frame_rate
    assert speeds.max() <= 1.2 * settings.speed + 0.5
    assert 0.1 < (speeds < 0.05).mean() < 0.7
    turned = wrap(boxes[-1, :, 4] - boxes[0, :, 4])
    assert {-1, 0, 1} <= set(np.round(turned / (np.pi / 2)).astype(int).tolist())
    # Nobody slides sideways.
    middle = boxes[:-1, :, 4] + wrap(np.diff(boxes[..., 4], axis=0)) / 2
    assert np.abs(steps[..., 1] * np.cos(middle) - steps[..., 0] * np.sin(middle)).max() < 0.1
    streets = settings.streets.margin + settings.streets.block * np.arange(settings.streets.crossings)
    from_street = np.abs(boxes[..., :2, None] - streets).min(3)
    assert (from_street.min(2) < CROSSING).all()
    for frame in range(0, settings.frames, 7):
        common = rotated_iou(boxes[frame], boxes[frame])
        assert (common - np.eye(settings.cars)).max() < 1e-9


def test_sight_is_what_lines_that_meet_no_edge_say() -> None:
    generator = np.random.default_rng(2)
    boxes = np.column_stack(
        [generator.uniform(-20, 20, (12, 2)), generator.uniform(1, 5, (12, 2)), generator.uniform(-3, 3, 12)]
    )
    walls = np.array([[0.0, 0, 2, 20, 0.4]])
    seen = visible_points(boxes[None], walls, np.array([0, 1]), 25.0)
    offsets = np.stack(np.meshgrid(SHARES, SHARES, indexing="ij"), -1).reshape(-1, 2)
    for agent in (0, 1):
        for car in range(12):
            _, _, w, length, theta = boxes[car]
            turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
            points = boxes[car, :2] + offsets * (length, w) @ turn.T
            others = np.vstack([np.delete(boxes, [agent, car], axis=0), walls])
            near = car != agent and np.linalg.norm(boxes[car, :2] - boxes[agent, :2]) <= 25
            expected = [near and not _crosses(boxes[agent, :2], point, others) for point in points]
            assert seen[agent, 0, car].tolist() == expected
    assert 0.1 < seen.mean() < 0.9


def _crosses(start: Array, end: Array, boxes: Array) -> bool:
    """Return whether a line meets an edge of a box, by the sides that the ends of each are on."""

    def side(a: Array, b: Array, c: Array) -> Array:
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
            c[..., 0] - a[..., 0]
        )

    corners = rectangle_corners(boxes)
    after = np.roll(corners, -1, axis=1)
    apart = side(start, end, corners) * side(start, end, after) < 0
    return bool((apart & (side(corners, after, start) * side(corners, after, end) < 0)).any())


def test_reported_covariances_are_those_of_the_errors_sure_or_not(clean: Scene) -> None:
    off, covariances = residuals(clean)
    squares = nees(off, covariances)
    assert len(squares) > 1500
    doubt = np.linalg.slogdet(covariances)[1]
    for part in np.array_split(np.argsort(doubt), 3):
        # The mean of 500 chi-square numbers of 4 dimensions has a standard deviation of 0.13.
        assert squares[part].mean() == pytest.approx(4, abs=0.4)
    assert np.quantile(doubt, 0.9) - np.quantile(doubt, 0.1) > 3


def test_rotated_detections_are_the_same_ones_in_the_agents_frames(clean: Scene) -> None:
    squares = []
    for agent in clean.agents:
        for frame, sources in enumerate(agent.sources):
            found = to_common(agent.rotated[frame], agent.poses[frame])
            aligned = to_space(agent.detections[frame].boxes, "xywh")
            np.testing.assert_allclose(found.boxes[:, :2], aligned[:, :2], atol=1e-9)
            off = found.boxes - clean.boxes[frame, sources - 1]
            off[:, 4] = wrap(off[:, 4])
            assert found.covariance is not None
            squares.append(nees(off, found.covariance))
    assert np.concatenate(squares).mean() == pytest.approx(5, abs=0.3)


def test_agents_detect_around_themselves_and_not_themselves(scene: Scene) -> None:
    for agent in scene.agents:
        reach = scene.settings.reach / scene.settings.metres_per_pixel
        for found, sources in zip(agent.rotated, agent.sources, strict=True):
            assert agent.identity not in sources
            assert (np.hypot(*found.boxes[:, :2].T) < reach + 20).all()
        assert agent.identity not in agent.truth.ids


def test_truth_holds_what_is_detected_and_one_detector_with_all_sensors_finds_most(scene: Scene) -> None:
    counts = []
    for view in (*scene.agents, scene.together):
        truth = set(zip(view.truth.frames.tolist(), view.truth.ids.tolist(), strict=True))
        found = {
            (frame + 1, source)
            for frame, sources in enumerate(view.sources)
            for source in sources.tolist()
            if source > 0
        }
        assert found <= truth
        counts.append(len(found))
    row = 17
    box = scene.boxes[scene.together.truth.frames[row] - 1, scene.together.truth.ids[row] - 1]
    np.testing.assert_allclose(scene.together.truth.boxes[row], bounding_boxes(box[None])[0])
    assert counts[-1] > 1.5 * max(counts[:-1])


@pytest.mark.parametrize("spread", [0.0, 0.57, 1.2])
def test_the_spread_moves_uncertainty_and_adds_none(spread: float) -> None:
    generator = np.random.default_rng(3)
    shares = np.round(generator.uniform(-0.3, 1, (2, 50, 30)).clip(0, 1), 2)
    distances = generator.uniform(5, 45, shares.shape)
    noise = Noise(spread=spread)
    found = measure(noise, shares, distances, 45.0, 0.98, 0.0, generator)
    seen = shares > 0
    assert (found.factors[seen] ** 2).mean() == pytest.approx(1)
    assert np.log(found.factors[seen]).std() == pytest.approx(spread, abs=1e-9)
    assert not found.found[~seen].any()
    if spread:
        logs = np.log(found.factors[seen])
        for reason in (distances[seen], 1 - shares[seen]):
            assert np.corrcoef(logs, reason)[0, 1] > 0.3
        assert np.corrcoef(logs, found.scores[seen])[0, 1] < -0.5
        assert found.found[shares > 0.9].mean() > 0.7 > found.found[(shares > 0) & (shares < 0.5)].mean()


def test_all_are_alike_without_spread() -> None:
    noise = replace(CLEAN.noise, spread=0.0)
    found = residuals(simulate(replace(CLEAN, noise=noise), np.random.default_rng(4)))
    doubt = np.linalg.slogdet(found[1][np.abs(found[1][:, 0, 1]) < 1e-9])[1]
    np.testing.assert_allclose(doubt, doubt[0], atol=1e-6)


def test_misreported_covariances_leave_the_boxes_as_they_are(clean: Scene) -> None:
    sure = simulate(replace(CLEAN, reported_scale=0.5), np.random.default_rng(1))
    noisy = simulate(replace(CLEAN, reported_spread=0.7), np.random.default_rng(1))
    off, honest = residuals(clean)
    for other in (sure, noisy):
        np.testing.assert_array_equal(residuals(other)[0], off)
    np.testing.assert_allclose(residuals(sure)[1], honest / 4)
    factors = np.log(residuals(noisy)[1][:, 0, 0] / honest[:, 0, 0]) / 2
    assert factors.std() == pytest.approx(0.7, abs=0.05)


def test_errors_are_correlated_between_agents_and_frames_as_told() -> None:
    generator = np.random.default_rng(5)
    shares = np.ones((2, 400, 40))
    noise = Noise(spread=0.0, error_memory=0.6)
    found = measure(noise, shares, shares, 45.0, 1.0, 0.3, generator).errors
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] == pytest.approx(0.3, abs=0.03)
    assert np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1] == pytest.approx(0.6, abs=0.03)
    stds = [*noise.stds, noise.heading]
    np.testing.assert_allclose(found.std((0, 1, 2)), stds, rtol=0.05)
    np.testing.assert_allclose(found[:, :3].std((0, 1, 2)), stds, rtol=0.2)


def test_false_alarms_come_at_their_rate_with_lower_scores(scene: Scene) -> None:
    sources = np.concatenate([found for agent in scene.agents for found in agent.sources])
    scores = np.concatenate([found.scores for agent in scene.agents for found in agent.detections])
    assert (sources < 0).sum() == pytest.approx(500, abs=80)
    assert np.median(scores[sources < 0]) < 0.7 < np.quantile(scores[sources > 0], 0.1)


def test_the_generator_decides() -> None:
    settings = replace(CLEAN, frames=5)
    first, again, other = (simulate(settings, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.agents[0].detections[3].boxes, again.agents[0].detections[3].boxes)
    assert not np.array_equal(first.boxes, other.boxes)


def test_pixels_are_as_large_as_told() -> None:
    settings = replace(CLEAN, frames=3)
    fine, coarse = (
        simulate(replace(settings, metres_per_pixel=each), np.random.default_rng(9)) for each in (0.25, 0.5)
    )
    np.testing.assert_allclose(fine.boxes[..., :4], 2 * coarse.boxes[..., :4])
    found = [view.together.detections[2] for view in (fine, coarse)]
    np.testing.assert_allclose(found[0].boxes, 2 * found[1].boxes)
    assert found[0].covariance is not None
    assert found[1].covariance is not None
    np.testing.assert_allclose(found[0].covariance.matrices, 4 * found[1].covariance.matrices)


def test_reported_poses_are_off_as_they_say() -> None:
    settings = replace(CLEAN, position_std=0.2, heading_std=0.01)
    noisy = simulate(settings, np.random.default_rng(10))
    off = np.concatenate(
        [agent.poses - noisy.boxes[:, agent.identity - 1][:, [0, 1, 4]] for agent in noisy.agents]
    )
    off[:, 2] = wrap(off[:, 2])
    covariance = noisy.agents[0].pose_covariance
    np.testing.assert_allclose(np.diag(covariance), [0.64, 0.64, 1e-4])
    np.testing.assert_allclose(off.std(0), np.sqrt(np.diag(covariance)), rtol=0.15)
    assert nees(*residuals(noisy)).mean() == pytest.approx(4, abs=0.4)
    exact = residuals(simulate(CLEAN, np.random.default_rng(10)))
    assert residuals(noisy)[0][:, :2].std() > 1.5 * exact[0][:, :2].std()
    np.testing.assert_allclose(residuals(noisy)[0][:, 2:], exact[0][:, 2:], atol=1e-9)


@pytest.mark.parametrize(("spread", "memory"), [(0.0, 0.0), (0.57, 0.0), (0.9, 0.6)])
def test_the_fit_finds_the_noise_that_was_simulated(spread: float, memory: float) -> None:
    generator = np.random.default_rng(11)
    noise = Noise(spread=spread, error_memory=memory, chance=0.5, per_metre=0.01, occlusion=0.0)
    frames, cars = 200, 50
    distances = np.broadcast_to(np.linspace(5, 45, cars), (1, frames, cars))
    found = measure(noise, np.ones((1, frames, cars)), distances, 45.0, 1.0, 0.0, generator)
    # Small, for errors to shrink no car to nothing.
    off = 0.3 * found.errors[0, ..., :4]
    true = np.column_stack([np.zeros(cars), np.arange(cars) * 30.0, np.full(cars, 4.5), np.full(cars, 1.9)])
    detections = {
        frame + 1: Detections(from_space(true + off[frame], "xywh"), unit="m") for frame in range(frames)
    }
    boxes = np.tile(from_space(true, "xywh"), (frames, 1))
    truth = Tracks(np.repeat(np.arange(1, frames + 1), cars), np.tile(np.arange(cars), frames), boxes)
    fitted = fit_noise([(detections, truth)], metres_per_unit=1.0)
    np.testing.assert_allclose(fitted.stds, 0.3 * np.array(noise.stds), rtol=0.1)
    assert fitted.spread**2 == pytest.approx(spread**2, abs=0.05)
    assert fitted.error_memory == pytest.approx(memory, abs=0.05)
    assert fitted.per_metre == Noise().per_metre


def test_the_fit_finds_how_errors_grow_with_the_distance_and_leaves_the_own_car_out() -> None:
    generator = np.random.default_rng(12)
    count = 4000
    x = generator.uniform(5, 45, count)
    true = from_space(np.column_stack([x, np.zeros(count), np.full(count, 4.5), np.full(count, 1.9)]), "xywh")
    own = np.array([[-2.0, -1, 2, 1]])
    off = 0.05 * np.exp(0.03 * x)[:, None] * generator.normal(size=(count, 4))
    detections = {
        frame + 1: Detections(np.vstack([true[[frame]] + off[frame], own + 1e-9]), unit="m")
        for frame in range(count)
    }
    boxes = np.stack([true, np.broadcast_to(own, true.shape)], axis=1).reshape(-1, 4)
    truth = Tracks(np.repeat(np.arange(1, count + 1), 2), np.tile([1, 2], count), boxes)
    fitted = fit_noise([(detections, truth)], metres_per_unit=1.0, sensor=(0.0, 0.0))
    assert fitted.per_metre == pytest.approx(0.03, abs=0.004)


@pytest.mark.skipif(not DATA.is_dir(), reason="TENFOLD_DATA has no tracking/v2xsim")
def test_the_default_noise_is_that_of_v2x_sim() -> None:
    specification = importlib.util.spec_from_file_location("fit_noise", EXAMPLES / "fit_noise.py")
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    fitted, ours = example.fit(DATA), Noise()
    np.testing.assert_allclose(fitted.stds, ours.stds, atol=5e-4)
    assert fitted.spread == pytest.approx(ours.spread, abs=5e-3)
    assert fitted.per_metre == pytest.approx(ours.per_metre, abs=5e-4)
    assert fitted.error_memory == pytest.approx(0.73, abs=5e-3)


def test_settings_that_make_no_scene_are_refused() -> None:
    for change in (
        {"frames": 0},
        {"agents": 81},
        {"speed": -1.0},
        {"reach": np.inf},
        {"false_alarms": np.nan},
        {"correlation": 1.5},
    ):
        with pytest.raises(SettingError, match=next(iter(change))):
            SceneSettings(**change)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="error_memory"):
        Noise(error_memory=1.0)
    with pytest.raises(SettingError, match="for no reason"):
        Noise(per_metre=0, occlusion=0, chance=0)
    with pytest.raises(SettingError, match="crossings"):
        Streets(crossings=1)
    with pytest.raises(SettingError, match="blocks of 20"):
        Streets(block=20)
    with pytest.raises(SettingError, match="500 cars on a grid with room for"):
        simulate(SceneSettings(cars=500), np.random.default_rng(0))
    with pytest.raises(DataError, match="0 detections"):
        fit_noise([], metres_per_unit=1.0)


def test_a_scene_may_be_of_one_car_that_sees_nothing() -> None:
    settings = SceneSettings(frames=3, cars=1, agents=1, false_alarms=0)
    alone = simulate(settings, np.random.default_rng(13))
    assert [len(found) for found in alone.agents[0].detections] == [0, 0, 0]
    assert len(alone.together.truth) == 0
