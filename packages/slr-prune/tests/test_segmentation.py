"""The U-Net's shapes, its loss, and mean IoU against sets counted one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from slr_prune._annotated import IGNORE
from slr_prune._scenes import generate_scenes
from slr_prune._segmentation import UNet, mean_iou, segmentation_loss
from tenfold import SettingError


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (19, 33)])
def test_the_output_is_as_large_as_the_image(height: int, width: int) -> None:
    assert UNet(5, width=4)(torch.rand(2, 3, height, width)).shape == (2, 5, height, width)


def test_the_skips_reach_the_output() -> None:
    model = UNet(3, width=4).eval()
    x = torch.rand(1, 3, 32, 32)
    whole = model(x)
    skipped = model.decoder[-1][0][0]
    with torch.no_grad():
        skipped.weight[:, :4] = 0
    assert not torch.allclose(model(x), whole)


def test_the_loss_is_cross_entropy_plus_dice() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    classes = torch.randint(3, (2, 4, 5), generator=generator)
    shares, truth = logits.softmax(1), F.one_hot(classes, 3).permute(0, 3, 1, 2)
    dice = [
        (2 * (shares[:, c] * truth[:, c]).sum() + 1) / (shares[:, c].sum() + truth[:, c].sum() + 1)
        for c in range(3)
    ]
    expected = F.cross_entropy(logits, classes) + 1 - sum(dice) / 3
    torch.testing.assert_close(segmentation_loss(logits, classes), expected)


def test_ignored_pixels_do_not_count() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    classes = torch.zeros(1, 4, 4, dtype=torch.int64)
    classes[0, 2:] = IGNORE
    segmentation_loss(logits, classes).backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, 2:] == 0).all()
    assert (logits.grad[:, :, :2] != 0).all()
    assert segmentation_loss(logits, torch.full_like(classes, IGNORE)).isfinite()


def test_a_few_steps_lower_the_loss() -> None:
    scenes = generate_scenes(8, np.random.default_rng(0), size=32)
    assert scenes.class_map is not None
    torch.manual_seed(0)
    model = UNet(4, width=4)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(15):
        loss = segmentation_loss(model(scenes.images), scenes.class_map)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_mean_iou_in_closed_form() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 1, IGNORE]])
    predicted = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 2]])
    # ground: 3 of 5; class 1: 2 of 4; class 2 appears in an ignored pixel only
    assert mean_iou(predicted, truth, 3) == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert mean_iou(truth.clamp(min=0), truth, 3) == 1.0
    assert mean_iou(predicted, torch.full_like(truth, IGNORE), 3) == 1.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=30))
def test_mean_iou_against_sets(pairs: list[tuple[int, int]]) -> None:
    predicted, truth = (torch.tensor(side) for side in zip(*pairs, strict=True))
    ratios = []
    for label in range(4):
        mine = {i for i, (p, t) in enumerate(pairs) if p == label and t != IGNORE}
        real = {i for i, (_, t) in enumerate(pairs) if t == label}
        if mine | real:
            ratios.append(len(mine & real) / len(mine | real))
    assert mean_iou(predicted, truth, 4) == pytest.approx(sum(ratios) / len(ratios) if ratios else 1.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(SettingError, match="argmax"):
        mean_iou(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), 3)
    with pytest.raises(SettingError, match="width is 0"):
        UNet(3, width=0)
