"""What is drawn, by its pixels; and what is written."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from mot_cup import BoxCovariance, Detections, Tracks
from mot_cup.render import PAPER, RenderSettings, colour, draw_frames, render, street_map
from mot_cup.simulation import SceneSettings, Streets, simulate
from tenfold import DataError, MissingExtraError, OutputError, SettingError, UnknownNameError

# Two boxes, one of which moves by 10 a frame; the other is missing in frame 3.
TRACKS = Tracks(
    np.array([2, 2, 3, 4, 4]),
    np.array([1, 2, 1, 1, 2]),
    np.array([[10, 10, 30, 20], [60, 60, 70, 80], [20, 10, 40, 20], [30, 10, 50, 20], [60, 60, 70, 80]]),
)
PLAIN = RenderSettings(size=200, labels=False, view=(0, 0, 100, 100), trail=0)


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def near(found: NDArray[np.int64], wanted: tuple[int, int, int], within: int = 3) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = np.logical_and.reduce(np.abs(found - wanted) <= within, axis=-1)
    return result


def test_a_box_is_outlined_in_its_colour_where_it_is_and_filled_lightly() -> None:
    frames = dict(draw_frames(TRACKS, settings=PLAIN))
    assert list(frames) == [2, 3, 4]
    found = pixels(frames[2])
    assert found.shape == (200, 200, 3)
    rim = near(found, colour(1), 8)
    rows, columns = np.nonzero(rim)
    corners = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_allclose(corners, [20, 20, 60, 40], atol=1)
    inside = found[30, 40]
    assert not near(inside, colour(1), 8)
    assert not near(inside, PAPER)
    assert near(found[5, 5], PAPER)
    assert near(pixels(frames[4])[120:161, 120:141], colour(2), 8).any()
    assert not near(pixels(frames[3])[100:180, 100:180], colour(2), 30).any()


def test_trails_reach_back_over_frames_without_the_box() -> None:
    moving = Tracks(np.array([1, 4]), np.array([1, 1]), np.array([[10.0, 40, 20, 50], [70, 40, 80, 50]]))
    with_trail, without = (
        dict(draw_frames(moving, settings=RenderSettings(200, trail, labels=False, view=(0, 0, 100, 100))))
        for trail in (5, 2)
    )
    on_the_way = pixels(with_trail[4])[90, 80]
    assert not near(on_the_way, PAPER, 10)
    assert near(pixels(without[4])[90, 80], PAPER)


def test_an_ellipse_is_as_wide_as_its_standard_deviations() -> None:
    covariance = BoxCovariance(
        np.array([[[25.0, 12, 0, 0], [12, 9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]), "xywh", "px"
    )
    detections = {1: Detections(np.array([[30.0, 40, 70, 60]]), covariance=covariance)}
    nothing = Tracks(np.array([], int), np.array([], int), np.empty((0, 4)))
    settings = RenderSettings(size=400, sigmas=2, labels=False, view=(0, 0, 100, 100))
    ((_, image),) = draw_frames(nothing, detections, settings=settings)
    dark = pixels(image)[..., 0] < 210
    # The box is outlined only; between its rim and the ellipse there is paper.
    rows, columns = np.nonzero(dark[165:235, 125:275])
    assert (columns.max() - columns.min()) / 4 == pytest.approx(2 * 2 * 5, abs=0.8)
    assert (rows.max() - rows.min()) / 4 == pytest.approx(2 * 2 * 3, abs=0.8)
    # Of positive correlation: it leans down to the right, as y points down.
    assert dark[200 + 4 * 3, 200 + 4 * 6]
    assert not dark[200 - 4 * 3, 200 + 4 * 6]


def test_labels_and_the_number_of_the_frame_are_written_where_asked() -> None:
    plain, labelled = (
        pixels(next(draw_frames(TRACKS, settings=RenderSettings(200, 0, labels=labels)))[1])
        for labels in (False, True)
    )
    assert (plain != labelled).any()
    assert (plain[-20:, :60] == labelled[-20:, :60]).all()


def test_colours_last_and_differ_between_neighbours() -> None:
    tints = np.array([colour(identity) for identity in range(200)])
    assert colour(7) == tuple(tints[7])
    assert np.linalg.norm(np.diff(tints, axis=0), axis=1).min() > 60
    assert (tints @ [0.3, 0.59, 0.11] < 115).all()


def test_backgrounds_are_one_picture_or_one_a_frame(tmp_path: Path) -> None:
    settings = RenderSettings(size=100, labels=False)
    red, blue = (Image.new("RGB", (100, 50), tint) for tint in ((200, 0, 0), (0, 0, 200)))
    frames = dict(draw_frames(TRACKS, background=red, settings=settings))
    assert frames[2].size == (100, 50)
    assert near(pixels(frames[2])[5, 5], (200, 0, 0))
    for number, image in ((2, red), (3, blue), (4, red)):
        image.save(tmp_path / f"{number:04d}.png")
    frames = dict(draw_frames(TRACKS, background=tmp_path, settings=settings))
    assert near(pixels(frames[3])[5, 5], (0, 0, 200))
    (tmp_path / "0003.png").unlink()
    with pytest.raises(DataError, match="no picture of frame 3"):
        dict(draw_frames(TRACKS, background=tmp_path, settings=settings))


def test_png_frames_are_named_by_number(tmp_path: Path) -> None:
    render(tmp_path / "frames", TRACKS, settings=PLAIN)
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [
        "000002.png",
        "000003.png",
        "000004.png",
    ]
    with Image.open(tmp_path / "frames" / "000002.png") as image:
        np.testing.assert_array_equal(pixels(image), pixels(next(draw_frames(TRACKS, settings=PLAIN))[1]))


def test_a_gif_shows_the_frames_at_their_rate(tmp_path: Path) -> None:
    render(tmp_path / "clip.gif", TRACKS, settings=PLAIN, frame_rate=5)
    with Image.open(tmp_path / "clip.gif") as clip:
        assert clip.info["duration"] == 200
        shown = [pixels(image.convert("RGB")) for image in ImageSequence.Iterator(clip)]
    for found, (_, image) in zip(shown, draw_frames(TRACKS, settings=PLAIN), strict=True):
        assert np.abs(found - pixels(image)).max() < 40
        assert np.abs(found - pixels(image)).mean() < 1


def test_a_video_is_an_mp4_of_all_frames(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    render(tmp_path / "clip.mp4", TRACKS, settings=PLAIN, frame_rate=5)
    reader = ffmpeg.read_frames(str(tmp_path / "clip.mp4"))
    details = next(reader)
    assert details["size"] == (200, 200)
    assert details["fps"] == 5
    shown = [np.frombuffer(data, np.uint8).reshape(200, 200, 3).astype(int) for data in reader]
    assert len(shown) == 3
    for found, (_, image) in zip(shown, draw_frames(TRACKS, settings=PLAIN), strict=True):
        assert np.abs(found - pixels(image)).mean() < 4


def test_a_video_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mot-cup\[video\]'"):
        render(tmp_path / "clip.mp4", TRACKS)
    assert list(tmp_path.iterdir()) == []


def test_the_clip_of_the_readme_is_made_by_its_example_and_is_small(tmp_path: Path) -> None:
    package = Path(__file__).parents[1]
    specification = importlib.util.spec_from_file_location("clip", package / "examples" / "scene_clip.py")
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    example.clip(tmp_path / "clip.gif", frames=4)
    with Image.open(tmp_path / "clip.gif") as made, Image.open(package / "docs" / "scene.gif") as kept:
        assert (made.n_frames, kept.n_frames) == (4, 42)
        assert made.size == kept.size
    assert (package / "docs" / "scene.gif").stat().st_size < 300_000


def test_a_scene_s_streets_are_where_its_cars_drive() -> None:
    scene = simulate(SceneSettings(frames=2, cars=20, streets=Streets(2)), np.random.default_rng(0))
    found = pixels(street_map(scene))
    assert found.shape == (360, 360, 3)
    x, y = scene.boxes[0, :, :2].round().astype(int).T
    grass = found[2, 2]
    assert not near(found[y, x], tuple(grass)).any()
    x, y = scene.buildings[0, :2].round().astype(int)
    assert not near(found[y, x], tuple(grass))


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    nothing = Tracks(np.array([], int), np.array([], int), np.empty((0, 4)))
    with pytest.raises(DataError, match="at most 100,000 pictures"):
        render(tmp_path / "scene.gif", Tracks(np.array([1, 10**13]), np.array([1, 1]), TRACKS.boxes[:2]))
    with pytest.raises(DataError, match="no tracks and no detections"):
        render(tmp_path / "a.gif", nothing)
    with pytest.raises(UnknownNameError, match=r"\.avi"):
        render(tmp_path / "a.avi", TRACKS)
    with pytest.raises(SettingError, match="frames a second"):
        render(tmp_path / "a.gif", TRACKS, frame_rate=0)
    with pytest.raises(DataError, match="no file"):
        render(tmp_path / "a.gif", TRACKS, background=tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="cannot be read"):
        render(tmp_path / "a.gif", TRACKS, background=tmp_path / "text.png")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        render(tmp_path / "a.gif", TRACKS, background=tmp_path / "folder")
    with pytest.raises(OutputError):
        render(tmp_path / "text.png" / "a.gif", TRACKS)
    with pytest.raises(SettingError, match="pixels"):
        RenderSettings(size=5)
    with pytest.raises(SettingError, match="trail"):
        RenderSettings(trail=-1)
    with pytest.raises(SettingError, match="view"):
        RenderSettings(view=(0, 0, 0, 5))
