"""Folders of annotated images in the layouts of COCO, KITTI and TuSimple.

Every layout is listed first and read after, so that a few images of a large folder cost little.
Images are resized to a square; boxes and masks follow, masks sampled at the centres of the new pixels.
Whatever of a drawn image does not fit it ends in a `DataError` that names file and entry.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slr_prune._annotated import IGNORE, AnnotatedImages, boxes_of_masks
from slr_prune._masks import Mask, decode_run_lengths, polygon_mask, resize_nearest, run_length_mask
from tenfold import DataError, SettingError, UnknownNameError

SLACK = 1.0
LANE_WIDTH = 30 / 1280
KITTI_FIELDS = 15
TUSIMPLE_CLASSES = ("lane",)


@dataclass(frozen=True)
class Sample:
    """One image and what is known of it before it is read.

    Attributes
    ----------
    image : Path
    annotate : callable
        Takes width and height of the image and the wanted size, and returns its `Objects`.
    """

    image: Path
    annotate: Callable[[int, int, int], Objects]


@dataclass
class Objects:
    """The objects of one image after resizing; see `AnnotatedImages`."""

    labels: list[int] = field(default_factory=list)
    boxes: list[Sequence[float]] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    ignored: list[Sequence[float]] = field(default_factory=list)
    ignored_masks: list[Mask] = field(default_factory=list)


def read_layout(
    layout: str, folder: Path, *, size: int, count: int | None = None, generator: np.random.Generator
) -> AnnotatedImages:
    """Read images and annotations from a folder.

    Parameters
    ----------
    layout : str
        ``"coco"``: ``annotations/instances_NAME.json`` beside a folder of images NAME, for one or
        more NAMEs; masks from polygons and run lengths; crowds are ignored regions; boxes without
        area, of which the published files have a few, are left out.
        ``"kitti"``: ``image_2`` and ``label_2``, or the two in ``training``; DontCare areas are
        ignored regions; no masks.
        ``"tusimple"``: ``label_data_*.json`` with the images that they name; a lane is a strip
        of 30 pixels in 1280, its box what the strip spans.
    folder : Path
    size : int
        Height and width of the images to return.
    count : int, optional
        Number of images to draw; all of them in a random order when not given.
    generator : numpy.random.Generator
        Draws the images.

    Returns
    -------
    AnnotatedImages

    Raises
    ------
    UnknownNameError
        No layout has that name.
    SettingError
        The folder holds fewer images than `count`.
    DataError
        A file is missing or corrupt, a box lies outside its image, a category is unknown.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}", f"data in the layout of {layout}", "Name its top folder.")
    classes, samples = LAYOUTS[layout](folder)
    count = len(samples) if count is None else count
    if not 0 < count <= len(samples):
        raise SettingError(
            f"{count} images of {folder}",
            f"1 to {len(samples)}, as there are",
            "Lower the sizes of the splits.",
        )
    chosen = [samples[index] for index in generator.permutation(len(samples))[:count]]
    images, objects = zip(*(_read(sample, size) for sample in chosen), strict=True)
    masks = None if layout == "kitti" else tuple(_stack(item.masks, size) for item in objects)
    return AnnotatedImages(
        classes=classes,
        images=torch.stack(images),
        boxes=tuple(_boxes(item.boxes) for item in objects),
        labels=tuple(torch.tensor(item.labels, dtype=torch.int64) for item in objects),
        ignored=tuple(_boxes(item.ignored) for item in objects),
        masks=masks,
        class_map=None if masks is None else torch.stack([_class_map(item, size) for item in objects]),
    )


def _list_coco(folder: Path) -> tuple[tuple[str, ...], list[Sample]]:
    documents = sorted((folder / "annotations").glob("instances_*.json"))
    if not documents:
        raise DataError(
            f"no annotations/instances_*.json in {folder}",
            "at least one",
            "Name the folder above annotations.",
        )
    classes: tuple[str, ...] = ()
    samples = []
    for path in documents:
        document = _json(path)
        try:
            names = {item["id"]: str(item["name"]) for item in document["categories"]}
            images = {item["id"]: item for item in document["images"]}
            by_image = defaultdict(list)
            for entry in document["annotations"]:
                if entry["image_id"] not in images:
                    raise _wrong(
                        path, entry["id"], f"names the image {entry['image_id']!r}", "a listed image"
                    )
                if entry["category_id"] not in names:
                    raise _wrong(
                        path, entry["id"], f"has category {entry['category_id']!r}", f"one of {sorted(names)}"
                    )
                by_image[entry["image_id"]].append(entry)
            place = folder / path.stem.removeprefix("instances_")
            if classes and tuple(names.values()) != classes:
                raise _wrong(path, "categories", "differ from those of the file before", "the same")
            classes = tuple(names.values())
            index = {key: position for position, key in enumerate(names)}
            for key, item in images.items():
                declared = (int(item["width"]), int(item["height"]))
                samples.append(
                    Sample(place / item["file_name"], _coco_objects(path, declared, by_image[key], index))
                )
        except (KeyError, TypeError, ValueError) as error:
            raise _incomplete(path, error) from error
    return classes, samples


def _coco_objects(
    path: Path, declared: tuple[int, int], entries: list[dict[str, Any]], index: dict[int, int]
) -> Callable[[int, int, int], Objects]:
    def annotate(width: int, height: int, size: int) -> Objects:
        if (width, height) != declared:
            raise DataError(
                f"{path} declares an image of {declared[0]} x {declared[1]} that has {width} x {height}",
                "equal sizes",
                "Use the images that belong to this file.",
            )
        objects = Objects()
        for entry in entries:
            try:
                left, top, wide, high = (float(value) for value in entry["bbox"])
                if wide == 0 or high == 0:
                    continue
                box = _resize_box((left, top, left + wide, top + high), width, height, size)
                mask = _coco_mask(entry["segmentation"], width, height, size)
                crowd = bool(entry.get("iscrowd", 0))
            except (KeyError, TypeError, ValueError) as error:
                raise _wrong(path, entry.get("id"), f"cannot be used ({error})", "a COCO instance") from error
            if crowd:
                objects.ignored.append(box)
                objects.ignored_masks.append(mask)
            else:
                objects.labels.append(index[entry["category_id"]])
                objects.boxes.append(box)
                objects.masks.append(mask)
        return objects

    return annotate


def _coco_mask(segmentation: Any, width: int, height: int, size: int) -> Mask:
    if isinstance(segmentation, dict):
        counts, shape = segmentation["counts"], segmentation["size"]
        if list(shape) != [height, width]:
            raise ValueError(f"run lengths for {shape[0]} x {shape[1]} in an image of {height} x {width}")
        lengths = decode_run_lengths(counts) if isinstance(counts, str) else counts
        return resize_nearest(run_length_mask(lengths, height, width), size, size)
    mask = np.zeros((size, size), bool)
    for polygon in segmentation:
        corners = np.asarray(polygon, float)
        if corners.ndim != 1 or len(corners) % 2 or len(corners) < 6 or not np.isfinite(corners).all():
            raise ValueError(f"a polygon of {corners.size} numbers")
        mask |= polygon_mask(corners[::2] * size / width, corners[1::2] * size / height, size, size)
    return mask


def _list_kitti(folder: Path) -> tuple[tuple[str, ...], list[Sample]]:
    top = folder / "training" if (folder / "training").is_dir() else folder
    labels = sorted((top / "label_2").glob("*.txt"))
    if not labels:
        raise DataError(f"no label_2/*.txt in {top}", "at least one", "Name the folder above label_2.")
    lines = {path: _lines(path) for path in labels}
    classes = tuple(sorted({words[0] for entries in lines.values() for _, words in entries} - {"DontCare"}))
    if not classes:
        raise DataError(f"no object in {top / 'label_2'}", "at least one", "Check the folder.")
    return classes, [
        Sample(_kitti_image(top / "image_2", path), _kitti_objects(path, entries, classes))
        for path, entries in lines.items()
    ]


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the lines of a label file as words, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})", "a text file", "Copy it again.") from error
    entries = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, words in entries:
        if len(words) < KITTI_FIELDS:
            raise DataError(
                f"{path}, line {number} has {len(words)} fields",
                f"the {KITTI_FIELDS} fields of KITTI's object labels",
                "Copy the file again; tracking labels have another form.",
            )
    return entries


def _kitti_image(folder: Path, label: Path) -> Path:
    jpeg = folder / f"{label.stem}.jpg"
    return jpeg if jpeg.is_file() else folder / f"{label.stem}.png"


def _kitti_objects(
    path: Path, entries: list[tuple[int, list[str]]], classes: tuple[str, ...]
) -> Callable[[int, int, int], Objects]:
    def annotate(width: int, height: int, size: int) -> Objects:
        objects = Objects()
        for number, words in entries:
            try:
                left, top, right, bottom = (float(word) for word in words[4:8])
                box = _resize_box((left, top, right, bottom), width, height, size)
            except ValueError as error:
                raise _wrong(path, f"line {number}", f"cannot be used ({error})", "a box") from error
            if words[0] == "DontCare":
                objects.ignored.append(box)
            else:
                objects.labels.append(classes.index(words[0]))
                objects.boxes.append(box)
        return objects

    return annotate


def _list_tusimple(folder: Path) -> tuple[tuple[str, ...], list[Sample]]:
    documents = sorted(folder.glob("label_data_*.json"))
    if not documents:
        raise DataError(f"no label_data_*.json in {folder}", "at least one", "Name the folder above clips.")
    samples = []
    for path in documents:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error})", "a text file", "Copy it again.") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                heights = np.asarray(entry["h_samples"], float)
                lanes = [np.asarray(lane, float) for lane in entry["lanes"]]
                image = folder / entry["raw_file"]
            except (KeyError, TypeError, ValueError) as error:
                raise _wrong(
                    path, f"line {number}", f"cannot be used ({error})", "a TuSimple label"
                ) from error
            for lane in lanes:
                if (
                    lane.shape != heights.shape
                    or not np.isfinite(lane).all()
                    or (np.diff(heights) <= 0).any()
                ):
                    raise _wrong(
                        path,
                        f"line {number}",
                        f"has a lane of {lane.size} points for {heights.size} h_samples",
                        "one point for each of the rising h_samples",
                    )
            samples.append(Sample(image, _tusimple_objects(path, number, heights, lanes)))
    return TUSIMPLE_CLASSES, samples


def _tusimple_objects(
    path: Path, number: int, heights: NDArray[np.float64], lanes: list[NDArray[np.float64]]
) -> Callable[[int, int, int], Objects]:
    def annotate(width: int, height: int, size: int) -> Objects:
        objects = Objects()
        for lane in lanes:
            there = lane >= 0
            x, y = lane[there] * size / width, heights[there] * size / height
            if (x > size).any() or (y > size).any():
                raise _wrong(path, f"line {number}", "has a lane outside the image", f"{width} x {height}")
            half = LANE_WIDTH * size / 2
            strip = np.concatenate([x - half, x[::-1] + half]), np.concatenate([y, y[::-1]])
            mask = polygon_mask(*strip, size, size)
            if mask.any():
                objects.labels.append(0)
                objects.masks.append(mask)
                objects.boxes.append(boxes_of_masks(torch.from_numpy(mask)[None])[0].tolist())
        return objects

    return annotate


LAYOUTS: dict[str, Callable[[Path], tuple[tuple[str, ...], list[Sample]]]] = {
    "coco": _list_coco,
    "kitti": _list_kitti,
    "tusimple": _list_tusimple,
}


def _read(sample: Sample, size: int) -> tuple[Tensor, Objects]:
    from PIL import Image

    try:
        with Image.open(sample.image) as image:
            width, height = image.size
            pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BOX))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"image {sample.image} cannot be read ({error})", "a complete PNG or JPEG file", "Copy it again."
        ) from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255, sample.annotate(
        width, height, size
    )


def _resize_box(
    box: tuple[float, float, float, float], width: int, height: int, size: int
) -> tuple[float, float, float, float]:
    """Return a box after resizing; `ValueError` when it is empty or outside the image."""
    left, top, right, bottom = box
    inside = min(left, top) >= -SLACK and right <= width + SLACK and bottom <= height + SLACK
    if not (inside and left < right and top < bottom):
        raise ValueError(f"box {left:g}, {top:g}, {right:g}, {bottom:g} in an image of {width} x {height}")
    x, y = size / width, size / height
    return max(left, 0) * x, max(top, 0) * y, min(right, width) * x, min(bottom, height) * y


def _class_map(objects: Objects, size: int) -> Tensor:
    """Paint the objects from the largest to the smallest, over what is ignored."""
    painted = np.zeros((size, size), np.int64)
    for mask in objects.ignored_masks:
        painted[mask] = IGNORE
    for index in sorted(range(len(objects.masks)), key=lambda item: -objects.masks[item].sum()):
        painted[objects.masks[index]] = 1 + objects.labels[index]
    return torch.from_numpy(painted)


def _boxes(boxes: list[Sequence[float]]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)


def _stack(masks: list[Mask], size: int) -> Tensor:
    return torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, size, size, dtype=torch.bool)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error})", "a complete JSON document", "Copy the file again."
        ) from error


def _wrong(path: Path, entry: Any, what: str, expected: str) -> DataError:
    return DataError(f"{path}: {entry} {what}", expected, "Correct this entry or leave it out.")


def _incomplete(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} lacks or garbles {error}",
        "categories, images and annotations as COCO has them",
        "Copy the file again.",
    )
