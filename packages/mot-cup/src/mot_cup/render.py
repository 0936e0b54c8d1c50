"""Pictures of tracks: boxes and identities in lasting colours, the ways they came, and what is uncertain.

A detection is a thin grey box, with the ellipse of its centre where it has a covariance. PNG frames and GIF
need Pillow alone; MP4 needs the extra ``mot-cup[video]``, which brings ffmpeg.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from mot_cup._boxes import Floats, to_space
from mot_cup._detections import Detections
from mot_cup._tracks import Tracks
from tenfold import DataError, MissingExtraError, SettingError, UnknownNameError
from tenfold.experiment import write_whole

if TYPE_CHECKING:
    from mot_cup.simulation import Scene

__all__ = ["RenderSettings", "colour", "draw_frames", "render", "street_map"]

Colour = tuple[int, int, int]

FINER = 2
"""Pictures are drawn larger and shrunk, for edges without steps."""
PAPER: Colour = (246, 245, 241)
INK: Colour = (70, 70, 74)
GRASS, ROAD, LINE, HOUSE, EDGE = (
    (236, 238, 229),
    (214, 215, 218),
    (248, 248, 248),
    (203, 197, 187),
    (176, 169, 158),
)
MOST_PICTURES = 100_000
"""From the first frame to the last: more are numbers that are something else."""
COLOURS, COMMON = 128, 24
"""Of a GIF beside the transparent one, and how many of them are taken from the pictures as they are."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class RenderSettings:
    """How tracks are drawn.

    Parameters
    ----------
    size : int
        Pixels of the picture's longer side, from 16 to 4096.
    trail : int
        Frames that the line behind a track reaches back.
    sigmas : float
        Standard deviations to the rim of an ellipse.
    labels : bool
        Whether to write identities.
    view : tuple of float, optional
        x1, y1, x2, y2 of what is shown, in the boxes' unit; by default the background, or all boxes.

    Raises
    ------
    SettingError
        A number is out of its range, or the view empty.
    """

    size: int = 800
    trail: int = 15
    sigmas: float = 2.0
    labels: bool = True
    view: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise SettingError(f"pictures of {self.size} pixels", "from 16 to 4096", "Choose another size.")
        if self.trail < 0 or not 0 <= self.sigmas < np.inf:
            raise SettingError(
                f"a trail of {self.trail} frames and {self.sigmas} sigmas", "0 or more", "Correct them."
            )
        if self.view is not None:
            x1, y1, x2, y2 = self.view
            if not (np.isfinite(self.view).all() and x1 < x2 and y1 < y2):
                raise SettingError(f"a view of {self.view}", "x1 < x2 and y1 < y2", "Correct it.")


def render(
    path: Path,
    tracks: Tracks,
    detections: Mapping[int, Detections] | None = None,
    *,
    background: Path | Image.Image | None = None,
    frame_rate: float = 10.0,
    settings: RenderSettings | None = None,
) -> None:
    """Write pictures of tracks.

    Parameters
    ----------
    path : Path
        A ``.gif`` or ``.mp4``, or without a suffix a folder for PNG frames named by their numbers.
    tracks : Tracks
    detections : mapping from frame to Detections, optional
        To be drawn beneath, but for their ellipses.
    background : Path or Image, optional
        A picture for all frames, or a folder of one for each: named by the frames' numbers, or in their
        order from frame 1. A pixel of it is a unit of the boxes.
    frame_rate : float
        Frames a second of a GIF or MP4.
    settings : RenderSettings, optional

    Raises
    ------
    DataError
        There is nothing to draw, or a background cannot be read or is missing.
    SettingError, UnknownNameError
        The frame rate is not positive, or the suffix another.
    MissingExtraError
        MP4 is asked for without the extra ``video``.
    OutputError
        The pictures cannot be written.
    """
    if not 0 < frame_rate < np.inf:
        raise SettingError(f"{frame_rate} frames a second", "a positive number", "Correct it.")
    suffix = path.suffix.lower()
    if suffix not in ("", ".gif", ".mp4"):
        raise UnknownNameError("kind of picture", suffix, (".gif", ".mp4", "a folder without a suffix"))
    if suffix == ".mp4":
        _check_video()
    frames = draw_frames(tracks, detections, background=background, settings=settings)
    if suffix == ".gif":
        _write_gif(path, [image for _, image in frames], frame_rate)
    elif suffix == ".mp4":
        write_whole(path, lambda temporary: _write_video(temporary, frames, frame_rate))
    else:
        for number, image in frames:
            write_whole(path / f"{number:06d}.png", partial(image.save, format="PNG"))


def draw_frames(
    tracks: Tracks,
    detections: Mapping[int, Detections] | None = None,
    *,
    background: Path | Image.Image | None = None,
    settings: RenderSettings | None = None,
) -> Iterator[tuple[int, Image.Image]]:
    """Yield the number and picture of every frame from the first to the last that has anything.

    Parameters
    ----------
    tracks, detections, background, settings
        As for `render`.

    Raises
    ------
    DataError
        There is nothing to draw, there are more than 100,000 frames from the first to the last, or a
        background cannot be read or is missing.
    """
    settings = settings or RenderSettings()
    found = {} if detections is None else detections
    numbers = [*tracks.frames.tolist(), *(frame for frame, item in found.items() if len(item))]
    if not numbers:
        raise DataError("no tracks and no detections", "a box or more", "Check the files.")
    first, last = min(numbers), max(numbers)
    if last - first >= MOST_PICTURES:
        raise DataError(
            f"frames {first} and {last}",
            f"at most {MOST_PICTURES:,} pictures from the first to the last",
            "Give a part of the frames.",
        )
    backgrounds = _Backgrounds(background)
    canvas = _Canvas(settings, settings.view or backgrounds.view(first) or _around(tracks, found))
    rows = dict(tracks.by_frame())
    nothing = slice(0, 0)
    for frame in range(first, last + 1):
        overlay = Image.new("RGBA", (FINER * canvas.size[0], FINER * canvas.size[1]), (0, 0, 0, 0))
        pen = ImageDraw.Draw(overlay)
        if frame in found:
            canvas.draw_detections(pen, found[frame])
        recent = [rows.get(past, nothing) for past in range(frame - settings.trail, frame + 1)]
        canvas.draw_trails(pen, tracks, recent)
        now = rows.get(frame, nothing)
        canvas.draw_boxes(pen, tracks, now)
        if frame in found and settings.sigmas:
            canvas.draw_ellipses(pen, found[frame])
        picture = canvas.beneath(backgrounds.picture(frame))
        picture.alpha_composite(overlay.resize(canvas.size, Image.Resampling.BOX))
        canvas.write(ImageDraw.Draw(picture), tracks, now, frame)
        yield frame, picture.convert("RGB")


def colour(identity: int) -> Colour:
    """Return the colour of an identity, the same in every picture; near identities differ much."""
    red, green, blue = colorsys.hls_to_rgb(identity * GOLDEN % 1, 0.46, 0.8)
    # Yellow and green look lighter than blue of the same lightness, and are darkened to be read on paper.
    darker = min(1.0, 0.42 / (0.3 * red + 0.59 * green + 0.11 * blue))
    return round(255 * red * darker), round(255 * green * darker), round(255 * blue * darker)


def street_map(scene: Scene) -> Image.Image:
    """Return a background for a simulated scene, a pixel for one of the scene's."""
    streets, scale = scene.settings.streets, 1 / scene.settings.metres_per_pixel
    side = round(streets.extent * scale)
    image = Image.new("RGB", (FINER * side, FINER * side), GRASS)
    pen = ImageDraw.Draw(image)
    scale *= FINER
    middles = streets.margin + streets.block * np.arange(streets.crossings)
    first, last = (middles[0] - 4.5) * scale, (middles[-1] + 4.5) * scale
    for middle in middles * scale:
        half = 4.5 * scale
        pen.rectangle((first, middle - half, last, middle + half), fill=ROAD)
        pen.rectangle((middle - half, first, middle + half, last), fill=ROAD)
    for middle in middles * scale:
        for start, end in pairwise(middles):
            for dash in np.arange(start + 8, end - 8, 4.0) * scale:
                across, along = 0.12 * scale, 2.0 * scale
                pen.rectangle((dash, middle - across, dash + along, middle + across), fill=LINE)
                pen.rectangle((middle - across, dash, middle + across, dash + along), fill=LINE)
    for x, y, w, length, _ in scene.buildings * FINER:
        box = (x - length / 2, y - w / 2, x + length / 2, y + w / 2)
        pen.rounded_rectangle(box, radius=2 * FINER, fill=HOUSE, outline=EDGE, width=FINER)
    return image.resize((side, side), Image.Resampling.BOX)


class _Backgrounds:
    """What lies beneath the boxes of a frame."""

    def __init__(self, source: Path | Image.Image | None) -> None:
        self._one = source if isinstance(source, Image.Image) else None
        self._files: list[Path] = []
        self._numbered: dict[int, Path] = {}
        if isinstance(source, Path):
            if source.is_dir():
                self._files = sorted(
                    path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")
                )
                self._numbered = {int(path.stem): path for path in self._files if path.stem.isdecimal()}
                if not self._files:
                    raise DataError(f"no pictures in {source}", "PNG or JPEG files", "Correct the path.")
            else:
                self._one = _open(source)

    def picture(self, frame: int) -> Image.Image | None:
        """Return the picture of a frame, or None where none are given."""
        if not self._files:
            return self._one
        if self._numbered:
            path = self._numbered.get(frame)
        else:
            path = self._files[frame - 1] if 1 <= frame <= len(self._files) else None
        if path is None:
            raise DataError(
                f"no picture of frame {frame} in {self._files[0].parent}",
                "one for every frame",
                "Correct the path.",
            )
        return _open(path)

    def view(self, frame: int) -> tuple[float, float, float, float] | None:
        """Return the corners of a frame's picture."""
        picture = self.picture(frame)
        return None if picture is None else (0.0, 0.0, float(picture.width), float(picture.height))


class _Canvas:
    """Where things are in the picture, and how they are drawn."""

    def __init__(self, settings: RenderSettings, view: tuple[float, float, float, float]) -> None:
        x1, y1, x2, y2 = view
        self._settings = settings
        self._view = view
        self._scale = settings.size / max(x2 - x1, y2 - y1)
        # Video wants even sizes.
        width, height = (max(2, 2 * round(side * self._scale / 2)) for side in (x2 - x1, y2 - y1))
        self.size = (width, height)
        self._font = ImageFont.load_default(max(10, settings.size // 55))
        self._last: tuple[Image.Image | None, Image.Image] = (None, Image.new("RGBA", self.size))

    def beneath(self, background: Image.Image | None) -> Image.Image:
        """Return a picture to draw on."""
        if background is None:
            return Image.new("RGBA", self.size, PAPER)
        if background is not self._last[0]:
            # Parts of the view beyond the picture are black.
            seen = background.convert("RGB").transform(
                self.size, Image.Transform.EXTENT, self._view, Image.Resampling.BICUBIC
            )
            self._last = background, seen.convert("RGBA")
        return self._last[1].copy()

    def draw_detections(self, pen: ImageDraw.ImageDraw, detections: Detections) -> None:
        for box in self._place(detections.boxes):
            pen.rectangle(tuple(box), outline=(*INK, 150), width=FINER)

    def draw_ellipses(self, pen: ImageDraw.ImageDraw, detections: Detections) -> None:
        if detections.covariance is None or len(detections) == 0:
            return
        matrices = detections.covariance.to_space(detections.boxes, "xywh").matrices[:, :2, :2]
        values, vectors = np.linalg.eigh(matrices)
        roots = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        rim = self._settings.sigmas * np.stack([np.cos(angle), np.sin(angle)])
        centres = to_space(detections.boxes, "xywh")[:, :2, None]
        for outline in self._place((centres + roots @ rim).transpose(0, 2, 1).reshape(len(detections), -1)):
            pen.polygon(outline.tolist(), fill=(*INK, 90), outline=(*INK, 220), width=FINER)

    def draw_trails(self, pen: ImageDraw.ImageDraw, tracks: Tracks, recent: list[slice]) -> None:
        """Draw where the tracks of the last rows have been, fainter the longer ago."""
        ends: dict[int, Floats] = {}
        for age, rows in enumerate(recent):
            alpha = round(30 + 180 * (age + 1) / len(recent))
            boxes = self._place(tracks.boxes[rows])
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            for identity, centre in zip(tracks.ids[rows].tolist(), centres, strict=True):
                if identity in ends:
                    line = [*ends[identity].tolist(), *centre.tolist()]
                    pen.line(line, fill=(*colour(identity), alpha), width=2 * FINER)
                ends[identity] = centre

    def draw_boxes(self, pen: ImageDraw.ImageDraw, tracks: Tracks, rows: slice) -> None:
        radius = 1.5 * FINER
        for box, identity in zip(self._place(tracks.boxes[rows]), tracks.ids[rows].tolist(), strict=True):
            tint = colour(identity)
            pen.rounded_rectangle(
                tuple(box), radius, fill=(*tint, 70), outline=(*tint, 255), width=round(1.5 * FINER)
            )

    def write(self, pen: ImageDraw.ImageDraw, tracks: Tracks, rows: slice, frame: int) -> None:
        if self._settings.labels:
            boxes = self._place(tracks.boxes[rows]) / FINER
            for (x1, y1, x2, _), identity in zip(boxes, tracks.ids[rows].tolist(), strict=True):
                place = ((x1 + x2) / 2, y1 - 2)
                pen.text(
                    place,
                    str(identity),
                    fill=colour(identity),
                    font=self._font,
                    anchor="mb",
                    stroke_width=2,
                    stroke_fill=(255, 255, 255),
                )
        pen.text(
            (6, self.size[1] - 5),
            f"frame {frame}",
            fill=INK,
            font=self._font,
            anchor="lb",
            stroke_width=2,
            stroke_fill=(255, 255, 255),
        )

    def _place(self, points: Floats) -> Floats:
        """Return x, y, x, y and so on in pixels of the larger picture."""
        corner = np.resize(self._view[:2], points.shape[1])
        placed: Floats = (points - corner) * (self._scale * FINER)
        return placed


def _around(tracks: Tracks, detections: Mapping[int, Detections]) -> tuple[float, float, float, float]:
    boxes = np.concatenate([tracks.boxes, *(item.boxes for item in detections.values())])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    margin = 0.04 * (high - low).max()
    (x1, y1), (x2, y2) = (low - margin).tolist(), (high + margin).tolist()
    return x1, y1, x2, y2


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", "an existing picture", "Correct the path.") from error
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} cannot be read ({error})", "a PNG or JPEG file", "Replace it.") from error


def _write_gif(path: Path, images: list[Image.Image], frame_rate: float) -> None:
    # One palette for all: then what stays is left transparent, which halves the file.
    palette = _palette(images[:: max(1, len(images) // 8)])
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    indices = [np.asarray(image) for image in flat]
    for image, before, after in zip(flat[1:], indices, indices[1:], strict=False):
        image.frombytes(np.where(before == after, COLOURS, after).astype(np.uint8).tobytes())
    write_whole(
        path,
        lambda temporary: flat[0].save(
            temporary,
            "GIF",
            save_all=True,
            append_images=flat[1:],
            duration=max(20, round(1000 / frame_rate)),
            loop=0,
            optimize=False,
            disposal=1,
            transparency=COLOURS,
        ),
    )


def _palette(images: list[Image.Image]) -> Image.Image:
    """Return a palette of the commonest colours as they are, and of others that cover what is left."""
    height = images[0].height
    strip = Image.new("RGB", (images[0].width, height * len(images)))
    for k, image in enumerate(images):
        strip.paste(image, (0, k * height))
    packed = np.asarray(strip).reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1])
    values, counts = np.unique(packed, return_counts=True)
    common = values[np.argsort(-counts)[:COMMON]]
    others = strip.quantize(COLOURS - COMMON, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette = Image.new("P", (1, 1))
    exact = np.stack([common >> 16, common >> 8 & 255, common & 255], axis=1).ravel().tolist()
    palette.putpalette([*exact, *(others.getpalette() or [])[: 3 * (COLOURS - COMMON)]])
    return palette


def _check_video() -> None:
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "an MP4 was asked for and imageio-ffmpeg is not installed",
            "the extra video",
            "Install it: pip install 'mot-cup[video]'. A .gif needs nothing.",
        ) from error


def _write_video(path: Path, frames: Iterator[tuple[int, Image.Image]], frame_rate: float) -> None:
    import imageio_ffmpeg

    writer = None
    for _, image in frames:
        if writer is None:
            # The temporary file's name does not say what it is; browsers play yuv420p alone.
            writer = imageio_ffmpeg.write_frames(
                str(path),
                image.size,
                fps=frame_rate,
                macro_block_size=2,
                quality=8,
                output_params=["-f", "mp4", "-movflags", "+faststart"],
            )
            writer.send(None)
        writer.send(image.tobytes())
    if writer is not None:
        writer.close()
