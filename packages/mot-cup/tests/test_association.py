from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mot_cup import NOISE, Stage
from mot_cup._association import FREE, associate, distance, generalised_overlap, overlap, stage_table
from mot_cup._boxes import to_space
from mot_cup._kalman import make_filters, to_dense
from mot_cup._state_models import measure
from tenfold import SettingError, UnknownNameError

TABLE = NOISE["xywh"].table()


def crowd(generator: np.random.Generator, count: int, side: float) -> np.ndarray:
    corner, size = generator.uniform(0, side, (count, 2)), generator.uniform(20, 60, (count, 2))
    return np.concatenate([corner, corner + size], axis=1)


def pair(
    stages: list[Stage],
    detections: np.ndarray,
    boxes: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    spread: np.ndarray | None = None,
    errors: np.ndarray | None = None,
    per_class: bool = False,
) -> np.ndarray:
    """Return partners; `spread` are covariances of the tracks' positions, whose means are their boxes."""
    n, m = len(detections), len(boxes)
    rows = np.column_stack([detections, np.ones(n), np.zeros(n) if classes is None else classes[:n]])
    filters = to_dense(make_filters(m))
    filters[:, :4] = to_space(boxes, "xywh")
    filters[:, 8:].reshape(m, 8, 8)[:, :4, :4] = np.eye(4) if spread is None else spread
    return associate(
        stage_table(stages),
        rows,
        to_space(detections, "xywh"),
        boxes,
        np.zeros(m) if classes is None else classes[n:],
        filters,
        TABLE,
        np.tile(25 * np.eye(4), (n, 1, 1)) if errors is None else errors,
        per_class,
    )


def overlaps(detections: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return np.array(
        [[overlap(detections, d, boxes, t) for t in range(len(boxes))] for d in range(len(detections))]
    )


def most(gains: np.ndarray) -> float:
    """Return the most that disjoint pairs of positive gain add up to, by trying all."""
    n, m = gains.shape
    padded = np.zeros((n, n + m))
    padded[:, :m] = np.maximum(gains, 0)
    return max(sum(padded[d, t] for d, t in enumerate(columns)) for columns in permutations(range(n + m), n))


def test_overlaps_of_known_boxes() -> None:
    boxes = np.array([[0.0, 0, 4, 4], [2, 0, 6, 4], [6, 0, 8, 4], [4, 4, 8, 8]])
    assert overlaps(boxes, boxes)[0].tolist() == [1, 8 / 24, 0, 0]
    assert generalised_overlap(boxes, 0, boxes, 0) == 1
    assert generalised_overlap(boxes, 0, boxes, 1) == pytest.approx(8 / 24)
    assert generalised_overlap(boxes, 0, boxes, 2) == pytest.approx(24 / 32 - 1)
    assert generalised_overlap(boxes, 0, boxes, 3) == pytest.approx(32 / 64 - 1)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_overlap_pairs_as_sort_does(seed: int, n: int, m: int, limit: float) -> None:
    generator = np.random.default_rng(seed)
    detections, boxes = crowd(generator, n, 60), crowd(generator, m, 60)
    o = overlaps(detections, boxes)
    partners = pair([Stage("iou", limit)], detections, boxes)
    clear = o > limit
    if clear.sum(0).max() == 1 and clear.sum(1).max() == 1:
        expected = np.where(clear.any(1), clear.argmax(1), FREE)
    else:
        expected = np.full(n, FREE)
        rows, columns = linear_sum_assignment(-o)
        for d, t in zip(rows, columns, strict=True):
            if o[d, t] >= limit and o[d, t] > 0:
                expected[d] = t
    assert partners.tolist() == expected.tolist()


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_generalised_overlap_pairs_for_most_gain(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    detections, boxes = crowd(generator, n, 90), crowd(generator, m, 90)
    gains = np.array(
        [[generalised_overlap(detections, d, boxes, t) + 0.2 for t in range(m)] for d in range(n)]
    )
    partners = pair([Stage("giou", -0.2)], detections, boxes)
    paired = partners != FREE
    assert len(set(partners[paired])) == paired.sum()
    assert sum(gains[d, t] for d, t in enumerate(partners) if t != FREE) == pytest.approx(most(gains))
    assert all(gains[d, t] >= 0 for d, t in enumerate(partners) if t != FREE)


@pytest.mark.parametrize(("kind", "limit"), [("mahalanobis", 9.49), ("innovation", 16.0)])
def test_innovations_pair_for_most_gain(kind: str, limit: float) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        boxes = crowd(generator, 4, 100)
        detections = boxes[generator.permutation(4)] + generator.normal(scale=4, size=(4, 4))
        roots = generator.normal(size=(8, 4, 4)) * 3
        covariances = roots @ roots.transpose(0, 2, 1)
        spread, errors = covariances[:4], covariances[4:]
        y = to_space(detections, "xywh")[:, None] - to_space(boxes, "xywh")
        s = spread + errors[:, None]
        squares = np.einsum("dti,dtij,dtj->dt", y, np.linalg.inv(s), y)
        nll = (squares + np.linalg.slogdet(s)[1] + 4 * np.log(2 * np.pi)) / 2
        gains = limit - (squares if kind == "mahalanobis" else nll)
        partners = pair([Stage(kind, limit)], detections, boxes, spread=spread, errors=errors)
        assert sum(gains[d, t] for d, t in enumerate(partners) if t != FREE) == pytest.approx(most(gains))
        assert (partners != FREE).any()


def test_split_filters_have_the_distances_of_dense_ones() -> None:
    generator = np.random.default_rng(0)
    boxes, work = crowd(generator, 3, 100), np.empty((10, 4))
    split = make_filters(3)
    split[:, :4], split[:, 8::3] = to_space(boxes, "xywh"), generator.uniform(1, 5, (3, 4))
    z = to_space(boxes + 2, "xywh")
    for errors in (np.empty((0, 4, 4)), np.tile(np.eye(4), (3, 1, 1))):
        for kind in (3, 4):
            arguments = (z, TABLE, errors, 1, work)
            found = [distance(kind, np.inf, filters, 2, *arguments) for filters in (split, to_dense(split))]
            assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_the_papers_stage_pairs_first_and_refuses_then() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        boxes, detections = crowd(generator, 5, 200), crowd(generator, 4, 200)
        errors = generator.uniform(1, 50, (4, 4, 1)) * np.eye(4)
        variances = np.diagonal(errors, axis1=1, axis2=2)[:, None]
        off = to_space(detections, "xywh")[:, None] - to_space(boxes, "xywh")
        cost = np.maximum((np.log(2 * np.pi * variances) + off**2 / variances) / 2, 0).mean(2)
        limit = float(np.median(cost)) / 2
        expected = np.full(4, FREE)
        for d, t in zip(*linear_sum_assignment(cost), strict=True):
            if cost[d, t] <= limit:
                expected[d] = t
        assert pair([Stage("nll", limit)], detections, boxes, errors=errors).tolist() == expected.tolist()


def test_a_stage_works_on_what_those_before_it_left() -> None:
    boxes = np.array([[0.0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40]])
    detections = boxes[[1, 0]] + [[0.0], [46.0]]
    assert pair([Stage("iou", 0.3)], detections, boxes).tolist() == [1, FREE]
    assert pair([Stage("iou", 0.3), Stage("giou", -0.9)], detections, boxes).tolist() == [1, 0]
    assert pair([Stage("giou", -0.9), Stage("iou", 0.3)], detections, boxes).tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["iou", "giou", "nll", "mahalanobis", "innovation"])
def test_classes_are_kept_apart(kind: str) -> None:
    limit = {"iou": 0.3, "giou": 0.3}.get(kind, 100.0)
    boxes = np.array([[0.0, 0, 40, 40], [100, 0, 140, 40]])
    classes = np.array([1.0, 1, 0, 1])
    assert pair([Stage(kind, limit)], boxes + 1, boxes).tolist() == [0, 1]
    assert pair([Stage(kind, limit)], boxes + 1, boxes, classes=classes, per_class=True)[1] == 1
    assert (
        pair([Stage(kind, limit)], boxes[:1] + 1, boxes[:1], classes=classes[[0, 2]], per_class=True)[0]
        == FREE
    )


def test_many_boxes_in_parts_are_paired_as_well_as_whole() -> None:
    generator = np.random.default_rng(4)
    boxes = crowd(generator, 120, 500)
    detections = boxes[generator.permutation(120)][:100] + generator.normal(scale=4, size=(100, 4))
    o = overlaps(detections, boxes)
    partners = pair([Stage("iou", 0.0)], detections, boxes)
    total = sum(o[d, t] for d, t in enumerate(partners) if t != FREE)
    assert total == pytest.approx(o[linear_sum_assignment(-o)].sum(), rel=1e-12)


def test_no_detections_or_no_tracks() -> None:
    boxes = crowd(np.random.default_rng(5), 3, 100)
    for kind, limit in (("iou", 0.3), ("giou", 0), ("nll", 10), ("mahalanobis", 9), ("innovation", 10)):
        assert pair([Stage(kind, limit)], boxes[:0], boxes).tolist() == []
        assert pair([Stage(kind, limit)], boxes, boxes[:0]).tolist() == [FREE] * 3


@pytest.mark.parametrize("model", ["xysr", "xyah", "xywh"])
def test_compiled_measurements_are_those_of_the_parametrisation(model: str) -> None:
    boxes = crowd(np.random.default_rng(6), 5, 100)
    out = np.empty((5, 4))
    for row in range(5):
        measure(["xysr", "xyah", "xywh"].index(model), boxes, row, out)
    np.testing.assert_allclose(out, to_space(boxes, model), rtol=1e-12)


def test_impossible_stages_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="measure of association"):
        Stage("iuo", 0.3)
    for kind, limit in (("iou", 1.5), ("iou", -0.1), ("giou", -2), ("nll", np.nan), ("mahalanobis", -1)):
        with pytest.raises(SettingError, match=kind):
            Stage(kind, limit)
