from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from dgba import TransferMatrix, classification, depth, edges, normals, segmentation
from dgba.pictures import curves, draw_task, side_by_side, transfer_heatmaps

TASKS = (segmentation("kind", 4), depth(), normals(), edges(), classification("scene", 3))
SIZE = 8


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                "kind": nn.Conv2d(3, 4, 1),
                "depth": nn.Conv2d(3, 1, 1),
                "normals": nn.Conv2d(3, 3, 1),
                "edges": nn.Conv2d(3, 1, 1),
            }
        )
        self.scene = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {
            **{name: head(images) for name, head in self.heads.items()},
            "scene": self.scene(images.mean((2, 3))),
        }


def targets(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(4, (count, SIZE, SIZE), generator=generator)
    kind[:, 0, 0] = 255
    return {
        "kind": kind,
        "depth": torch.rand(count, 1, SIZE, SIZE, generator=generator),
        "normals": torch.randn(count, 3, SIZE, SIZE, generator=generator),
        "edges": torch.rand(count, 1, SIZE, SIZE, generator=generator),
        "scene": torch.randint(3, (count,), generator=generator),
    }


def places() -> list[Axes]:
    return list(Figure().subplots(1, 3))


def pixels(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array())


def test_every_kind_of_task_is_drawn(tmp_path: Path) -> None:
    images = torch.rand(2, 3, SIZE, SIZE)
    path = side_by_side(
        tmp_path / "a" / "out.png", Heads(), TASKS, images, images + 0.1, targets(2), title="t"
    )
    with Image.open(path) as picture:
        assert picture.width > 2 * picture.height
        assert picture.convert("L").getextrema() == (0, 255)
    assert [item.name for item in (tmp_path / "a").iterdir()] == ["out.png"]


def test_classes_have_one_colour_each_and_ignored_pixels_are_white() -> None:
    drawn = places()
    logits = torch.zeros(4, 2, 2)
    logits[3] = 1
    draw_task(drawn, TASKS[0], torch.tensor([[3, 255], [3, 1]]), logits, -logits, headings=True)
    true, clean, _ = (pixels(axes) for axes in drawn)
    assert (true[0, 1] == 1).all()
    assert (true[0, 0] == clean[0, 0]).all()
    assert (true[1, 1] != clean[1, 1]).any()
    assert drawn[2].get_title() == "kind\nattacked"


def test_maps_share_the_scale_of_the_valid_truth() -> None:
    drawn = places()
    truth = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    draw_task(drawn, TASKS[1], truth, truth, truth + 10, headings=False)
    true, clean, attacked = (pixels(axes) for axes in drawn)
    np.testing.assert_array_equal(true, clean)
    assert (attacked == true[1, 1]).all()
    assert (true[0, 0] == true[0, 1]).all()


def test_a_direction_is_drawn_whatever_its_length() -> None:
    drawn = places()
    up = torch.zeros(3, 2, 2)
    up[1] = 1
    draw_task(drawn, TASKS[2], up, 7 * up, -up, headings=False)
    true, clean, attacked = (pixels(axes) for axes in drawn)
    np.testing.assert_allclose(true, clean)
    np.testing.assert_allclose(true[0, 0], [0.5, 1, 0.5])
    np.testing.assert_allclose(attacked[0, 0], [0.5, 0, 0.5])


def test_classes_of_an_image_are_bars_that_sum_to_one() -> None:
    drawn = places()
    draw_task(
        drawn, TASKS[4], torch.tensor(2), torch.tensor([0.0, 1, 2]), torch.tensor([3.0, 0, 0]), headings=True
    )
    heights = [[bar.get_height() for bar in axes.patches] for axes in drawn]  # type: ignore[attr-defined]
    assert heights[0] == [0, 0, 1]
    assert [sum(item) for item in heights] == pytest.approx([1, 1, 1])
    assert heights[2][0] == max(heights[2])


def test_matrices_and_curves_are_written(tmp_path: Path) -> None:
    matrix = TransferMatrix(("a", "b"), np.array([[-50.0, -3.0], [1.0, -80.0]]))
    first = transfer_heatmaps(tmp_path / "m.png", {"one": matrix, "two": matrix}, title="t")
    second = curves(tmp_path / "c.png", {"a": {0.0: [0.0, 0.0], 4.0: [-1.0, -2.0]}}, title="t", x="x", y="y")
    for path in (first, second):
        with Image.open(path) as picture:
            assert min(picture.size) > 100
