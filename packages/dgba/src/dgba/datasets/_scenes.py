"""Rendered rooms: colour images with the truth of five tasks, of any number, from a seed.

A room of random size holds two to four boxes (low ones are furniture, tall ones
cabinets) and one to three balls. Every surface has a random colour and texture, one lamp hangs from the
ceiling, and a camera with a random field of view looks into the room. Each ray is cast analytically, so
that depth and normals are exact:

    plane    t = (p - o_i) / d_i
    box      t = max_i (-o_i / d_i - (s_i / 2) / |d_i|),  in the box's axes
    ball     t = (-b - sqrt(b^2 - a c)) / a,  a = |d|^2,  b = o . d,  c = |o|^2 - r^2

with rays o + t d whose d has length one along the optical axis, so that t is the depth. The paper uses
NYUv2 and Taskonomy, whose files few have; the five tasks are Taskonomy's. Its edges and keypoints are
responses of filters, and so are these: Sobel's gradient, and the smaller eigenvalue of the structure
tensor (Shi and Tomasi, CVPR 1994), of the luminance before the sensor's noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dgba._tasks import Task, depth, edges, keypoints, normals, segmentation
from tenfold import SettingError, UnknownNameError

Split = Literal["train", "validation", "test"]
Array = NDArray[Any]
Vector = tuple[Array, Array, Array]
Where = tuple[Array, ...]

CLASSES = ("wall", "floor", "ceiling", "furniture", "cabinet", "ball")
CHANNELS = {"segmentation": len(CLASSES), "depth": 1, "normals": 3, "edges": 1, "keypoints": 1}
"""Channels that a model puts out for each task of the scenes."""

SPLITS = ("train", "validation", "test")
BOXES, BALLS = 4, 3
WALL, FLOOR, CEILING, FURNITURE, CABINET, BALL = range(len(CLASSES))
TALL, NEAR = 0.9, 0.2
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
EDGE_SCALE, CORNER_SCALE = 4, 8
SURFACES = 6 + BOXES + BALLS
PIXELS = 1 << 16
"""Pixels rendered at once: an array of them is then a quarter of a megabyte."""


@dataclass(frozen=True, eq=False)
class Scenes(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images and the truth of every task.

    Attributes
    ----------
    images : Tensor
        float32 (n, 3, size, size) in [0, 1].
    targets : mapping of str to Tensor
        ``segmentation`` int64 (n, size, size), an index into `CLASSES`; ``depth`` float32 (n, 1, size,
        size) in metres along the optical axis; ``normals`` float32 (n, 3, size, size), of unit length,
        in the camera's axes (x right, y up, z ahead); ``edges`` and ``keypoints`` float32 (n, 1, size,
        size) in [0, 1]. Nothing is to be ignored.
    """

    images: Tensor
    targets: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.images[index], {name: target[index] for name, target in self.targets.items()}


def scenes(count: int, size: int = 64, seed: int = 0, split: Split = "train") -> Scenes:
    """Render `count` rooms.

    A scene depends on `seed`, `split` and its own position alone: fewer scenes are the first of more, and
    the splits have none in common.

    Parameters
    ----------
    count : int
    size : int
        Height and width in pixels.
    seed : int
    split : {"train", "validation", "test"}

    Returns
    -------
    Scenes

    Raises
    ------
    SettingError
        `count` or `seed` is negative, or `size` is below 3.
    UnknownNameError
        There is no such split.
    """
    if count < 0 or seed < 0 or size < 3:
        raise SettingError(
            f"{count} scenes of {size} x {size} pixels from seed {seed}",
            "no negative number, and 3 pixels or more",
            "Correct them.",
        )
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    images = np.empty((count, 3, size, size), np.float32)
    targets: dict[str, Array] = {"segmentation": np.empty((count, size, size), np.int64)}
    for name in ("depth", "normals", "edges", "keypoints"):
        targets[name] = np.empty((count, CHANNELS[name], size, size), np.float32)
    chunk = max(1, PIXELS // size**2)
    for start in range(0, count, chunk):
        part = slice(start, min(start + chunk, count))
        draws, noise = _draw(range(part.start, part.stop), size, seed, SPLITS.index(split))
        images[part], rendered = _render(draws, noise, size)
        for name, target in rendered.items():
            targets[name][part] = target
    return Scenes(
        torch.from_numpy(images), {name: torch.from_numpy(target) for name, target in targets.items()}
    )


def scene_tasks() -> tuple[Task, ...]:
    """Return the five tasks of `scenes`, with their losses and metrics."""
    return (
        segmentation("segmentation", CHANNELS["segmentation"]),
        depth("depth"),
        normals("normals"),
        edges("edges"),
        keypoints("keypoints"),
    )


class _Uniforms:
    """Uniform draws of every scene, handed out in order."""

    def __init__(self, draws: Array) -> None:
        self._draws = draws
        self._next = 0

    def __call__(self, low: float | Array, high: float | Array) -> Array:
        """Return the next draw between `low` and `high`, shape (n, 1)."""
        draw = self._draws[:, self._next, None]
        self._next += 1
        return low + (high - low) * draw


DRAWS = 128
"""Uniform draws of a scene, a few more than it takes."""


def _draw(indices: range, size: int, seed: int, split: int) -> tuple[_Uniforms, Array]:
    uniforms = np.empty((len(indices), DRAWS), np.float32)
    noise = np.empty((len(indices), 3, size * size), np.float32)
    for row, index in enumerate(indices):
        generator = np.random.default_rng((seed, split, index))
        generator.random(dtype=np.float32, out=uniforms[row])
        generator.standard_normal(dtype=np.float32, out=noise[row])
    return _Uniforms(uniforms), noise


def _render(draw: _Uniforms, noise: Array, size: int) -> tuple[Array, dict[str, Array]]:
    room = (draw(3, 6), draw(2.4, 3.2), draw(3, 6))
    eye = (draw(0.2, 0.8) * room[0], draw(1.2, 1.8), draw(0.1, 0.3) * room[2])
    yaw, pitch, slope = draw(-0.6, 0.6), draw(-0.35, 0.1), np.tan(np.deg2rad(draw(25, 35)))
    lamp = (draw(0.2, 0.8) * room[0], room[1] - 0.2, draw(0.2, 0.6) * room[2])

    view = _View(eye, _rays(size, yaw, pitch, slope))
    view.add_room(room)
    boxes, balls = draw(2, BOXES + 1), draw(1, BALLS + 1)
    for box in range(BOXES):
        _add_box(view, draw, room, 6 + box, present=box + 1 <= boxes)
    for ball in range(BALLS):
        _add_ball(view, draw, room, 6 + BOXES + ball, present=ball + 1 <= balls)
    colours = _shade(view, draw, lamp)

    shape = (len(noise), size, size)
    edge, corner = _edges_and_keypoints(
        np.clip(_dot((LUMA[0], LUMA[1], LUMA[2]), colours), 0, 1).reshape(shape)
    )
    images = np.stack(colours, axis=1)
    images += 0.01 * noise
    np.clip(images, 0, 1, out=images)
    return images.reshape(-1, 3, size, size), {
        "segmentation": view.label.reshape(shape),
        "depth": view.t.reshape(-1, 1, size, size),
        "normals": np.stack(_to_camera(view.normal, yaw, pitch), axis=1).reshape(-1, 3, size, size),
        "edges": edge[:, None],
        "keypoints": corner[:, None],
    }


def _rays(size: int, yaw: Array, pitch: Array, slope: Array) -> Vector:
    across = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * slope
    x = np.tile(across, (1, size))
    y = np.repeat(-across, size, axis=1)
    c, s = np.cos(pitch), np.sin(pitch)
    y, z = c * y + s, c - s * y
    c, s = np.cos(yaw), np.sin(yaw)
    return _nonzero(c * x + s * z), _nonzero(y), _nonzero(c * z - s * x)


def _to_camera(world: Vector, yaw: Array, pitch: Array) -> Vector:
    x, y, z = world
    c, s = np.cos(yaw), np.sin(yaw)
    x, z = c * x - s * z, s * x + c * z
    c, s = np.cos(pitch), np.sin(pitch)
    return x, c * y - s * z, s * y + c * z


def _minus(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _dot(a: Vector, b: Vector) -> Array:
    product: Array = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def _nonzero(x: Array) -> Array:
    """Keep rays from running parallel to a plane, where the distance would be 0 / 0."""
    return np.where(np.abs(x) < 1e-6, np.float32(1e-6), x)


class _View:
    """What every ray meets first.

    `t`, `label`, `surface` and the three parts of `normal` have shape (n, pixels).
    """

    def __init__(self, eye: Vector, rays: Vector) -> None:
        self.eye = eye
        self.rays = rays

    def add_room(self, room: Vector) -> None:
        """Let every ray meet a wall, the floor or the ceiling, from inside."""
        ts = [
            (np.where(d > 0, size, 0) - o) / d for size, o, d in zip(room, self.eye, self.rays, strict=True)
        ]
        self.t = np.minimum(np.minimum(ts[0], ts[1]), ts[2])
        faces = _first([t == self.t for t in ts])
        signs = [np.sign(d) for d in self.rays]
        self.normal = faces[0] * -signs[0], faces[1] * -signs[1], faces[2] * -signs[2]
        self.label = np.where(faces[1], np.where(signs[1] < 0, FLOOR, CEILING), WALL)
        level, ahead = 2 + (signs[1] > 0), 4 + (signs[2] > 0)
        self.surface = np.where(faces[1], level, np.where(faces[2], ahead, signs[0] > 0))

    def add(self, t: Array, meets: Array, label: Array, surface: int) -> Where:
        """Put an object in front of what lies behind it, where the ray `meets` it beyond `NEAR`.

        Returns where it is seen; `label` has shape (n, 1).
        """
        where = np.nonzero(meets & (t > NEAR) & (t < self.t))
        self.t[where] = t[where]
        self.label[where] = label[where[0], 0]
        self.surface[where] = surface
        return where

    def turn(self, where: Where, normal: Vector) -> None:
        """Set the normals there."""
        for part, values in zip(self.normal, normal, strict=True):
            part[where] = values


def _first(masks: list[Array]) -> list[Array]:
    """Of three masks, keep at every place the first that holds."""
    first, second, third = masks
    return [first, second & ~first, third & ~first & ~second]


def _add_box(view: _View, draw: _Uniforms, room: Vector, surface: int, present: Array) -> None:
    width, height, length = draw(0.4, 1.2), draw(0.3, 1.4), draw(0.4, 1.2)
    centre = (
        draw(width, room[0] - width),
        height / 2,
        draw(0.45 * room[2], room[2] - length / 2),
    )
    angle = draw(0, np.pi / 2)
    c, s = np.cos(angle), np.sin(angle)
    ox, oy, oz = _minus(view.eye, centre)
    dx, dy, dz = view.rays
    rays = (_nonzero(c * dx - s * dz), dy, _nonzero(s * dx + c * dz))
    into, out = [], []
    for o, d, extent in zip(
        (c * ox - s * oz, oy, s * ox + c * oz), rays, (width, height, length), strict=True
    ):
        inverse = 1 / d
        middle, half = -o * inverse, extent / 2 * np.abs(inverse)
        into.append(middle - half)
        out.append(middle + half)
    t = np.maximum(np.maximum(into[0], into[1]), into[2])
    behind = np.minimum(np.minimum(out[0], out[1]), out[2])
    label = np.where(height < TALL, FURNITURE, CABINET)
    where = view.add(t, present & (t < behind), label, surface)
    faces = _first([enters[where] == t[where] for enters in into])
    x, y, z = (face * -np.sign(d[where]) for face, d in zip(faces, rays, strict=True))
    c, s = c[where[0], 0], s[where[0], 0]
    view.turn(where, (c * x + s * z, y, c * z - s * x))


def _add_ball(view: _View, draw: _Uniforms, room: Vector, surface: int, present: Array) -> None:
    radius = draw(0.15, 0.45)
    floats, height = draw(0, 1) < 0.5, draw(radius, 2)
    centre = (
        draw(radius, room[0] - radius),
        np.where(floats, height, radius),
        draw(0.35 * room[2], room[2] - radius),
    )
    from_centre = _minus(view.eye, centre)
    a, b = _dot(view.rays, view.rays), _dot(from_centre, view.rays)
    discriminant = b * b - a * (_dot(from_centre, from_centre) - radius * radius)
    t = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    where = view.add(t, present & (discriminant > 0), np.full_like(present, BALL, int), surface)
    row = where[0]
    x, y, z = (
        (o[row, 0] + t[where] * d[where]) / radius[row, 0]
        for o, d in zip(from_centre, view.rays, strict=True)
    )
    view.turn(where, (x, y, z))


def _shade(view: _View, draw: _Uniforms, lamp: Vector) -> Vector:
    """Colour every pixel: albedo by texture by Lambert's cosine to a lamp whose light falls off."""
    x, y, z = (eye + view.t * d for eye, d in zip(view.eye, view.rays, strict=True))
    to_lamp = _minus(lamp, (x, y, z))
    squared = _dot(to_lamp, to_lamp)
    cosine = _dot(view.normal, to_lamp) / np.sqrt(squared)
    exposure = draw(0.8, 1.2)
    light = 0.8 * np.maximum(cosine, 0) / (1 + 0.05 * squared)
    light = exposure * (0.35 + light)

    rows = np.arange(len(view.t))[:, None]

    def of_surface(low: float, high: float) -> Array:
        table = np.concatenate([draw(low, high) for _ in range(SURFACES)], axis=1)
        values: Array = table[rows, view.surface]
        return values

    albedo = [of_surface(0.3, 0.95) for _ in range(3)]
    frequency, kind = of_surface(2, 7), of_surface(0, 4)
    waves = np.sin(frequency * (x + 1.3 * y)) * np.sin(frequency * z)
    checks = 0.75 + 0.25 * np.sign(waves)
    stripes = 0.8 + 0.2 * np.sin(4 * frequency * (x + z))
    clouds = 0.85 + 0.15 * waves
    light *= np.select([kind < 1, kind < 2, kind < 3], [1, checks, stripes], clouds)
    red, green, blue = (colour * light for colour in albedo)
    return red, green, blue


def _edges_and_keypoints(luminance: Array) -> tuple[Array, Array]:
    """Return the strength of edges and of corners, (n, h, w), scaled to fill [0, 1] without saturating."""
    padded = np.pad(luminance, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    gx = (rows[:, :, 2:] - rows[:, :, :-2]) / 8
    gy = (columns[:, 2:] - columns[:, :-2]) / 8
    steepness = np.sqrt(gx * gx + gy * gy)
    xx, yy, xy = (_mean_of_nine(product) for product in (gx * gx, gy * gy, gx * gy))
    smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    corners = np.sqrt(np.maximum(smaller, 0))
    return np.minimum(EDGE_SCALE * steepness, 1), np.minimum(CORNER_SCALE * corners, 1)


def _mean_of_nine(x: Array) -> Array:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    mean: Array = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
    return mean
