"""The command track, from the files of a simulated scene to tracks that eval reads."""

import json
from pathlib import Path

import numpy as np
import pytest

from mot_cup import (
    BYTETRACK_PAPER_FACTORS,
    PAPER_FACTORS,
    ByteTrack,
    OCSort,
    PaperCompat,
    Sort,
)
from mot_cup.cli import app
from mot_cup.io import read_detections, read_tracks
from mot_cup.likelihood import fit, load, observations
from mot_cup.track_command import make, track_command
from tenfold import DataError, OutputError, SettingError, UnknownNameError


def command(*arguments: str | Path) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    command("simulate", "-o", folder, "--frames", "30", "--cars", "20", "--agents", "2")
    return folder


def test_a_folder_of_sequences_is_tracked_and_judged(scene: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command("track", scene, "-o", tmp_path / "out", "--uncertainty", "covariance", "--json", figures)
    rows = json.loads(figures.read_text())["sequences"]
    assert [row["sequence"] for row in rows] == ["agent-1", "agent-2", "early", "late"]
    for row in rows:
        written = read_tracks(tmp_path / "out" / f"{row['sequence']}.txt")
        expected = Sort(uncertainty="covariance").track(
            read_detections(scene / row["sequence"] / "det" / "det.txt")
        )
        assert written.frames.tolist() == expected.frames.tolist()
        assert written.ids.tolist() == expected.ids.tolist()
        assert np.abs(written.boxes - expected.boxes).max() < 1e-9
        assert row["boxes"] == len(written)
    command("eval", "--gt", scene, "--tracks", tmp_path / "out", "--json", tmp_path / "eval.json")
    assert json.loads((tmp_path / "eval.json").read_text())["combined"]["MOTA"] > 0.2


def test_calibrated_covariances_are_what_the_filter_gets(scene: Path, tmp_path: Path) -> None:
    found, truth = scene / "late" / "det" / "det.txt", scene / "late" / "gt" / "gt.txt"
    command("calibrate", found, "--gt", truth, "-o", tmp_path / "c.json", "--level", "0.9")
    for name, *extra in (
        ("raw", "covariance"),
        ("conformal", "conformal", "--calibration", tmp_path / "c.json"),
    ):
        command("track", found, "-o", tmp_path / name, "--uncertainty", *extra)
    raw, calibrated = read_tracks(tmp_path / "raw"), read_tracks(tmp_path / "conformal")
    assert len(raw)
    assert len(calibrated)
    assert raw.boxes.shape != calibrated.boxes.shape or np.abs(raw.boxes - calibrated.boxes).max() > 1e-6


def test_noise_is_fitted_and_used(scene: Path, tmp_path: Path) -> None:
    found, truth = scene / "late" / "det" / "det.txt", scene / "late" / "gt" / "gt.txt"
    command("noise", found, "--gt", truth, "-o", tmp_path / "noise.json")
    expected = fit(observations(read_detections(found), read_tracks(truth), "xywh"))
    fitted, state = load(tmp_path / "noise.json")
    assert (fitted, state) == (expected, "xywh")
    extra = ["--uncertainty", "covariance", "--noise", tmp_path / "noise.json"]
    command("track", found, "-o", tmp_path / "out.txt", *extra, "--begin-score", "0.5", "--coast", "1")
    tracker = Sort(uncertainty="covariance", noise=fitted, begin_score=0.5, coast=1)
    tracks = tracker.track(read_detections(found))
    written = read_tracks(tmp_path / "out.txt")
    assert written.ids.tolist() == tracks.ids.tolist()
    assert np.abs(written.boxes - tracks.boxes).max() < 1e-9
    assert make("bytetrack", "off", [], tmp_path / "noise.json").state == "xywh"
    command(
        "noise", found, "--gt", truth, "-o", tmp_path / "xysr.json", "--state", "xysr", "--no-covariances"
    )
    fitted, state = load(tmp_path / "xysr.json")
    assert state == "xysr"
    assert min(fitted.measurement) > 0
    assert fitted.measurement_fraction == (0, 0, 0, 0)


def test_settings_of_every_tracker() -> None:
    assert isinstance(make("sort", "off", ["max_age=4", "iou_threshold=0.1"]), Sort)
    assert isinstance(make("bytetrack", "paper", ["track_thresh=0.8"]), ByteTrack)
    for name, factors in (("sort", PAPER_FACTORS), ("bytetrack", BYTETRACK_PAPER_FACTORS)):
        assert make(name, "paper", []).uncertainty == PaperCompat(factors["upper bound"])
    assert isinstance(make("ocsort", "covariance", ["use_byte=true"]), OCSort)
    with pytest.raises(UnknownNameError, match="max_ages"):
        make("sort", "off", ["max_ages=4"])
    with pytest.raises(SettingError, match="max_age"):
        make("sort", "off", ["max_age=-1"])
    with pytest.raises(SettingError, match="OC-SORT"):
        make("ocsort", "paper", [])


def test_what_cannot_be_tracked(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        track_command(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(DataError, match="no detections in"):
        track_command(tmp_path, tmp_path / "out")
    with pytest.raises(SettingError, match="calibration"):
        track_command(scene, tmp_path / "out", uncertainty="conformal")
    with pytest.raises(SettingError, match="with sort alone"):
        track_command(scene, tmp_path / "out", tracker="ocsort", coast=1)
    with pytest.raises(DataError, match=r"the noise .* cannot be read"):
        track_command(scene, tmp_path / "out", noise=tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


LINE = "{frame},-1,10,10,20,40,0.9,-1,-1,-1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINE.format(frame=1) + "2,-1,10,1", "line 2.*truncated here"),
        (LINE.format(frame=2) + LINE.format(frame=1), "line 2.*frames in order"),
        (LINE.format(frame=1) * 2, "line 2.*every line once"),
        (LINE.format(frame=1).replace("20", "0"), "line 1.*positive width"),
        (LINE.format(frame=1).replace("0.9", "nan"), "line 1.*finite numbers"),
        (LINE.format(frame=1).replace("0.9,-1", "0.9,1.5", 1)[:-7] + "\n", "line 1.*whole number"),
        (LINE.format(frame=1) + LINE.format(frame=10**13), "frames from the first to the last"),
    ],
)
def test_files_that_are_wrong_are_not_tracked(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        track_command(tmp_path / "det.txt", tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_files_without_detections_have_no_tracks(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text("")
    track_command(tmp_path / "det.txt", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == ""


def test_a_low_score_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text(LINE.format(frame=1) + "1,-1,90,90,20,40,0.5,-1,-1,-1\n")
    track_command(tmp_path / "det.txt", tmp_path / "out.txt", min_score=0.6)
    assert (tmp_path / "out.txt").read_text() == "1,1,10.0,10.0,20.0,40.0,0.9,-1,-1,-1\n"


def test_what_cannot_be_used_or_written(tmp_path: Path) -> None:
    found, wrong = tmp_path / "det.txt", tmp_path / "calibration.json"
    found.write_text(LINE.format(frame=1))
    for text in ("{", "{}"):
        wrong.write_text(text)
        with pytest.raises(DataError, match="calibration"):
            track_command(found, tmp_path / "out.txt", uncertainty="conformal", calibration=wrong)
    with pytest.raises(DataError, match="without a covariance"):
        track_command(found, tmp_path / "out.txt", uncertainty="covariance")
    with pytest.raises(OutputError):
        track_command(found, found / "out.txt")
    with pytest.raises(OutputError):
        track_command(found, tmp_path / "out.txt", json=str(found / "figures.json"))
