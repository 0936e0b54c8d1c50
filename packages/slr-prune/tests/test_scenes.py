"""Generated scenes: masks, boxes, labels and class map say the same, and the image shows it."""

import numpy as np
import pytest
import torch

from slr_prune._annotated import AnnotatedImages, boxes_of_masks
from slr_prune._scenes import SHAPES, generate_scenes
from tenfold import SettingError


@pytest.fixture(scope="module")
def scenes() -> AnnotatedImages:
    return generate_scenes(60, np.random.default_rng(3))


def test_every_scene_has_its_objects(scenes: AnnotatedImages) -> None:
    assert scenes.masks is not None
    assert scenes.images.shape == (60, 3, 64, 64)
    assert scenes.images.dtype == torch.float32
    assert 0 <= scenes.images.min() < scenes.images.max() <= 1
    counts = [len(boxes) for boxes in scenes.boxes]
    assert set(counts) == {1, 2, 3, 4}
    for masks, labels, count in zip(scenes.masks, scenes.labels, counts, strict=True):
        assert masks.shape == (count, 64, 64)
        assert labels.shape == (count,)
    assert set(torch.cat(scenes.labels).tolist()) == set(range(len(SHAPES)))


def test_boxes_are_tight_around_masks(scenes: AnnotatedImages) -> None:
    assert scenes.masks is not None
    for boxes, masks in zip(scenes.boxes, scenes.masks, strict=True):
        for (left, top, right, bottom), mask in zip(boxes.long().tolist(), masks, strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            assert (left, right - 1) == (columns.min(), columns.max())
            assert (top, bottom - 1) == (rows.min(), rows.max())


def test_masks_are_disjoint_and_make_the_class_map(scenes: AnnotatedImages) -> None:
    assert scenes.masks is not None
    assert scenes.class_map is not None
    for masks, labels, painted in zip(scenes.masks, scenes.labels, scenes.class_map, strict=True):
        assert masks.sum(0).max() == 1
        assert torch.equal((masks * (labels + 1)[:, None, None]).sum(0), painted)


def test_an_object_has_one_colour_that_is_not_the_grounds(scenes: AnnotatedImages) -> None:
    assert scenes.masks is not None
    for image, masks in zip(scenes.images, scenes.masks, strict=True):
        ground = image[:, ~masks.any(0)]
        for mask in masks:
            inside = image[:, mask]
            assert inside.std(1).max() < 0.06
            assert (inside.mean(1).max() - inside.mean(1).min()) > (
                ground.mean(1).max() - ground.mean(1).min()
            )


def test_the_ground_is_band_limited() -> None:
    empty = generate_scenes(200, np.random.default_rng(0), shapes=1)
    assert empty.masks is not None
    untouched = [
        image.mean(0)[:32, :32] - image.mean(0)[:32, :32].mean()
        for image, masks in zip(empty.images, empty.masks, strict=True)
        if not masks[:, :32, :32].any()
    ]
    power = torch.fft.rfft2(torch.stack(untouched)).abs().square().mean(0)
    frequency = 2 * 64 / 64 * torch.hypot(torch.fft.fftfreq(32)[:, None] * 32, torch.fft.rfftfreq(32) * 32)
    assert power[(frequency > 2) & (frequency < 16)].mean() > 20 * power[frequency > 24].mean()


def test_scenes_follow_from_the_generator() -> None:
    first, again, other = (generate_scenes(5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert all(torch.equal(a, b) for a, b in zip(first.boxes, again.boxes, strict=True))
    assert not torch.equal(first.images, other.images)


def test_splits_are_consecutive(scenes: AnnotatedImages) -> None:
    first, second = scenes.split([10, 5])
    assert (len(first), len(second)) == (10, 5)
    assert torch.equal(second.images[0], scenes.images[10])
    assert torch.equal(second.boxes[4], scenes.boxes[14])


def test_boxes_of_masks_are_at_pixel_edges() -> None:
    mask = torch.zeros(1, 6, 8, dtype=torch.bool)
    mask[0, 1:3, 4:8] = True
    assert boxes_of_masks(mask).tolist() == [[4, 1, 8, 3]]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"count": 0}, "count is 0"), ({"size": 16}, "size is 16"), ({"shapes": 0}, "shapes is 0")],
)
def test_impossible_scenes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        generate_scenes(generator=np.random.default_rng(0), **{"count": 1, **sizes})
