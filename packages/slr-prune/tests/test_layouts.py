"""Folders in the layouts of COCO, KITTI and TuSimple, written by the tests, whole and damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slr_prune._annotated import IGNORE, AnnotatedImages
from slr_prune._layouts import read_layout
from tenfold import DataError, SettingError, UnknownNameError


def write_image(path: Path, width: int, height: int, colour: tuple[int, int, int] = (255, 0, 0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)


def read(layout: str, folder: Path, size: int = 32, count: int | None = None) -> AnnotatedImages:
    return read_layout(layout, folder, size=size, count=count, generator=np.random.default_rng(0))


def coco_document() -> dict[str, Any]:
    """One image of 64 x 32 (width, height) with a polygon, run lengths of both forms, and a crowd."""
    column = [32 * 8, 32 * 8, 32 * 48]  # columns 8 to 15
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 32}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 90,
                "bbox": [32, 8, 16, 16],
                "segmentation": [[32, 8, 48, 8, 48, 24, 32, 24]],
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 3,
                "bbox": [8, 0, 8, 32],
                "segmentation": {"counts": column, "size": [32, 64]},
            },
            {
                "id": 3,
                "image_id": 7,
                "category_id": 3,
                "bbox": [56, 0, 8, 32],
                "segmentation": {"counts": "", "size": [32, 64]},
                "iscrowd": 1,
            },
        ],
    }


def write_coco(folder: Path, document: dict[str, Any]) -> None:
    write_image(folder / "val" / "a.png", 64, 32)
    path = folder / "annotations" / "instances_val.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def compressed(mask: np.ndarray) -> str:
    coco = pytest.importorskip("pycocotools.mask")
    text: str = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    return text


def test_coco_boxes_masks_and_classes_are_resized_together(tmp_path: Path) -> None:
    document = coco_document()
    crowd = np.zeros((32, 64), bool)
    crowd[:, 56:] = True
    document["annotations"][2]["segmentation"]["counts"] = compressed(crowd)
    write_coco(tmp_path, document)
    data = read("coco", tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.images.shape == (1, 3, 32, 32)
    assert torch.equal(data.images[0].amax((1, 2)), torch.tensor([1.0, 0, 0]))
    assert data.labels[0].tolist() == [1, 0]
    assert data.boxes[0].tolist() == [[16, 8, 24, 24], [4, 0, 8, 32]]
    assert data.ignored[0].tolist() == [[28, 0, 32, 32]]
    assert data.masks is not None
    assert data.class_map is not None
    expected = torch.zeros(32, 32, dtype=torch.int64)
    expected[:, 28:] = IGNORE
    expected[8:24, 16:24] = 2
    expected[:, 4:8] = 1
    assert torch.equal(data.class_map[0], expected)
    assert torch.equal(data.masks[0], torch.stack([expected == 2, expected == 1]))


def test_smaller_coco_objects_lie_over_larger_ones(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"] = document["annotations"][:1]
    for number, (low, high) in enumerate([(0, 32), (12, 20)], 2):
        polygon = [low, low, high, low, high, high, low, high]
        size = high - low
        document["annotations"].append(
            {
                "id": number,
                "image_id": 7,
                "category_id": 3 if number == 2 else 90,
                "bbox": [low, low, size, size],
                "segmentation": [polygon],
            }
        )
    document["annotations"].reverse()
    write_coco(tmp_path, document)
    data = read("coco", tmp_path)
    assert data.class_map is not None
    assert data.class_map[0, 16, 8] == 2
    assert data.class_map[0, 2, 2] == 1


def damage(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    document = coco_document()
    document["annotations"].pop()
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["annotations"][0].update(bbox=[60, 0, 16, 16]),
            "instances_val.json: 1 .*box 60, 0, 76, 16",
        ),
        (lambda d: d["annotations"][0].update(bbox=[4, 4, -1, 3]), ": 1 .*box 4, 4, 3, 7"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2]), ": 1 cannot be used"),
        (lambda d: d["annotations"][0].update(bbox=[float("nan")] * 4), ": 1 .*box nan"),
        (
            lambda d: d["annotations"][1].update(category_id=5),
            r": 2 has category 5; expected one of \[3, 90\]",
        ),
        (lambda d: d["annotations"][1].update(image_id=8), ": 2 names the image 8"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3]]), ": 1 .*polygon of 3"),
        (lambda d: d["annotations"][1]["segmentation"].update(counts=[5]), ": 2 .*run lengths of 5 pixels"),
        (lambda d: d["annotations"][1]["segmentation"].update(size=[64, 32]), ": 2 .*64 x 32"),
        (lambda d: d["annotations"][1].pop("segmentation"), ": 2 cannot be used"),
        (lambda d: d["images"][0].update(width=65), "65 x 32 that has 64 x 32"),
        (lambda d: d["images"][0].update(file_name="b.png"), "image .*b.png cannot be read"),
        (lambda d: d.pop("categories"), "garbles 'categories'"),
        (lambda d: d.update(images=3), "instances_val.json lacks or garbles"),
    ],
)
def test_damaged_coco_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    write_coco(tmp_path, damage(change))
    with pytest.raises(DataError, match=message):
        read("coco", tmp_path)


def test_coco_boxes_without_area_are_left_out(tmp_path: Path) -> None:
    write_coco(tmp_path, damage(lambda d: d["annotations"][0].update(bbox=[4, 4, 0, 3])))
    assert read("coco", tmp_path).labels[0].tolist() == [0]


def test_truncated_coco_files_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, damage(lambda d: None))
    image = tmp_path / "val" / "a.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        read("coco", tmp_path)
    document = tmp_path / "annotations" / "instances_val.json"
    document.write_bytes(document.read_bytes()[:100])
    with pytest.raises(DataError, match=r"instances_val\.json cannot be read"):
        read("coco", tmp_path)


CAR = "Car 0.00 0 1.85 16.00 8.00 48.00 24.00 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"
DONT_CARE = "DontCare -1 -1 -10 0.00 0.00 8.00 8.00 -1 -1 -1 -1000 -1000 -1000 -10"


def write_kitti(folder: Path, *lines: str) -> None:
    write_image(folder / "image_2" / "000001.png", 64, 32)
    write_image(folder / "image_2" / "000002.png", 128, 64)
    (folder / "label_2").mkdir(exist_ok=True)
    (folder / "label_2" / "000001.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    walker = CAR.replace("Car", "Pedestrian")
    (folder / "label_2" / "000002.txt").write_text(walker, encoding="utf-8")


@pytest.mark.parametrize("below", ["", "training"])
def test_kitti_has_boxes_and_ignored_regions(below: str, tmp_path: Path) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    write_kitti(tmp_path / below, CAR, DONT_CARE)
    data = read("kitti", tmp_path)
    assert data.classes == ("Car", "Pedestrian")
    assert data.masks is None
    assert data.class_map is None
    car, walker = (1, 0) if data.labels[0].tolist() == [1] else (0, 1)
    assert data.boxes[car].tolist() == [[8, 8, 24, 24]]
    assert data.ignored[car].tolist() == [[0, 0, 4, 8]]
    assert data.boxes[walker].tolist() == [[4, 4, 12, 12]]
    assert data.ignored[walker].shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (CAR.replace("48.00", "70.00"), "000001.txt: line 2 cannot be used .*box 16, 8, 70, 24"),
        (CAR.replace("48.00", "x"), "line 2 cannot be used"),
        ("0 2 " + CAR[:40], "line 2 has .* fields"),
    ],
)
def test_damaged_kitti_is_refused(line: str, message: str, tmp_path: Path) -> None:
    write_kitti(tmp_path, CAR, line)
    with pytest.raises(DataError, match=message):
        read("kitti", tmp_path)


def test_a_kitti_image_that_is_missing_is_named(tmp_path: Path) -> None:
    write_kitti(tmp_path, CAR)
    (tmp_path / "image_2" / "000002.png").unlink()
    with pytest.raises(DataError, match=r"000002\.png cannot be read"):
        read("kitti", tmp_path)


def write_tusimple(folder: Path, **changes: Any) -> None:
    entry = {
        "lanes": [[-2, 320, 320, 320], [640, 800, 960, -2], [-2, -2, -2, -2]],
        "h_samples": [0, 240, 480, 720],
        "raw_file": "clips/1/20.jpg",
        **changes,
    }
    write_image(folder / "clips" / "1" / "20.jpg", 1280, 720)
    (folder / "label_data_0313.json").write_text(json.dumps(entry) + "\n\n", encoding="utf-8")


def test_tusimple_lanes_are_strips(tmp_path: Path) -> None:
    write_tusimple(tmp_path)
    data = read("tusimple", tmp_path, size=128)
    assert data.classes == ("lane",)
    assert data.masks is not None
    assert data.class_map is not None
    straight, slanted = data.masks[0]
    rows, columns = torch.nonzero(straight, as_tuple=True)
    assert (rows.min(), rows.max()) == (43, 127)  # from 240 of 720 down
    assert set(columns.tolist()) == {30, 31, 32}  # 3 of 128 are 30 of 1280
    assert straight.sum() == 85 * 3
    for row, centre in ((0, 64), (42, 80), (84, 96)):
        hit = torch.nonzero(slanted[row]).flatten().double()
        assert abs(hit.mean() + 0.5 - centre) < 1
    assert not slanted[86:].any()
    assert torch.equal(data.class_map[0] == 1, straight | slanted)
    assert data.boxes[0][0].tolist() == [30, 43, 33, 128]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lanes": [[1, 2]]}, "label_data_0313.json: line 1 has a lane of 2 points for 4"),
        ({"lanes": [[1, 2, 3, 2000]]}, "line 1 has a lane outside the image"),
        ({"h_samples": [0, 240, 240, 720]}, "line 1 has a lane"),
        ({"raw_file": "clips/9.jpg"}, "clips/9.jpg cannot be read"),
        ({"lanes": 3}, "line 1 cannot be used"),
        ({"lanes": [["a", 1, 2, 3]]}, "line 1 cannot be used"),
    ],
)
def test_damaged_tusimple_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_tusimple(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        read("tusimple", tmp_path)


def test_a_truncated_tusimple_line_is_refused(tmp_path: Path) -> None:
    write_tusimple(tmp_path)
    path = tmp_path / "label_data_0313.json"
    path.write_text(path.read_text(encoding="utf-8")[:40], encoding="utf-8")
    with pytest.raises(DataError, match="line 1 cannot be used"):
        read("tusimple", tmp_path)


@pytest.mark.parametrize("layout", ["coco", "kitti", "tusimple"])
def test_a_folder_of_something_else_is_refused(layout: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no .* in {tmp_path}"):
        read(layout, tmp_path)
    with pytest.raises(DataError, match="no folder"):
        read(layout, tmp_path / "gone")


def test_the_number_of_images_is_drawn_by_the_generator(tmp_path: Path) -> None:
    write_kitti(tmp_path, CAR)
    assert len(read("kitti", tmp_path, count=1)) == 1
    with pytest.raises(SettingError, match=r"3 images of .*expected 1 to 2"):
        read("kitti", tmp_path, count=3)
    drawn = {
        int(
            read_layout("kitti", tmp_path, size=32, count=1, generator=np.random.default_rng(seed)).labels[0][
                0
            ]
        )
        for seed in range(8)
    }
    assert drawn == {0, 1}


def test_an_unknown_layout_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'coco'"):
        read("coca", tmp_path)
