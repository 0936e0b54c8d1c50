"""Generated scenes for detection and segmentation: coloured shapes on textured ground.

The ground is nearly grey: white noise through an ideal band-pass filter, its band drawn for every
scene. Shapes have saturated colours, so that what they are, rather than where, is hard to tell.
Shapes are laid from front to back, and one that would be mostly hidden is left out; so every
object that is drawn is annotated, and every annotation can be seen.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from slr_prune._annotated import AnnotatedImages, boxes_of_masks
from tenfold import SettingError

SHAPES = ("circle", "square", "triangle")

MINIMUM_SIZE = 24
LEAST_VISIBLE = 0.5

Array = NDArray[np.float32]


def generate_scenes(
    count: int, generator: np.random.Generator, *, size: int = 64, shapes: int = 4
) -> AnnotatedImages:
    """Draw scenes with their exact masks and boxes.

    Parameters
    ----------
    count : int
        Number of scenes, 1 or more.
    generator : numpy.random.Generator
        All randomness comes from it.
    size : int
        Height and width in pixels, 24 or more.
    shapes : int
        Largest number of shapes a scene; every scene has at least one.

    Returns
    -------
    AnnotatedImages
        Masks show what is visible of a shape, boxes are tight around it; the first object of a
        scene is its foremost.

    Raises
    ------
    SettingError
        `count`, `size` or `shapes` is too small.
    """
    for name, value, least in (("count", count, 1), ("size", size, MINIMUM_SIZE), ("shapes", shapes, 1)):
        if value < least:
            raise SettingError(f"{name} is {value}", f"{least} or more", f"Raise {name}.")
    images = _ground(count, size, generator)
    covered = np.zeros((count, size, size), bool)
    class_map = np.zeros((count, size, size), np.int64)
    wanted = generator.integers(1, shapes + 1, count)
    layers = []
    for layer in range(shapes):
        labels = generator.integers(len(SHAPES), size=count)
        colours = _saturated(count, generator)
        whole = _shapes(labels, size, generator)
        visible = whole & ~covered
        drawn = (layer < wanted) & (visible.sum((1, 2)) >= LEAST_VISIBLE * whole.sum((1, 2)))
        visible &= drawn[:, None, None]
        images = np.where(visible[:, None], colours[:, :, None, None], images)
        class_map += visible * (labels + 1)[:, None, None]
        covered |= visible
        layers.append((drawn, labels, visible))
    images += generator.normal(0, 0.04, images.shape).astype(np.float32)

    shown, kinds, masks = (torch.from_numpy(np.stack(part, 1)) for part in zip(*layers, strict=True))
    kept = tuple(mask[which] for mask, which in zip(masks, shown, strict=True))
    return AnnotatedImages(
        classes=SHAPES,
        images=torch.from_numpy(images.clip(0, 1)),
        boxes=tuple(boxes_of_masks(mask) for mask in kept),
        labels=tuple(kind[which] for kind, which in zip(kinds, shown, strict=True)),
        ignored=(torch.zeros(0, 4),) * count,
        masks=kept,
        class_map=torch.from_numpy(class_map),
    )


def _ground(count: int, size: int, generator: np.random.Generator) -> Array:
    """Return nearly grey textures, (count, 3, size, size): a colour plus band-limited noise."""
    spectrum = np.fft.rfft2(generator.normal(size=(count, size, size)))
    frequency = size * np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    low = generator.uniform(1, size / 8, (count, 1, 1))
    noise = np.fft.irfft2(spectrum * ((frequency >= low) & (frequency <= 2 * low + 1)), (size, size))
    noise /= noise.std((1, 2), keepdims=True)
    grey = generator.uniform(0.2, 0.8, (count, 1, 1, 1))
    tint = generator.uniform(-0.06, 0.06, (count, 3, 1, 1))
    amplitude = generator.uniform(0.03, 0.12, (count, 1, 1, 1))
    return (grey + tint + amplitude * noise[:, None]).astype(np.float32)


def _saturated(count: int, generator: np.random.Generator) -> Array:
    """Return colours (count, 3) with one channel high, one low and one anywhere."""
    ranges = np.array([[0.7, 1.0], [0.0, 0.3], [0.0, 1.0]])
    levels = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * generator.random((count, 3))
    return generator.permuted(levels, axis=1).astype(np.float32)


def _shapes(labels: NDArray[np.int64], size: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return masks, (n, size, size), of the shapes `labels` with random place, radius and angle."""
    count = len(labels)
    radius = generator.uniform(0.15, 0.3, (count, 1, 1)).astype(np.float32) * size
    middle = radius + generator.random((2, count, 1, 1), np.float32) * (size - 2 * radius)
    angle = generator.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
    pixels = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x, y = pixels - middle[0], pixels[:, None] - middle[1]
    u = (x * np.cos(angle) + y * np.sin(angle)) / radius
    v = (y * np.cos(angle) - x * np.sin(angle)) / radius
    high, wide = np.abs(v), np.abs(u)
    inside = {
        "circle": u * u + v * v <= 1,
        "square": np.maximum(wide, high) <= np.sqrt(0.5),
        "triangle": (v >= -0.5) & (np.sqrt(3) * wide + v <= 1),
    }
    return np.stack([inside[name] for name in SHAPES])[labels, np.arange(count)]
