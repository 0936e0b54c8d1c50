"""Metrics: against sklearn and plain formulas, additive over samples, masks."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor

from dgba.metrics import (
    AbsoluteError,
    Accuracy,
    AngleWithin,
    MeanAngle,
    MeanIoU,
    MedianAngle,
    Metric,
    RatioWithin,
    RelativeError,
    SampleMean,
    angles,
)
from tenfold import SettingError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = draw(7, 6, 6, seed=1).abs().mul(2).long().clamp(max=4)
LABELS[2, :3] = 255
LOGITS = draw(7, 5, 6, 6) + torch.nn.functional.one_hot(LABELS.clamp(max=4), 5).movedim(-1, 1)
NORMALS = draw(7, 3, 6, 6, seed=2)
NORMALS[3, :, 2] = 0
FOUND = NORMALS + 0.5 * draw(7, 3, 6, 6, seed=3)
DEPTHS = draw(7, 1, 6, 6, seed=4).abs() + 0.1
DEPTHS[1, :, 4] = 0
GUESSES = DEPTHS + 0.3 * draw(7, 1, 6, 6, seed=5)

CASES: list[tuple[Metric, Tensor, Tensor]] = [
    (Accuracy(255), LOGITS, LABELS),
    (MeanIoU(5, 255), LOGITS, LABELS),
    (MeanAngle(0.0), FOUND, NORMALS),
    (MedianAngle(0.0), FOUND, NORMALS),
    (AngleWithin(11.25, 0.0), FOUND, NORMALS),
    (AbsoluteError(0.0), GUESSES, DEPTHS),
    (RelativeError(0.0), GUESSES, DEPTHS),
    (RatioWithin(1.25, 0.0), GUESSES, DEPTHS),
]


@pytest.mark.parametrize(("metric", "output", "target"), CASES)
def test_statistics_add_up_over_batches(metric: Metric, output: Tensor, target: Tensor) -> None:
    together = metric.statistics(output, target)
    parts = [metric.statistics(output[part], target[part]) for part in (slice(0, 3), slice(3, 7))]
    torch.testing.assert_close(torch.cat(parts), together)
    assert together.dtype == torch.float64
    resamples = torch.ones(2, 7, dtype=torch.float64)
    resamples[1, 3:] = 0
    values = metric.values(resamples @ together)
    assert values[0].item() == pytest.approx(metric(output, target))
    assert values[1].item() == pytest.approx(metric(output[:3], target[:3]))


def test_mean_iou_and_accuracy_are_sklearns() -> None:
    valid = LABELS.numpy() != 255
    truth, found = LABELS.numpy()[valid], LOGITS.argmax(1).numpy()[valid]
    assert MeanIoU(5, 255)(LOGITS, LABELS) == pytest.approx(jaccard_score(truth, found, average="macro"))
    assert Accuracy(255)(LOGITS, LABELS) == pytest.approx(np.mean(truth == found))


def test_classes_that_do_not_occur_do_not_count() -> None:
    logits, labels = LOGITS[:, [0, 1, 2, 3, 4, 4]].clone(), LABELS
    logits[:, 5] = -math.inf
    assert MeanIoU(6, 255)(logits, labels) == pytest.approx(MeanIoU(5, 255)(LOGITS, LABELS))


def test_angles_are_right_down_to_tiny_ones() -> None:
    for degrees in (0.0, 1e-6, 1.0, 90.0, 179.999999, 180.0):
        radians = math.radians(degrees)
        output = torch.tensor([[3.0, 0.0, 0.0]], dtype=torch.float64)
        target = torch.tensor([[math.cos(radians), math.sin(radians), 0.0]], dtype=torch.float64)
        found, valid = angles(output, target)
        assert found.item() == pytest.approx(degrees, abs=1e-12 + 1e-10 * degrees)
        assert valid.all()


def test_angle_metrics_are_those_of_the_sorted_angles() -> None:
    found, valid = angles(FOUND, NORMALS, 0.0)
    assert not valid[3, 2].any()
    values = found[valid].numpy()
    assert MeanAngle(0.0)(FOUND, NORMALS) == pytest.approx(values.mean())
    assert MedianAngle(0.0)(FOUND, NORMALS) == pytest.approx(np.median(values), abs=0.5)
    assert AngleWithin(22.5, 0.0)(FOUND, NORMALS) == pytest.approx((values < 22.5).mean())


def test_the_median_is_exact_to_a_tenth_of_a_degree() -> None:
    radians = torch.linspace(0, 1, 100_001, dtype=torch.float64).square()
    output = torch.stack([radians.cos(), radians.sin()]).unsqueeze(0)
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)[None, :, None].expand_as(output)
    assert MedianAngle()(output, target) == pytest.approx(math.degrees(0.25), abs=0.1)
    assert MedianAngle()(target, target) < 0.1
    assert MedianAngle()(-target, target) > 179.9


def test_depth_metrics_are_their_formulas_where_there_is_depth() -> None:
    output = torch.tensor([[[[2.0, 1.0, -1.0, 7.0]]]])
    target = torch.tensor([[[[1.6, 1.0, 1.0, 0.0]]]])
    assert AbsoluteError(0.0)(output, target) == pytest.approx((0.4 + 0 + 2) / 3)
    assert RelativeError(0.0)(output, target) == pytest.approx((0.25 + 0 + 2) / 3)
    assert RatioWithin(1.26, 0.0)(output, target) == pytest.approx(2 / 3)
    assert RatioWithin(1.24, 0.0)(output, target) == pytest.approx(1 / 3)


def test_a_plain_function_counts_by_its_mean_without_nan() -> None:
    metric = SampleMean(lambda output, target: output / target)
    assert metric(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(2.0)


@pytest.mark.parametrize("metric", [MeanAngle(0.0), MedianAngle(0.0), AngleWithin(30.0, 0.0)])
def test_nothing_valid_gives_nan(metric: Metric) -> None:
    assert math.isnan(metric(FOUND, torch.zeros_like(NORMALS)))
    assert math.isnan(MeanIoU(5, 255)(LOGITS, torch.full_like(LABELS, 255)))


def test_outputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingError, match="the same shape"):
        AbsoluteError()(GUESSES, DEPTHS[:, 0])
    with pytest.raises(SettingError, match="classes from 0 to 255"):
        Accuracy()(LOGITS, LABELS)
