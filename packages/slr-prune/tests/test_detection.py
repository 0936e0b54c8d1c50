"""Targets decode to the boxes, NMS by brute force, average precision by hand and by COCO's code."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from slr_prune._annotated import AnnotatedImages
from slr_prune._boxes import Detections, nms, pairwise_iou
from slr_prune._detection import CenterDetector, decode, detect, detection_loss, detection_targets
from slr_prune._precision import COCO_THRESHOLDS, mean_average_precision
from slr_prune._scenes import generate_scenes
from tenfold import SettingError

COORDINATE = st.integers(0, 32)
BOX = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]) + 1, max(c[1], c[3]) + 1)
)


def annotated(
    boxes: list[list[tuple[float, ...]]],
    labels: list[list[int]],
    ignored: list[list[tuple[float, ...]]] | None = None,
    classes: int = 2,
    size: int = 64,
) -> AnnotatedImages:
    def tensor(rows: list[tuple[float, ...]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32).view(-1, 4)

    return AnnotatedImages(
        classes=tuple("abcdef"[:classes]),
        images=torch.zeros(len(boxes), 3, size, size),
        boxes=tuple(map(tensor, boxes)),
        labels=tuple(torch.tensor(item, dtype=torch.int64) for item in labels),
        ignored=tuple(map(tensor, ignored or [[] for _ in boxes])),
        masks=None,
        class_map=None,
    )


def detections(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.tensor(scores), torch.tensor(labels)
    )


def as_rows(boxes: Tensor, labels: Tensor) -> list[list[float]]:
    return sorted([*box, label] for box, label in zip(boxes.tolist(), labels.tolist(), strict=True))


def test_iou_in_closed_form() -> None:
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0]])
    b = torch.tensor([[2.0, 2, 6, 6], [0, 0, 4, 4], [4, 0, 8, 4], [1, 1, 3, 3], [0, 0, 0, 0]])
    assert pairwise_iou(a, b).tolist() == [
        pytest.approx([4 / 28, 1, 0, 4 / 16, 0]),
        [0, 0, 0, 0, 0],
    ]


@given(BOX, BOX)
def test_iou_counts_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    def pixels(box: tuple[int, ...]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    expected = len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b))
    iou = pairwise_iou(torch.tensor([a]).float(), torch.tensor([b]).float())
    assert iou.item() == pytest.approx(expected)


@given(st.lists(st.tuples(BOX, st.floats(0, 1, width=32), st.integers(0, 1)), max_size=8))
def test_nms_keeps_what_no_better_kept_box_overlaps(rows: list[tuple[tuple[int, ...], float, int]]) -> None:
    found = detections(*rows)
    kept = nms(found.boxes, found.scores, found.labels, 0.5).tolist()
    overlap = pairwise_iou(found.boxes, found.boxes) > 0.5
    order = sorted(range(len(rows)), key=lambda index: -rows[index][1])
    expected: list[int] = []
    for index in order:
        if not any(overlap[index, other] and rows[index][2] == rows[other][2] for other in expected):
            expected.append(index)
    assert kept == expected


@pytest.mark.parametrize("size", [32, 64])
def test_targets_decode_to_the_boxes_exactly(size: int) -> None:
    scenes = generate_scenes(40, np.random.default_rng(1), size=size)
    targets = detection_targets(scenes)
    found = decode(targets.heat, targets.sides, least_score=1.0, overlap=1.0)
    exact = 0
    for mine, boxes, labels in zip(found, scenes.boxes, scenes.labels, strict=True):
        cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 / 4).long()
        if len({*map(tuple, cells.tolist())}) == len(cells):
            assert as_rows(mine.boxes, mine.labels) == as_rows(boxes, labels)
            exact += 1
    assert exact >= 35


def test_of_two_objects_in_one_cell_the_smaller_gives_the_box() -> None:
    examples = annotated([[(8, 8, 40, 40), (20, 20, 28, 28)]], [[0, 1]])
    targets = detection_targets(examples)
    assert targets.heat[0, :, 6, 6].tolist() == [1, 1]
    assert (targets.sides[0, :, 6, 6] * 4).tolist() == [6, 6, 2, 2]


def test_ignored_regions_are_not_learnt() -> None:
    examples = annotated([[(0, 0, 16, 16)]], [[0]], [[(32, 32, 64, 64), (0, 0, 16, 16)]])
    targets = detection_targets(examples)
    assert not targets.known[0, 8:, 8:].any()
    assert targets.known[0, 2, 2]
    assert int(targets.known.sum()) == 16 * 16 - 8 * 8 - 4 * 4 + 1
    output = torch.zeros(1, 6, 16, 16, requires_grad=True)
    detection_loss(output, targets).backward()
    assert output.grad is not None
    assert (output.grad[:, :2, 8:, 8:] == 0).all()
    assert (output.grad[:, :2, :8, 8:] != 0).all()


def test_the_loss_is_least_at_the_targets() -> None:
    scenes = generate_scenes(4, np.random.default_rng(0))
    targets = detection_targets(scenes)
    perfect = torch.cat([torch.where(targets.heat == 1, 12.0, -12.0), targets.sides], 1)
    assert detection_loss(perfect, targets) < 1e-3
    for shift in (0.5, -0.5):
        worse = perfect.clone()
        worse[:, 3:] += shift
        assert detection_loss(worse, targets) > detection_loss(perfect, targets) + 0.5
    assert detection_loss(torch.zeros_like(perfect), targets) > 1


def test_images_without_objects_are_possible() -> None:
    examples = annotated([[]], [[]])
    targets = detection_targets(examples)
    assert detection_loss(torch.zeros(1, 6, 16, 16), targets).isfinite()
    (nothing,) = decode(targets.heat, targets.sides)
    assert len(nothing.boxes) == len(nothing.scores) == len(nothing.labels) == 0
    assert mean_average_precision([nothing], examples) == [0.0]


def test_a_few_steps_lower_the_loss_and_find_objects() -> None:
    scenes = generate_scenes(4, np.random.default_rng(2), size=32, shapes=2)
    targets = detection_targets(scenes)
    torch.manual_seed(0)
    model = CenterDetector(3, width=6)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(80):
        loss = detection_loss(model(scenes.images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        found = detect(model(scenes.images), 3)
    assert mean_average_precision(found, scenes)[0] > 0.8


def test_average_precision_by_hand() -> None:
    # Three objects; hit, miss, hit: precision 1 up to recall 1/3, then 2/3 up to 2/3, then nothing.
    examples = annotated([[(0, 0, 10, 10), (20, 20, 30, 30)], [(0, 0, 10, 10)]], [[0, 0], [0]])
    found = [
        detections(((0, 0, 10, 10), 0.9, 0), ((40, 40, 50, 50), 0.8, 0), ((20, 20, 30, 30), 0.7, 0)),
        detections(),
    ]
    expected = (34 * 1 + 33 * 2 / 3) / 101
    assert mean_average_precision(found, examples) == [pytest.approx(expected)]


def test_an_object_is_found_once_and_by_its_class() -> None:
    examples = annotated([[(0, 0, 10, 10)]], [[0]])
    box = (0, 0, 10, 10)
    assert mean_average_precision([detections((box, 0.9, 0))], examples) == [1.0]
    assert mean_average_precision([detections((box, 0.9, 1))], examples) == [0.0]
    other = (30, 30, 40, 40)
    twice = [detections((box, 0.9, 0), (box, 0.8, 0), (other, 0.7, 0))]
    assert mean_average_precision(twice, annotated([[box, other]], [[0, 0]])) == [
        pytest.approx((51 + 50 * 2 / 3) / 101)
    ]
    late = [detections((other, 0.9, 0), (box, 0.8, 0))]
    assert mean_average_precision(late, examples) == [0.5]


def test_thresholds_ask_for_overlap() -> None:
    examples = annotated([[(0, 0, 10, 10)]], [[0]])
    found = [detections(((0, 0, 10, 7), 0.9, 0))]
    assert mean_average_precision(found, examples, (0.5, 0.7, 0.75)) == [1.0, 1.0, 0.0]


def test_detections_in_ignored_regions_do_not_count() -> None:
    region = [[(30.0, 30.0, 60.0, 60.0)]]
    rows = [((35, 35, 45, 45), 0.9, 0), ((0, 0, 10, 10), 0.8, 0)]
    boxes, labels = [[(0.0, 0.0, 10.0, 10.0)]], [[0]]
    assert mean_average_precision([detections(*rows)], annotated(boxes, labels)) == [0.5]
    assert mean_average_precision([detections(*rows)], annotated(boxes, labels, region)) == [1.0]


def precision_by_coco(examples: AnnotatedImages, found: list[Detections]) -> list[float]:
    """COCO's evaluation code: mean over its thresholds, at 0.5, at 0.75."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")

    def entries(boxes: tuple[Tensor, ...], labels: tuple[Tensor, ...]) -> list[dict[str, Any]]:
        return [
            {"image_id": i, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            | {"area": (x2 - x1) * (y2 - y1)}
            for i in range(len(boxes))
            for (x1, y1, x2, y2), label in zip(boxes[i].tolist(), labels[i], strict=True)
        ]

    truth, guess = coco.COCO(), coco.COCO()
    real = entries(examples.boxes, examples.labels)
    ours = entries(tuple(item.boxes for item in found), tuple(item.labels for item in found))
    scores = torch.cat([item.scores for item in found]).tolist()
    ours = [entry | {"score": score} for entry, score in zip(ours, scores, strict=True)]
    for side, rows in ((truth, real), (guess, ours)):
        side.dataset = {
            "images": [{"id": index} for index in range(len(examples))],
            "categories": [{"id": index} for index in range(len(examples.classes))],
            "annotations": [entry | {"id": number} for number, entry in enumerate(rows, 1)],
        }
        side.createIndex()
    run = evaluation.COCOeval(truth, guess, "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return [float(value) for value in run.stats[:3]]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_cocos(seed: int) -> None:
    scenes = generate_scenes(12, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for boxes, labels in zip(scenes.boxes, scenes.labels, strict=True):
        near = boxes.repeat(3, 1) + 4 * torch.randn(3 * len(boxes), 4, generator=generator)
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        scores = torch.rand(len(near), generator=generator)
        guessed = torch.where(torch.rand(len(near), generator=generator) < 0.2, 0, labels.repeat(3))
        found.append(Detections(near, scores, guessed))
    expected = precision_by_coco(scenes, found)
    ours = mean_average_precision(found, scenes, COCO_THRESHOLDS)
    assert [np.mean(ours), ours[0], ours[5]] == pytest.approx(expected, abs=1e-9)
    assert 0.1 < ours[0] < 0.9


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_average_precision_is_between_0_and_1_and_falls_with_the_threshold(seed: int) -> None:
    scenes = generate_scenes(3, np.random.default_rng(seed), size=32)
    generator = torch.Generator().manual_seed(seed)
    found = [
        Detections(boxes + torch.randn(boxes.shape, generator=generator), torch.rand(len(boxes)), labels)
        for boxes, labels in zip(scenes.boxes, scenes.labels, strict=True)
    ]
    values = mean_average_precision(found, scenes, COCO_THRESHOLDS)
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)


def test_bad_input_is_refused() -> None:
    scenes = generate_scenes(2, np.random.default_rng(0), size=40)
    with pytest.raises(SettingError, match="40 x 40"):
        detection_targets(scenes)
    with pytest.raises(SettingError, match="detections in 0 images"):
        mean_average_precision([], scenes)
    with pytest.raises(SettingError, match="classes is 0"):
        CenterDetector(0)
