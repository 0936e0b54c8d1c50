"""Readers and writers: what comes back, what is refused and where."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mot_cup import BoxCovariance, Detections, Tracks
from mot_cup._boxes import to_space
from mot_cup._matching import overlaps
from mot_cup._pairing import pair
from mot_cup._preprocessing import matched_rows
from mot_cup.io import (
    KITTI_TYPES,
    KittiObjects,
    SequenceInfo,
    read_detections,
    read_kitti_detections,
    read_kitti_tracks,
    read_mot_detections,
    read_mot_tracks,
    read_sequence_info,
    read_tracks,
    read_v2xsim,
    read_v2xsim_detections,
    write_kitti_detections,
    write_kitti_tracks,
    write_mot_detections,
    write_mot_tracks,
    write_sequence_info,
    write_v2xsim_detections,
)
from tenfold import DataError, OutputError, SettingError, UnknownNameError

DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "tracking"
real = pytest.mark.skipif(not (DATA / "v2xsim").is_dir(), reason="TENFOLD_DATA has no tracking files")

DETECTIONS = "1,-1,10,20,30,40,0.5,-1,-1,-1\n1,-1,11,21,31,41,0.25,-1,-1,-1\n\n3,-1,1,2,3,4,1,-1,-1,-1\n"
TRUTH = "1,1,10,20,30,40,1,1,0.5\n2,1,12,20,30,40,1,1,0.5\n1,2,50,20,30,40,0,8,1\n2,2,50,21,30,40,0,8,1\n"
UNCERTAIN = "1,-1,100,80,20,8,0.75,-1,-1,-1,-2,-3,-4,-5\n2,-1,101,80,20,8,0.5,-1,-1,-1,-2,-3,-4,-5\n"
LABELS = (
    "0 -1 DontCare -1 -1 -10 5 6 7 8 -1000 -1000 -1000 -10 -1 -1 -1\n"
    "0 -1 DontCare -1 -1 -10 9 6 11 8 -1000 -1000 -1000 -10 -1 -1 -1\n"
    "0 3 Car 0 2 -1.5 10 20 30.5 40 1.5 1.75 4 1 2 20 0.25\n"
    "1 3 Car 1 0 -1.5 11 20 31.5 40 1.5 1.75 4 1 2 19 0.25\n"
)
FOUND = "0,2,10,20,30,40,3.5,1.5,1.75,4,1,2,20,0.25,-1.5\n4,1,1,2,1,4,-0.5,1.75,0.5,0.75,1,2,20,0.25,-1.5\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        path = tmp_path / "file.txt"
        path.write_text(text)
        return path

    return to_file


def test_detections_by_frame(write: Callable[[str], Path]) -> None:
    detections = read_mot_detections(write(DETECTIONS))
    assert list(detections) == [1, 3]
    assert detections[1].boxes.tolist() == [[10, 20, 40, 60], [11, 21, 42, 62]]
    assert detections[1].scores.tolist() == [0.5, 0.25]
    assert read_mot_detections(write("")) == {}
    assert read_mot_detections(write(DETECTIONS), unit="cm")[3].unit == "cm"


def test_truth_an_identity_after_the_other(write: Callable[[str], Path]) -> None:
    truth = read_mot_tracks(write(TRUTH))
    assert truth.frames.tolist() == [1, 1, 2, 2]
    assert truth.ids.tolist() == [1, 2, 1, 2]
    assert truth.classes.tolist() == [1, 8, 1, 8]
    assert truth.scores.tolist() == [1, 0, 1, 0]
    assert truth.boxes[3].tolist() == [50, 21, 80, 61]
    # The eighth of ten values is a position, as in MOT15, and -1 is no class.
    assert read_mot_tracks(write("1,1,88,99,61,218,1,4.4852,5.5016,0\n")).classes.tolist() == [0]
    assert read_mot_tracks(write("1,1,88,99,61,218,1,-1\n")).classes.tolist() == [0]
    assert len(read_mot_tracks(write(""))) == 0


def test_covariances_of_v2xsim_are_in_the_unit_of_the_boxes(write: Callable[[str], Path]) -> None:
    path = write(UNCERTAIN)
    metres, pixels = (read_v2xsim_detections(path, unit=unit)[1] for unit in ("m", "px"))
    variances = np.exp([-2.0, -3, -4, -5])
    assert metres.boxes.tolist() == [[25, 20, 30, 22]]
    assert metres.covariance is not None
    assert (metres.covariance.space, metres.covariance.unit) == ("xysr", "m")
    np.testing.assert_allclose(np.diag(metres.covariance.matrices[0]), variances)
    assert pixels.boxes.tolist() == [[100, 80, 120, 88]]
    assert pixels.covariance is not None
    np.testing.assert_allclose(np.diag(pixels.covariance.matrices[0]), variances * [16, 16, 256, 1])
    raised = read_v2xsim_detections(path, upright=True)[1]
    assert raised.boxes.tolist() == [[100, 72, 120, 80]]
    # The box is 2.5 times as wide as high, and what the file says is of the inverse of that.
    assert raised.covariance is not None
    mended = variances * [16, 16, 256, 2.5**4]
    np.testing.assert_allclose(np.diag(raised.covariance.matrices[0]), mended)
    with pytest.raises(SettingError, match="unit 'cm'"):
        read_v2xsim_detections(path, unit="cm")  # type: ignore[arg-type]


def test_labels_of_kitti(write: Callable[[str], Path]) -> None:
    labels = read_kitti_tracks(write(LABELS))
    assert [KITTI_TYPES[number] for number in labels.classes] == ["DontCare", "DontCare", "Car", "Car"]
    car = labels.of("Car")
    assert (car.truncated.tolist(), car.occluded.tolist()) == ([0, 1], [2, 0])
    assert car.size.tolist() == [[1.5, 1.75, 4]] * 2
    assert car.position.tolist() == [[1, 2, 20], [1, 2, 19]]
    assert (car.alpha.tolist(), car.rotation.tolist()) == ([-1.5, -1.5], [0.25, 0.25])
    assert labels.tracks().ids.tolist() == [3, 3]
    assert labels.tracks("Car").boxes.tolist() == [[10, 20, 30.5, 40], [11, 20, 31.5, 40]]
    assert len(labels.tracks("Pedestrian")) == 0
    with pytest.raises(UnknownNameError, match="Did you mean 'Cyclist'"):
        labels.of("cyclist")


def test_detections_of_kitti(write: Callable[[str], Path]) -> None:
    found = read_kitti_detections(write(FOUND))
    assert found.scores.tolist() == [3.5, -0.5]
    assert found.of("Car").size.tolist() == [[1.5, 1.75, 4]]
    assert (found.rotation[0], found.alpha[0]) == (0.25, -1.5)
    # The second has no width.
    assert list(found.detections()) == [0]
    assert found.detections()[0].classes.tolist() == [2]


def test_the_format_is_found_out(write: Callable[[str], Path], tmp_path: Path) -> None:
    assert list(read_detections(write(DETECTIONS))) == [1, 3]
    assert read_detections(write(UNCERTAIN))[2].covariance is not None
    assert list(read_detections(write(FOUND))) == [0]
    assert read_tracks(write(LABELS)).ids.tolist() == [3, 3]
    assert read_tracks(write(TRUTH)).ids.tolist() == [1, 2, 1, 2]
    for read in (read_detections, read_tracks):
        with pytest.raises(DataError, match=r"no file .*gone\.txt"):
            read(tmp_path / "gone.txt")


@pytest.mark.parametrize(
    ("read", "text", "line", "message"),
    [
        (read_mot_detections, DETECTIONS[:-9], 4, "10, as in the lines before"),
        (read_mot_detections, "1,-1,10,20,30\n", 1, r"one of \[7, 8, 9, 10\]"),
        (read_mot_detections, DETECTIONS.replace("11,", "x,"), 2, "numbers"),
        (read_mot_detections, DETECTIONS.replace("11,", ","), 2, "numbers"),
        (read_mot_detections, DETECTIONS.replace("31,", "nan,"), 2, "finite"),
        (read_mot_detections, DETECTIONS.replace("0.25", "inf"), 2, "finite"),
        (read_mot_detections, DETECTIONS.replace("31,41", "31,0"), 2, "positive width"),
        (read_mot_detections, DETECTIONS.replace("3,-1,1,", "0,-1,1,"), 4, "frames in order"),
        (read_mot_detections, DETECTIONS.replace("3,-1,1,", "3.5,-1,1,"), 4, "whole number from 0"),
        (read_mot_detections, DETECTIONS.replace("3,-1,1,", "-3,-1,1,"), 4, "whole number from 0"),
        (read_mot_detections, 2 * DETECTIONS.splitlines(keepends=True)[0], 2, "every line once"),
        (read_mot_detections, "1,-1,10,20,30,40,0.5,2.5\n", 1, "whole number from -1 on for the class"),
        (read_mot_tracks, TRUTH.replace("2,2,50", "2,1,50"), 4, "every identity once a frame"),
        (read_mot_tracks, TRUTH.replace("2,2,50", "1,2,50"), 4, "every identity once a frame"),
        (read_mot_tracks, TRUTH.replace("1,2,50", "3,2,50"), 4, "an identity after the other"),
        (read_mot_tracks, TRUTH.replace("2,2,50", "3,1,50"), 4, "an identity after the other"),
        (read_mot_tracks, TRUTH.replace("2,2,50", "2,-2,50"), 4, "for the identity"),
        (read_mot_tracks, TRUTH.replace("21,30", "21,-30"), 4, "at least 0"),
        (read_mot_tracks, TRUTH[:-8], 4, "9, as in the lines before"),
        (read_v2xsim_detections, UNCERTAIN[:-4], 2, "14, as in the lines before"),
        (read_v2xsim_detections, DETECTIONS, 1, r"one of \[14\]"),
        (read_v2xsim_detections, UNCERTAIN.replace("-5\n2", "999\n2"), 1, "logarithms"),
        (read_v2xsim_detections, UNCERTAIN.replace("-5\n2", "nan\n2"), 1, "finite"),
        (read_kitti_tracks, LABELS.replace("31.5", "10.5"), 4, "left up to right"),
        (read_kitti_tracks, LABELS.replace("1 3 Car", "0 3 Car"), 4, "every identity once a frame"),
        (read_kitti_tracks, LABELS.replace("1 3 Car", "1 3 car"), 4, "a type among DontCare, Pedestrian"),
        (read_kitti_tracks, LABELS.replace("1 3 Car", "1 -1 Car"), 4, "an identity of at least 0"),
        (read_kitti_tracks, LABELS[:-5], 4, "17, as in the lines before"),
        (read_kitti_detections, FOUND.replace("4,1,1,2", "4,9,1,2"), 2, "a class from 1 to 8"),
        (read_kitti_detections, FOUND.replace("4,1,1,2", "4,nan,1,2"), 2, "finite"),
    ],
)
def test_a_wrong_line_is_named(
    write: Callable[[str], Path], read: Callable[[Path], object], text: str, line: int, message: str
) -> None:
    path = write(text)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="binary cannot be read"):
        read_detections(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_tracks(tmp_path)


coordinates = st.floats(-1e4, 1e4).map(lambda value: round(value, 6))
round_trips = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def boxes_of_frames(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    frames = np.sort(np.array(draw(st.lists(st.integers(0, 5), max_size=12)), dtype=np.int64))
    corners = np.array([draw(st.tuples(coordinates, coordinates)) for _ in frames]).reshape(-1, 2)
    sizes = np.array([draw(st.tuples(*2 * (st.floats(0.01, 1e4),))) for _ in frames]).reshape(-1, 2)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return frames, np.concatenate([corners, corners + sizes], axis=1), generator


@round_trips
@given(boxes_of_frames(), st.booleans())
def test_what_is_written_comes_back(
    tmp_path: Path, drawn: tuple[np.ndarray, np.ndarray, np.random.Generator], classed: bool
) -> None:
    frames, boxes, generator = drawn
    n, path = len(frames), tmp_path / "file.txt"
    scores, classes = generator.random(n), generator.integers(0, 9, n) * classed
    tracks = Tracks(frames, generator.permutation(n), boxes, scores, classes)
    write_mot_tracks(path, tracks)
    detections = {
        frame: Detections(boxes[rows], scores[rows], classes[rows]) for frame, rows in tracks.by_frame()
    }
    back = read_mot_tracks(path)
    write_mot_detections(path, detections)
    found = read_mot_detections(path)
    for name in ("frames", "ids", "scores", "classes"):
        assert getattr(back, name).tolist() == getattr(tracks, name).tolist(), name
    np.testing.assert_allclose(back.boxes, boxes, rtol=0, atol=1e-9)
    assert list(found) == list(detections)
    for frame, expected in detections.items():
        np.testing.assert_allclose(found[frame].boxes, expected.boxes, rtol=0, atol=1e-9)
        assert found[frame].scores.tolist() == expected.scores.tolist()
        assert found[frame].classes.tolist() == expected.classes.tolist()


@round_trips
@given(boxes_of_frames())
def test_what_is_written_for_kitti_comes_back(
    tmp_path: Path, drawn: tuple[np.ndarray, np.ndarray, np.random.Generator]
) -> None:
    frames, boxes, generator = drawn
    n, path = len(frames), tmp_path / "file.txt"
    values = generator.normal(size=(10, n))
    objects = KittiObjects(
        *(frames, generator.permutation(n), generator.integers(1, 9, n), boxes, values[0]),
        *(generator.integers(-1, 3, n).astype(float), generator.integers(-1, 4, n).astype(float)),
        *(values[1], values[2], values[3:6].T, values[6:9].T),
    )
    write_kitti_tracks(path, objects)
    back = read_kitti_tracks(path)
    write_kitti_tracks(path, objects, scores=False)
    labels = read_kitti_tracks(path)
    write_kitti_detections(path, objects)
    found = read_kitti_detections(path)
    for name in objects.__dataclass_fields__:
        expected = getattr(objects, name).tolist()
        assert getattr(back, name).tolist() == expected, name
        assert getattr(labels, name).tolist() == (np.ones(n).tolist() if name == "scores" else expected)
        if name not in ("ids", "truncated", "occluded"):
            assert getattr(found, name).tolist() == expected, name


@round_trips
@given(boxes_of_frames(), st.sampled_from(["px", "m"]))
def test_what_is_written_for_v2xsim_comes_back(
    tmp_path: Path, drawn: tuple[np.ndarray, np.ndarray, np.random.Generator], unit: Any
) -> None:
    frames, boxes, generator = drawn
    frames, path = frames + 1, tmp_path / "file.txt"
    tracks = Tracks(frames, np.arange(len(frames)), boxes)
    detections = {}
    for frame, rows in tracks.by_frame():
        covariance = BoxCovariance.diagonal(
            np.exp(generator.normal(size=(len(boxes[rows]), 4))), "xysr", unit
        )
        scores = generator.random(len(covariance))
        detections[frame] = Detections(boxes[rows], scores, None, covariance, unit)  # type: ignore[arg-type]
    write_v2xsim_detections(path, detections)
    back = read_v2xsim_detections(path, unit=unit)
    assert list(back) == list(detections)
    for frame, expected in detections.items():
        np.testing.assert_allclose(back[frame].boxes, expected.boxes, rtol=0, atol=1e-9)
        assert back[frame].scores.tolist() == expected.scores.tolist()
        found, given = back[frame].covariance, expected.covariance
        assert found is not None
        assert given is not None
        np.testing.assert_allclose(found.matrices, given.matrices, rtol=1e-9)


def test_v2xsims_format_holds_variances_alone(tmp_path: Path) -> None:
    path, boxes = tmp_path / "file.txt", np.array([[0.0, 0, 20, 8]])
    corners = BoxCovariance(np.eye(4)[None], "xyxy", "px")
    write_v2xsim_detections(path, {3: Detections(boxes, covariance=corners)})
    found = read_v2xsim_detections(path)[3].covariance
    assert found is not None
    assert np.diag(found.matrices[0])[:3] == pytest.approx([0.5, 0.5, 2 * 20**2 + 2 * 8**2])
    for wrong, kind, message in (
        (Detections(boxes), DataError, "without covariances in frame 3"),
        (Detections(boxes, unit="ft"), SettingError, "detections in ft"),
        (
            Detections(boxes, covariance=BoxCovariance(np.zeros((1, 4, 4)), "xysr", "px")),
            DataError,
            "variance of 0",
        ),
    ):
        with pytest.raises(kind, match=message):
            write_v2xsim_detections(path, {3: wrong})


def test_tracks_become_kittis_results(tmp_path: Path) -> None:
    tracks = Tracks(
        np.array([0, 1]), np.array([4, 4]), np.array([[1.0, 2, 3, 4]] * 2), classes=np.array([2, 2])
    )
    write_kitti_tracks(tmp_path / "0000.txt", KittiObjects.from_tracks(tracks))
    assert (tmp_path / "0000.txt").read_text().startswith("0 4 Car -1 -1 -10.0 1.0 2.0 3.0 4.0 -1000.0")
    back = read_tracks(tmp_path / "0000.txt")
    assert (back.ids.tolist(), back.classes.tolist(), back.boxes.tolist()) == (
        [4, 4],
        [2, 2],
        tracks.boxes.tolist(),
    )
    with pytest.raises(DataError, match="places in KITTI_TYPES, 0 to 8"):
        KittiObjects.from_tracks(Tracks(tracks.frames, tracks.ids, tracks.boxes, classes=np.array([2, 9])))


def test_a_file_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.txt"
    tracks = Tracks(np.array([1]), np.array([1]), np.array([[1.0, 2, 3, 4]]))
    write_mot_tracks(path, tracks)
    before = path.read_text()
    assert before == "1,1,1.0,2.0,2.0,2.0,1.0,-1,-1,-1\n"

    def full(self: Path, text: str, **settings: object) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        write_mot_tracks(path, tracks[:0])
    assert path.read_text() == before
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_what_a_sequence_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "seqinfo.ini"
    info = SequenceInfo("crossing", 12.5, 100, 640, 480)
    write_sequence_info(path, info)
    assert read_sequence_info(path) == info
    text = path.read_text()
    for wrong, message in (
        (text.replace("seqLength=100\n", ""), "has no seqLength"),
        (text.replace("[Sequence]", "[Other]"), "has no Sequence"),
        (text.replace("=100", "=many"), "invalid literal"),
        (text.replace("12.5", "0"), "100 frames at 0.0 a second"),
        ("nothing", "cannot be read"),
    ):
        path.write_text(wrong)
        with pytest.raises(DataError, match=message):
            read_sequence_info(path)
    with pytest.raises(DataError, match="no file"):
        read_sequence_info(tmp_path / "gone.ini")


@real
def test_every_real_file_is_read() -> None:
    sequences = read_v2xsim(DATA / "v2xsim")
    assert len(sequences) == 40
    assert sum(len(found) for sequence in sequences for found in sequence.detections.values()) == 43_017
    assert {sequence.info.frame_rate for sequence in sequences} == {5}
    labels = [read_kitti_tracks(path) for path in sorted((DATA / "kitti" / "label").glob("*.txt"))]
    assert (len(labels), sum(map(len, labels))) == (15, 34_280)
    found = [read_kitti_detections(path) for path in (DATA / "kitti" / "detection").glob("*/*.txt")]
    assert (len(found), sum(map(len, found))) == (45, 44_586)
    mot15 = [read_detections(path) for path in (DATA / "sort_mot15").glob("*/det/det.txt")]
    assert (len(mot15), sum(len(item) for one in mot15 for item in one.values())) == (11, 35_147)
    tud = [read_tracks(path) for path in (DATA / "motmetrics_tud").glob("*/*.txt")]
    assert sum(map(len, tud)) == 2_486


@real
def test_errors_of_v2xsim_follow_its_variances_in_metres() -> None:
    """The four variances belong to x, y, s and r; boxes moved back and ratios inverted follow them better."""
    follow_ratio = []
    for upright, expected in ((False, 0.23), (True, 0.09)):
        errors, deviations = matched_errors(upright)
        assert np.sqrt((errors[:, 1] ** 2).mean()) == pytest.approx(expected, abs=0.01)
        follow_ratio.append(np.corrcoef(np.log(np.abs(errors[:, 3]) + 1e-6), np.log(deviations[:, 3]))[0, 1])
        ranks = np.abs(np.concatenate([errors, deviations], axis=1)).argsort(0).argsort(0)
        follow = np.corrcoef(ranks.T)[:4, 4:]
    assert np.diag(follow).min() > 0.4
    assert follow_ratio[1] > follow_ratio[0] + 0.1
    assert follow[0, 0] > follow[0, 1]
    assert follow[1, 1] > follow[1, 0]


def matched_errors(upright: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return errors of detections in x, y, s, r in metres, and the deviations that the detector says."""
    errors, deviations = [], []
    for sequence in read_v2xsim(DATA / "v2xsim", unit="m", upright=upright):
        frames, found = list(sequence.detections), list(sequence.detections.values())
        boxes = np.concatenate([item.boxes for item in found])
        tracks = Tracks(np.repeat(frames, [len(item) for item in found]), np.arange(len(boxes)), boxes)
        rows = matched_rows(pair(sequence.truth, tracks), 0.5)
        some = rows >= 0
        errors.append(to_space(boxes[some], "xysr") - to_space(sequence.truth.boxes[rows[some]], "xysr"))
        matrices = np.concatenate([item.covariance.matrices for item in found if item.covariance is not None])
        deviations.append(np.sqrt(np.diagonal(matrices[some], axis1=1, axis2=2)))
    return np.concatenate(errors), np.concatenate(deviations)


@real
def test_cars_of_v2xsims_truth_overlap_less_once_moved_back() -> None:
    published, upright = (
        sum(
            np.count_nonzero(np.triu(overlaps(item.truth.boxes[rows], item.truth.boxes[rows]), 1) > 0.02)
            for item in read_v2xsim(DATA / "v2xsim", upright=moved)
            for _, rows in item.truth.by_frame()
        )
        for moved in (False, True)
    )
    assert upright < 0.5 * published


@real
def test_v2xsim_without_its_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no val_det/tracking\*/det_\*\.txt"):
        read_v2xsim(tmp_path)
    (tmp_path / "val_det" / "tracking1").mkdir(parents=True)
    (tmp_path / "val_det" / "tracking1" / "det_3.txt").write_text(UNCERTAIN)
    with pytest.raises(DataError, match=r"no file .*V2X-val1/3/gt/gt\.txt"):
        read_v2xsim(tmp_path)
