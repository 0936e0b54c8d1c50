"""Fusion: closed forms, consistency for every correlation, and how sure it is against how right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mot_cup import BoxCovariance, Detections, RotatedDetections
from mot_cup._boxes import from_space, to_space
from mot_cup.fusion import (
    Association,
    Combination,
    Motion,
    combine_independent,
    compensate,
    correct_poses,
    covariance_intersection,
    early_fusion,
    fuse_sequence,
    late_fusion,
    to_agent,
    to_common,
)
from tenfold import DataError, SettingError, UnknownNameError

Array = NDArray[np.float64]
roots = arrays(np.float64, (8, 8), elements=st.floats(-1, 1))
TRUTH = np.array([[10.0, 20.0, 8.0, 18.0], [60.0, 20.0, 18.0, 8.0], [30.0, 90.0, 8.0, 17.0]])


def detections(means: Array, covariances: Array, scores: Array | None = None) -> Detections:
    found = BoxCovariance(covariances, "xywh", "px")
    return Detections(from_space(means, "xywh"), scores, covariance=found)  # type: ignore[arg-type]


def random_covariances(generator: np.random.Generator, n: int, d: int = 4) -> Array:
    root = generator.normal(size=(n, d, d))
    return root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)


def nees(errors: Array, covariances: Array) -> float:
    return float(np.einsum("ni,nij,nj->n", errors, np.linalg.inv(covariances), errors).mean())


def test_two_independent_estimates_combine_as_a_kalman_update() -> None:
    generator = np.random.default_rng(0)
    means, covariances = (
        generator.normal(size=(2, 6, 4)),
        random_covariances(generator, 12).reshape(2, 6, 4, 4),
    )
    mean, covariance = combine_independent(means, covariances)
    gain = covariances[0] @ np.linalg.inv(covariances[0] + covariances[1])
    expected = means[0] + np.einsum("nij,nj->ni", gain, means[1] - means[0])
    np.testing.assert_allclose(mean, expected, atol=1e-12)
    np.testing.assert_allclose(covariance, covariances[0] - gain @ covariances[0], atol=1e-12)


def test_many_independent_estimates_of_one_deviation_average() -> None:
    means = np.random.default_rng(1).normal(size=(5, 3, 2))
    mean, covariance = combine_independent(means, np.broadcast_to(np.eye(2), (5, 3, 2, 2)))
    np.testing.assert_allclose(mean, means.mean(0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.broadcast_to(np.eye(2) / 5, (3, 2, 2)), atol=1e-12)


@settings(deadline=None)
@given(root=roots)
def test_intersection_covers_the_errors_whatever_their_correlation(root: Array) -> None:
    joint = root @ root.T + 1e-3 * np.eye(8)
    marginals = np.stack([joint[:4, :4], joint[4:, 4:]])[:, None]
    _, covariance, weights = covariance_intersection(np.zeros((2, 1, 4)), marginals)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    gains = np.hstack([covariance[0] @ np.linalg.inv(marginals[k, 0]) * weights[k, 0] for k in range(2)])
    slack = np.linalg.eigvalsh(covariance[0] - gains @ joint @ gains.T)
    assert slack[0] >= -1e-9 * np.abs(covariance).max()


def test_independent_combination_is_too_sure_of_correlated_errors() -> None:
    """What covariance intersection is for: of one estimate sent twice, half the variance is claimed."""
    once = np.eye(4)[None]
    _, claimed = combine_independent(np.zeros((2, 1, 4)), np.stack([once, once]))
    _, covered, _ = covariance_intersection(np.zeros((2, 1, 4)), np.stack([once, once]))
    np.testing.assert_allclose(claimed[0], np.eye(4) / 2)
    np.testing.assert_allclose(covered[0], np.eye(4))


def test_the_weights_are_those_of_least_determinant() -> None:
    generator = np.random.default_rng(2)
    pairs = random_covariances(generator, 40).reshape(2, 20, 4, 4)
    _, covariance, _ = covariance_intersection(np.zeros((2, 20, 4)), pairs)
    first, second = np.linalg.inv(pairs)
    shares = np.linspace(0, 1, 2001)[:, None, None, None]
    least = -np.linalg.slogdet(shares * first + (1 - shares) * second)[1].max(0)
    assert (np.linalg.slogdet(covariance)[1] <= least + 1e-5).all()

    triples = random_covariances(generator, 15).reshape(3, 5, 4, 4)
    _, covariance, _ = covariance_intersection(np.zeros((3, 5, 4)), triples)
    shares = generator.dirichlet(np.ones(3), 20_000)
    mixed = np.einsum("sk,knij->snij", shares, np.linalg.inv(triples))
    assert (np.linalg.slogdet(covariance)[1] <= -np.linalg.slogdet(mixed)[1].max(0) + 1e-5).all()


def test_a_source_that_another_dominates_has_no_weight() -> None:
    covariances = np.stack([np.eye(4)[None], 9 * np.eye(4)[None]])
    _, covariance, weights = covariance_intersection(np.zeros((2, 1, 4)), covariances)
    np.testing.assert_allclose(weights[:, 0], [1, 0], atol=1e-4)
    np.testing.assert_allclose(covariance[0], np.eye(4), atol=1e-3)


@pytest.mark.parametrize(("association", "limit"), [("iou", 0.1), ("mahalanobis", 100.0)])
def test_fused_boxes_are_as_right_as_they_are_sure(association: Association, limit: float) -> None:
    generator = np.random.default_rng(3)
    count = 300
    squares: dict[Combination, list[float]] = {"independent": [], "intersection": []}
    for _ in range(count):
        covariances = 0.2 * random_covariances(generator, 9).reshape(3, 3, 4, 4)
        draws = np.linalg.cholesky(covariances) @ generator.normal(size=(3, 3, 4, 1))
        agents = [
            detections(TRUTH + draws[k, ..., 0], covariances[k])[generator.permutation(3)] for k in range(3)
        ]
        for combination, errors in squares.items():
            fused = late_fusion(agents, association=association, limit=limit, combination=combination)
            assert len(fused) == 3
            assert fused.covariance is not None
            order = np.argsort(to_space(fused.boxes, "xywh") @ [1, 10, 0, 0])
            off = (to_space(fused.boxes, "xywh")[order] - TRUTH)[:, :, None]
            matrices = fused.covariance.matrices[order]
            errors.append((off.transpose(0, 2, 1) @ np.linalg.inv(matrices) @ off).mean())
    # The mean of 900 chi-square numbers of 4 dimensions has a standard deviation of 0.094.
    assert np.mean(squares["independent"]) == pytest.approx(4, abs=0.3)
    assert np.mean(squares["intersection"]) < 3


def test_agents_that_share_errors_are_fused_too_surely_unless_by_intersection() -> None:
    generator = np.random.default_rng(4)
    n = 5000
    covariance = np.broadcast_to(np.eye(4), (2, n, 4, 4))
    common = np.sqrt(0.8) * generator.normal(size=(n, 4))
    draws = common + np.sqrt(0.2) * generator.normal(size=(2, n, 4))
    sure, unsure = combine_independent(draws, covariance), covariance_intersection(draws, covariance)
    assert nees(*sure) > 6.5
    assert nees(*unsure[:2]) < 4


@pytest.mark.parametrize("association", ["iou", "mahalanobis"])
def test_detections_of_one_agent_stay_apart_and_strangers_too(association: Association) -> None:
    noise = np.broadcast_to(np.eye(4), (3, 4, 4))
    first = detections(TRUTH, noise, np.array([0.5, 0.6, 0.7]))
    twice = detections(np.vstack([TRUTH[:1], TRUTH[:1] + 0.1]), noise[:2], np.array([0.9, 0.2]))
    fused = late_fusion([first, None, twice, first[[]]], association=association)
    assert len(fused) == 4
    assert sorted(fused.scores.tolist()) == [0.2, 0.6, 0.7, 0.9]
    assert fused.covariance is not None
    assert np.allclose(fused.covariance.matrices[[1, 2, 3]], np.eye(4))


def test_classes_part_objects_unless_told_otherwise() -> None:
    box = np.array([[0.0, 0.0, 8.0, 4.0]])
    agents = [Detections(box, classes=np.array([kind])) for kind in (0, 1)]
    assert len(late_fusion(agents, combination="best")) == 2
    assert len(late_fusion(agents, combination="best", per_class=False)) == 1
    assert len(early_fusion(agents)) == 2


def test_early_fusion_keeps_the_best_of_those_that_overlap() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [9, 0, 19, 10]])
    fused = early_fusion(
        [Detections(boxes[:1], np.array([0.5])), None, Detections(boxes[1:], np.array([0.9, 0.1]))]
    )
    assert fused.boxes.tolist() == boxes[[1, 2]].tolist()
    assert fused.scores.tolist() == [0.9, 0.1]
    assert len(early_fusion([None, Detections(np.empty((0, 4)), unit="m")])) == 0
    assert early_fusion([None, Detections(np.empty((0, 4)), unit="m")]).unit == "m"


def test_a_late_message_is_moved_by_the_motion_that_two_show() -> None:
    velocity = np.array([[6.0, -2, 0, 0], [0, 3, 0, 0], [-5, 0, 0, 0]])
    sure = np.broadcast_to(1e-6 * np.eye(4), (3, 4, 4))
    earlier, message = detections(TRUTH, sure), detections(TRUTH + velocity, sure)[[2, 0, 1]]
    moved = compensate(message, earlier, 2, Motion(speed=4, acceleration=0.01))
    np.testing.assert_allclose(to_space(moved.boxes, "xywh"), (TRUTH + 3 * velocity)[[2, 0, 1]], atol=1e-2)


def test_without_an_earlier_message_an_object_may_be_anywhere_its_speed_allows() -> None:
    message = detections(TRUTH, np.broadcast_to(np.eye(4), (3, 4, 4)))
    moved = compensate(message, None, 2, Motion(speed=3, acceleration=0))
    np.testing.assert_allclose(moved.boxes, message.boxes)
    assert moved.covariance is not None
    np.testing.assert_allclose(np.diag(moved.covariance.matrices[0]), [1 + 4 * 9, 1 + 4 * 9, 1, 1])
    assert compensate(message, None, 0) is message


def test_predictions_are_as_right_as_they_are_sure() -> None:
    generator = np.random.default_rng(5)
    motion, n = Motion(speed=3, acceleration=1.5), 400
    places = np.stack(np.meshgrid(np.arange(20) * 500.0, np.arange(20) * 500.0), -1).reshape(-1, 2)
    covariances = 0.05 * random_covariances(generator, 2 * n).reshape(2, n, 4, 4)
    sizes = np.full((n, 2), 40.0)
    velocity = motion.speed * generator.normal(size=(n, 2))
    trace, steps = [places], 200
    for _ in range(3 * steps):
        velocity = velocity + motion.acceleration / np.sqrt(steps) * generator.normal(size=(n, 2))
        trace.append(trace[-1] + velocity / steps)
    seen = [np.hstack([trace[frame * steps], sizes]) for frame in (0, 1)]
    draws = (np.linalg.cholesky(covariances) @ generator.normal(size=(2, n, 4, 1)))[..., 0]
    earlier, message = (detections(seen[k] + draws[k], covariances[k]) for k in range(2))
    moved = compensate(message, earlier, 2, motion)
    assert moved.covariance is not None
    errors = to_space(moved.boxes, "xywh") - np.hstack([trace[-1], sizes])
    # The mean of 400 chi-square numbers of 4 dimensions has a standard deviation of 0.14.
    assert nees(errors, moved.covariance.matrices) == pytest.approx(4, abs=0.45)
    blind = compensate(message, None, 2, motion)
    assert blind.covariance is not None
    assert np.linalg.det(blind.covariance.matrices).mean() > np.linalg.det(moved.covariance.matrices).mean()


def test_a_sequence_uses_what_has_arrived() -> None:
    noise = np.broadcast_to(0.01 * np.eye(4), (1, 4, 4))
    moving = [detections(TRUTH[:1] + np.array([3.0 * frame, 0, 0, 0]), noise) for frame in range(6)]
    still = [detections(TRUTH[1:2], noise) for _ in range(6)]
    fused = fuse_sequence([moving, [*still[:4], None, None]], delays=[2, 0])
    assert [len(found) for found in fused] == [1, 1, 2, 2, 1, 1]
    # From the second message on the motion is known, and the box is where the object is now.
    np.testing.assert_allclose(fused[4].boxes, moving[4].boxes, atol=0.3)
    undelayed = fuse_sequence([moving, still])
    np.testing.assert_allclose(undelayed[0].boxes, late_fusion([moving[0], still[0]]).boxes)


def test_a_pose_moves_boxes_there_and_back() -> None:
    boxes = np.array([[10.0, 2, 2, 4.5, 0.3], [-5, 1, 1.9, 4.2, -3]])
    ahead = RotatedDetections(boxes[:1])
    found = to_common(ahead, (100, 50, np.pi / 2))
    np.testing.assert_allclose(found.boxes, [[98, 60, 2, 4.5, 0.3 + np.pi / 2]], atol=1e-12)
    whole = RotatedDetections(boxes, covariance=random_covariances(np.random.default_rng(6), 2, 5))
    back = to_agent(to_common(whole, (7, -3, 2.5)), (7, -3, 2.5))
    np.testing.assert_allclose(back.boxes, whole.boxes, atol=1e-12)
    np.testing.assert_allclose(back.covariance, whole.covariance, atol=1e-12)


def test_an_uncertain_pose_makes_boxes_uncertain() -> None:
    generator = np.random.default_rng(7)
    box = np.array([[40.0, -10, 2, 4.5, 0.3]])
    own, pose = np.diag([0.01, 0.02, 0.03, 0.04, 0.0001]), np.array([5.0, 6.0, 0.8])
    spread = 0.05 * random_covariances(generator, 1, 3)[0] * np.outer([1, 1, 0.05], [1, 1, 0.05])
    moved = to_common(RotatedDetections(box, covariance=own[None]), pose, spread)
    draws = []
    errors = generator.multivariate_normal(np.zeros(5), own, 4000)
    for error, off in zip(errors, generator.multivariate_normal(np.zeros(3), spread, 4000), strict=True):
        draws.append(to_common(RotatedDetections(box + error), pose + off).boxes[0])
    assert moved.covariance is not None
    sampled = np.cov(np.array(draws).T)
    np.testing.assert_allclose(moved.covariance[0], sampled, atol=0.06 * np.abs(sampled).max())
    alone = to_common(RotatedDetections(box), pose, spread)
    np.testing.assert_allclose(alone.covariance[0, 2], 0)  # type: ignore[index]


def test_impossible_fusions_are_refused() -> None:
    plain, metres = Detections(np.array([[0.0, 0, 1, 1]])), Detections(np.array([[0.0, 0, 1, 1]]), unit="m")
    singular = detections(TRUTH, np.zeros((3, 4, 4)))
    with pytest.raises(DataError, match="without covariances"):
        late_fusion([plain])
    with pytest.raises(DataError, match="singular"):
        late_fusion([singular])
    with pytest.raises(SettingError, match="m and px"):
        late_fusion([plain, metres])
    with pytest.raises(UnknownNameError, match="Did you mean 'intersection'"):
        late_fusion([plain], combination="intersect")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="association"):
        late_fusion([plain], association="nearest")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="overlap"):
        early_fusion([plain], overlap=2)
    with pytest.raises(SettingError, match="delay of -1"):
        compensate(plain, None, -1)
    with pytest.raises(SettingError, match="acceleration"):
        Motion(acceleration=np.nan)
    with pytest.raises(DataError, match="as many frames"):
        fuse_sequence([[plain], []])
    with pytest.raises(SettingError, match="one of 0 or more each"):
        fuse_sequence([[plain]], delays=[1, 2])
    with pytest.raises(DataError, match="finite x, y, heading"):
        to_common(RotatedDetections([[0, 0, 1, 1, 0]]), (0, 0, np.inf))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="pose covariance"):
        to_common(RotatedDetections([[0, 0, 1, 1, 0]]), (0, 0, 0), np.eye(2))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="sources, n, d"):
        combine_independent(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)))


def watched(
    generator: np.random.Generator, deviations: Array, pose_stds: Array
) -> tuple[list[RotatedDetections], Array, Array]:
    """Return what agents find of 12 cars, in their own frames, the poses that they report, the true ones."""
    cars = np.tile([0.0, 0, 8, 18, 0], (12, 1))
    cars[:, 0], cars[:, 1] = 20 * np.arange(12), generator.uniform(-60, 60, 12)
    poses = np.column_stack([generator.uniform(0, 240, (3, 2)), generator.uniform(-3, 3, 3)])
    found = []
    for pose in poses:
        stds = deviations[generator.integers(len(deviations), size=12)]
        boxes = cars.copy()
        boxes[:, :2] += stds[:, None] * generator.normal(size=(12, 2))
        covariance = np.tile(np.diag([0, 0, 0.1, 0.1, 1e-4]), (12, 1, 1))
        covariance[:, [0, 1], [0, 1]] = stds[:, None] ** 2
        found.append(to_agent(RotatedDetections(boxes, covariance=covariance), pose))
    return found, poses + pose_stds * generator.normal(size=(3, 3)), poses


@pytest.mark.parametrize("deviation", [None, 0.5])
def test_poses_are_corrected_by_what_agents_have_in_common(deviation: float | None) -> None:
    generator, stds = np.random.default_rng(0), np.array([0.8, 0.8, 0.02])
    before, after, consistency = [], [], []
    for _ in range(150):
        found, reported, true = watched(generator, np.array([0.5]), stds)
        poses, covariances = correct_poses(found, reported, np.diag(stds**2), deviation=deviation)
        before.append(reported - true)
        after.append(poses - true)
        consistency.append(nees(poses - true, covariances))
    ratio = np.std(after, axis=(0, 1)) / np.std(before, axis=(0, 1))
    assert (ratio < 0.75).all()
    assert ratio[2] < 0.4
    assert np.mean(consistency) == pytest.approx(3, rel=0.15)


def test_covariances_make_for_better_poses_than_equal_weights() -> None:
    generator, stds = np.random.default_rng(1), np.array([0.8, 0.8, 0.02])
    errors: dict[float | None, list[Array]] = {None: [], 0.72: []}
    for _ in range(100):
        found, reported, true = watched(generator, np.array([0.1, 1.0]), stds)
        for deviation, of in errors.items():
            of_poses = correct_poses(found, reported, np.diag(stds**2), deviation=deviation)[0] - true
            of.append(of_poses - of_poses.mean(axis=0))  # what moves all alike, none can tell
    own, equal = (np.std(of, axis=(0, 1)) for of in errors.values())
    assert (own < equal).all()
    assert own[2] < 0.6 * equal[2]


def test_false_alarms_and_missing_agents_do_not_spoil_poses() -> None:
    generator, stds = np.random.default_rng(2), np.array([0.5, 0.5, 0.01])
    errors = []
    for _ in range(40):
        found, reported, _ = watched(generator, np.array([0.2]), stds)
        poses, covariances = correct_poses([*found, None], [*reported, np.ones(3)], np.diag(stds**2))
        np.testing.assert_allclose(poses[3], 1)
        np.testing.assert_allclose(covariances[3], np.diag(stds**2), atol=1e-12)
        outlier = found[0].boxes.copy()
        outlier[0, :2] += 3
        found[0] = RotatedDetections(outlier, covariance=found[0].covariance)
        errors.append(correct_poses(found, reported, np.diag(stds**2))[0] - poses[:3])
    assert np.std(errors, axis=(0, 1))[0] < 0.1


def test_exact_poses_and_agents_that_share_nothing_stay() -> None:
    generator, stds = np.random.default_rng(3), np.array([0.5, 0.5, 0.01])
    found, reported, _ = watched(generator, np.array([0.2]), stds)
    poses, left = correct_poses(found, reported, np.zeros((3, 3)))
    np.testing.assert_allclose(poses, reported, atol=1e-12)
    assert not left.any()
    poses, left = correct_poses([found[0][:0], found[1], None], reported, np.diag(stds**2))
    np.testing.assert_allclose(poses, reported, atol=1e-12)
    np.testing.assert_allclose(left, np.tile(np.diag(stds**2), (3, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(correct_poses([None], reported[:1], np.eye(3))[0], reported[:1], atol=1e-12)


def test_poses_that_cannot_be_corrected_are_refused() -> None:
    generator, stds = np.random.default_rng(4), np.array([0.5, 0.5, 0.01])
    found, reported, _ = watched(generator, np.array([0.2]), stds)
    with pytest.raises(DataError, match="poses of shape"):
        correct_poses(found, reported[:2], np.eye(3))
    with pytest.raises(DataError, match="pose covariances of shape"):
        correct_poses(found, reported, np.eye(2))
    with pytest.raises(SettingError, match="deviation 0"):
        correct_poses(found, reported, np.eye(3), deviation=0.0)
    bare = [RotatedDetections(item.boxes) for item in found]
    with pytest.raises(DataError, match="without covariances"):
        correct_poses(bare, reported, np.eye(3))
    assert correct_poses(bare, reported, np.eye(3), deviation=1.0)[0].shape == (3, 3)
