"""Split conformal quantiles, regions, calibrations and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mot_cup import BoxCovariance, Detections, Tracks
from mot_cup._boxes import from_space, to_space
from mot_cup.conformal import (
    Calibration,
    Matches,
    bonferroni_quantiles,
    calibrate,
    conformal_quantiles,
    match,
    max_score_quantiles,
    normal_deviations,
    pooled,
    region_quantiles,
    scaled_sigma,
    smallest_size,
)
from mot_cup.scores import coverage, joint_coverage
from tenfold import DataError, OutputError, SettingError, UnknownNameError


def simulated(count: int, seed: int, classes: int = 1) -> Matches:
    """Boxes of about 20 pixels whose detector claims half of its errors in x and a quarter in h."""
    generator = np.random.default_rng(seed)
    truth = np.concatenate(
        [generator.uniform(0, 500, (count, 2)), generator.uniform(15, 30, (count, 2))], axis=1
    )
    claimed = generator.uniform(0.05, 0.5, (count, 4))
    kinds = generator.integers(classes, size=count)
    wrong = np.array([2.0, 1.0, 1.0, 4.0]) * (1 + kinds)[:, None]
    found = truth + generator.normal(size=(count, 4)) * claimed * wrong
    detections = Detections(
        from_space(found, "xywh"), classes=kinds, covariance=BoxCovariance.diagonal(claimed**2, "xywh", "px")
    )
    return Matches(np.arange(count), detections, from_space(truth, "xywh"))


@given(n=st.integers(1, 60), level=st.sampled_from([0.5, 0.75, 0.8, 0.9, 0.95]), seed=st.integers(0, 99))
def test_the_quantile_is_the_score_of_the_paper_rank(n: int, level: float, seed: int) -> None:
    scores = np.random.default_rng(seed).exponential(size=(n, 2))
    if n < smallest_size(level):
        with pytest.raises(SettingError, match="calibration scores"):
            conformal_quantiles(scores, level)
        return
    rank = int(np.ceil(np.round((n + 1) * level, 9)))
    found = conformal_quantiles(scores, level)
    assert (scores <= found).sum(axis=0).tolist() == [rank, rank]
    authors = np.quantile(scores, min(1, (rank + 1e-9) / n), axis=0, method="higher")
    assert (scores <= authors).sum(axis=0).tolist() == [min(rank + 1, n)] * 2


def test_the_paper_level_needs_370_scores() -> None:
    assert smallest_size(0.9973) == 370
    assert [smallest_size(level) for level in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    with pytest.raises(SettingError, match=r"0\.9973 of 369 .* 370 scores or more.* at 0\.9972 or lower"):
        conformal_quantiles(np.ones((369, 4)))
    assert conformal_quantiles(np.ones((370, 4))).tolist() == [1, 1, 1, 1]
    assert conformal_quantiles(np.ones((369, 4)), 0.9972).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("n", [9, 25, 40])
def test_a_new_score_is_covered_as_often_as_the_theory_says(n: int) -> None:
    drawn = np.random.default_rng(n).standard_cauchy(size=(20_000, n + 1, 1))
    covered = [abs(row[-1]) <= conformal_quantiles(np.abs(row[:-1]), 0.9) for row in drawn]
    expected = np.ceil(round((n + 1) * 0.9, 9)) / (n + 1)
    assert np.mean(covered) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 20_000))


def test_joint_regions_cover_all_dimensions_and_bonferroni_is_the_larger_when_they_agree() -> None:
    generator = np.random.default_rng(0)
    common = generator.normal(size=(40_000, 1))
    scores = np.abs(0.8 * common + 0.6 * generator.normal(size=(40_000, 4))) * [1, 10, 0.1, 100]
    held, new = scores[:20_000], scores[20_000:]
    each, largest, bonferroni = (
        joint_coverage(new, function(held, 0.9))
        for function in (conformal_quantiles, max_score_quantiles, bonferroni_quantiles)
    )
    assert each < 0.87
    assert largest == pytest.approx(0.9, abs=0.01)
    assert bonferroni > 0.905
    assert (max_score_quantiles(held, 0.9) < bonferroni_quantiles(held, 0.9)).all()
    # The medians make dimensions of other scales alike.
    np.testing.assert_allclose(max_score_quantiles(held, 0.9) / [1, 10, 0.1, 100], 2.1, rtol=0.05)


def test_the_paper_scaling_is_by_a_third_at_its_level() -> None:
    assert scaled_sigma([[1.0, 2.0]], [6.0, 3.0]).tolist() == [[2.0, 2.0]]
    assert normal_deviations() == 3
    assert normal_deviations(0.9) == pytest.approx(1.6449)
    drawn = np.abs(np.random.default_rng(1).normal(size=(200_000, 4)))
    joint = normal_deviations(0.9, "max-score")
    assert joint_coverage(drawn, joint) == pytest.approx(0.9, abs=0.005)
    assert joint < normal_deviations(0.9, "bonferroni")


def test_calibrated_covariances_are_those_of_the_errors() -> None:
    calibration = calibrate(simulated(20_000, 0))
    fresh = simulated(20_000, 1)
    calibrated = calibration.apply(fresh.detections)
    assert calibrated.covariance is not None
    variances = np.diagonal(calibrated.covariance.matrices, 0, 1, 2)
    ratio = (fresh.errors("xywh") ** 2 / variances).mean(axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.15)
    covered = coverage(fresh.errors("xywh"), calibration.half_widths(fresh.detections))
    np.testing.assert_allclose(covered, 0.9973, atol=0.002)
    np.testing.assert_allclose(
        np.sqrt(variances), scaled_sigma(fresh.sigma("xywh"), calibration.quantiles[0])
    )


def test_a_calibration_holds_in_another_unit_and_keeps_correlations() -> None:
    matches = simulated(500, 2)
    calibration = calibrate(matches, level=0.9)
    detections = matches.detections
    assert detections.covariance is not None
    metres = Detections(detections.boxes / 4, covariance=detections.covariance.to_unit("m", 0.25), unit="m")
    np.testing.assert_allclose(
        calibration.covariance(metres).to_unit("px", 4).matrices, calibration.covariance(detections).matrices
    )
    correlated = np.diag([1.0, 1, 1, 1]) + 0.5 * (np.eye(4, k=1) + np.eye(4, k=-1))
    one = Detections(detections.boxes[:1], covariance=BoxCovariance(correlated[None] / 10, "xywh", "px"))
    matrix = calibration.covariance(one).matrices[0]
    spread = np.sqrt(np.diag(matrix))
    np.testing.assert_allclose(matrix / np.outer(spread, spread), correlated, atol=1e-12)


def test_every_class_has_its_own_quantiles() -> None:
    matches = simulated(4000, 3, classes=2)
    calibration = calibrate(matches, level=0.9, per_class=True)
    assert calibration.classes is not None
    assert calibration.classes.tolist() == [0, 1]
    assert calibration.sizes.sum() == 4000
    np.testing.assert_allclose(calibration.quantiles[1] / calibration.quantiles[0], 2, rtol=0.15)
    fresh = simulated(4000, 4, classes=2)
    for kind in (0, 1):
        of = fresh[fresh.detections.classes == kind]
        covered = coverage(of.errors("xywh"), calibration.half_widths(of.detections))
        np.testing.assert_allclose(covered, 0.9, atol=0.03)
    with pytest.raises(DataError, match=r"classes \[2\]"):
        calibration.apply(simulated(50, 5, classes=3).detections)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("region", ["each", "max-score", "bonferroni"])
def test_a_saved_calibration_comes_back(tmp_path: Path, region: str, per_class: bool) -> None:
    matches = simulated(1000, 6, classes=2)
    made = calibrate(matches, level=0.9, space="xysr", region=region, per_class=per_class)  # type: ignore[arg-type]
    path = tmp_path / "new" / "calibration.json"
    made.save(path)
    read = Calibration.load(path)
    assert (read.level, read.space, read.region) == (0.9, "xysr", region)
    assert read.quantiles.tolist() == made.quantiles.tolist()
    np.testing.assert_array_equal(
        read.covariance(matches.detections).matrices, made.covariance(matches.detections).matrices
    )
    assert [item.name for item in path.parent.iterdir()] == ["calibration.json"]


def test_files_that_are_no_calibration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    calibrate(simulated(100, 0), level=0.9).save(path)
    text = path.read_text()
    document = json.loads(text)
    for bad in (
        text[: len(text) // 2],
        "[]",
        json.dumps({**document, "schema": "mot-cup.calibration/0"}),
        json.dumps({**document, "space": "xyrs"}),
        json.dumps({**document, "more": 1}),
        json.dumps({**document, "quantiles": [[1, 2, 3]]}),
    ):
        path.write_text(bad)
        with pytest.raises(DataError, match=r"calibration\.json cannot be read"):
            Calibration.load(path)
    with pytest.raises(DataError, match="cannot be read"):
        Calibration.load(tmp_path / "none.json")
    with pytest.raises(OutputError):
        calibrate(simulated(100, 0), level=0.9).save(path / "below-a-file.json")


def test_matching_is_one_to_one_of_the_largest_overlap_in_frame_and_class() -> None:
    truth = Tracks(
        np.array([1, 1, 2, 3]),
        np.array([1, 2, 1, 1]),
        np.array([[0, 0, 10, 10], [4, 0, 14, 10], [0, 0, 10, 10], [0, 0, 10, 10]]),
        classes=np.array([0, 0, 1, 0]),
    )
    frames = {
        1: Detections(np.array([[3.0, 0, 13, 10], [50, 0, 60, 10], [1, 0, 11, 10]])),
        2: Detections(np.array([[0.0, 0, 10, 10]])),
        4: Detections(np.array([[0.0, 0, 10, 10]])),
    }
    matches = match(frames, truth)
    assert matches.frames.tolist() == [1, 1]
    assert matches.errors("xyxy").tolist() == [[-1, 0, -1, 0], [1, 0, 1, 0]]
    assert len(match(frames, truth, iou=0.95)) == 0
    with pytest.raises(SettingError, match="above 0 and at most 1"):
        match(frames, truth, iou=0)
    with pytest.raises(DataError, match="overlaps a true box"):
        pooled([match({}, truth)])


def test_pooling_needs_one_unit_and_parametrisation() -> None:
    first = simulated(3, 0)
    assert len(pooled([first, match({}, Tracks(np.array([]), np.array([]), np.empty((0, 4)))), first])) == 6
    bare = Matches(first.frames, Detections(first.detections.boxes), first.truth)
    with pytest.raises(DataError, match="one unit and one parametrisation"):
        pooled([first, bare])


def test_detections_that_cannot_be_calibrated_are_refused() -> None:
    matches = simulated(100, 7)
    bare = Matches(matches.frames, Detections(matches.detections.boxes), matches.truth)
    with pytest.raises(DataError, match="without a covariance"):
        calibrate(bare, level=0.9)
    flat = BoxCovariance.diagonal(np.tile([1.0, 1, 1, 0], (100, 1)), "xywh", "px")
    with pytest.raises(DataError, match="above 0"):
        calibrate(Matches(matches.frames, Detections(bare.detections.boxes, covariance=flat), matches.truth))
    with pytest.raises(SettingError, match="370 scores"):
        calibrate(matches)
    with pytest.raises(UnknownNameError, match="bonferoni"):
        region_quantiles(np.ones((100, 4)), 0.9, "bonferoni")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="score 1"):
        conformal_quantiles([[1.0], [np.nan], [1.0]], 0.5)
    empty = Detections(np.empty((0, 4)))
    assert calibrate(matches, level=0.9).apply(empty) is empty


def test_scores_are_in_the_space_asked_for() -> None:
    matches = simulated(10, 8)
    errors = to_space(matches.detections.boxes, "xysr") - to_space(matches.truth, "xysr")
    np.testing.assert_allclose(matches.scores("xysr") * matches.sigma("xysr"), np.abs(errors))
