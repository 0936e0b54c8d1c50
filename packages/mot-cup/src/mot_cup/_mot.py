"""MOTChallenge's files: detections, truth, results and ``seqinfo.ini``.

A line is ``frame, id, left, top, width, height, score`` and one of

    nothing more             7 values
    class                    8
    class, visibility        9    truth since MOT16; its score is the mark, 0 for boxes not to be found
    x, y, z                 10    detections, results and MOT15: positions in the world, or -1

Only boxes, scores and classes are read. The identity of a detection is -1. Lines are in order of frames;
those of truth and results may also be an identity after the other, each in order of frames.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._detections import Detections, DetectionSequence
from mot_cup._lines import Lines, read_lines, write_lines
from mot_cup._tracks import Ints, Tracks
from tenfold import DataError
from tenfold.experiment import write_whole

WIDTHS = (7, 8, 9, 10)


@dataclass(frozen=True)
class SequenceInfo:
    """What ``seqinfo.ini`` says of a sequence.

    Parameters
    ----------
    name : str
    frame_rate : float
        Frames a second.
    length : int
        Number of frames.
    width, height : int
        Of the pictures, in pixels.
    """

    name: str
    frame_rate: float
    length: int
    width: int
    height: int


def read_mot_detections(path: Path, *, unit: str = "px") -> DetectionSequence:
    """Read detections in MOTChallenge's format.

    Parameters
    ----------
    path : Path
    unit : str
        Of length, of the boxes in the file.

    Returns
    -------
    DetectionSequence
        In order of frames; frames without detections are absent.

    Raises
    ------
    DataError
        The file is missing, or a line is truncated, malformed, not finite, out of order, a copy of another,
        or of a box without area. The error names the file and the line.
    """
    lines = read_lines(path, ",", WIDTHS)
    frames, boxes = _frames_and_boxes(lines)
    lines.check((lines.values[:, 4:6] > 0).all(1), "a positive width and height")
    check_frame_order(lines, frames)
    lines.check_distinct()
    return DetectionSequence(frames, Detections(boxes, lines.values[:, 6], _classes(lines), unit=unit))


def write_mot_detections(path: Path, detections: Mapping[int, Detections]) -> None:
    """Write detections in MOTChallenge's format, in order of frames; covariances are not written.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    frames = sorted(detections)
    found = [detections[frame] for frame in frames]
    rows = _rows(
        np.repeat(np.array(frames, dtype=np.int64), [len(item) for item in found]),
        np.full(sum(map(len, found)), -1),
        np.concatenate([np.empty((0, 4)), *(item.boxes for item in found)]),
        np.concatenate([np.empty(0), *(item.scores for item in found)]),
        np.concatenate([np.empty(0, np.int64), *(item.classes for item in found)]),
    )
    write_lines(path, rows, ",")


def read_mot_tracks(path: Path) -> Tracks:
    """Read truth or results in MOTChallenge's format.

    Returns
    -------
    Tracks
        Sorted by frame, in a frame in the file's order. The score of a box of the truth is its mark.

    Raises
    ------
    DataError
        The file is missing, or a line is truncated, malformed, not finite, out of order, or has the identity
        of another line of the frame. The error names the file and the line.
    """
    lines = read_lines(path, ",", WIDTHS)
    frames, boxes = _frames_and_boxes(lines)
    lines.check((lines.values[:, 4:6] >= 0).all(1), "a width and height of at least 0")
    ids = lines.whole(1, "the identity", 0)
    check_identity_order(lines, frames, ids)
    order = np.argsort(frames, kind="stable")
    return Tracks(frames[order], ids[order], boxes[order], lines.values[order, 6], _classes(lines)[order])


def write_mot_tracks(path: Path, tracks: Tracks) -> None:
    """Write truth or results in MOTChallenge's format: with classes where there are any.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_lines(path, _rows(tracks.frames, tracks.ids, tracks.boxes, tracks.scores, tracks.classes), ",")


def read_sequence_info(path: Path) -> SequenceInfo:
    """Read ``seqinfo.ini``.

    Raises
    ------
    DataError
        The file is missing or malformed, or lacks an entry; the error names it.
    """
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", "an existing file", "Correct the path.") from error
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        reason = str(error).replace("\n", " ")
        raise DataError(f"{path} cannot be read ({reason})", "a seqinfo.ini", "Correct it.") from error
    try:
        entries = parser["Sequence"]
        info = SequenceInfo(
            entries["name"],
            float(entries["frameRate"]),
            int(entries["seqLength"]),
            int(entries["imWidth"]),
            int(entries["imHeight"]),
        )
    except KeyError as error:
        raise DataError(
            f"{path} has no {error.args[0]}", "[Sequence] with name, sizes, length and rate", "Add it."
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: {error}", "numbers", "Correct the entry.") from error
    if not (0 < info.frame_rate < np.inf and info.length > 0):
        raise DataError(
            f"{path}: {info.length} frames at {info.frame_rate} a second", "positive ones", "Correct them."
        )
    return info


def write_sequence_info(path: Path, info: SequenceInfo) -> None:
    """Write ``seqinfo.ini``.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    text = (
        f"[Sequence]\nname={info.name}\nimDir=img1\nframeRate={info.frame_rate:g}\nseqLength={info.length}\n"
        f"imWidth={info.width}\nimHeight={info.height}\nimExt=.jpg\n"
    )
    write_whole(path, lambda temporary: _write(temporary, text))


def check_frame_order(lines: Lines, frames: Ints) -> None:
    """Refuse a line of an earlier frame than the one before."""
    lines.check(np.diff(frames, prepend=frames[:1]) >= 0, "frames in order", "Sort the lines by frame.")


def check_identity_order(lines: Lines, frames: Ints, ids: Ints) -> None:
    """Refuse an identity twice in a frame, and lines in order neither of frames nor of identities."""
    order = np.lexsort((ids, frames))
    again = np.zeros(len(frames), np.bool_)
    again[order[1:]] = (np.diff(frames[order]) == 0) & (np.diff(ids[order]) == 0)
    lines.check(~again, "every identity once a frame", "Leave one of them out, or correct its identity.")
    falls = np.diff(frames, prepend=frames[:1]) < 0
    changes = np.diff(ids, prepend=ids[:1]) != 0
    first = np.zeros(len(ids), np.bool_)
    first[np.unique(ids, return_index=True)[1]] = True
    wrong = (changes & ~first) | (falls & ~changes)
    if falls.any() and wrong.any():
        # The order that the file keeps for longer is the one it was meant to have.
        lines.refuse(
            int(max(np.argmax(falls), np.argmax(wrong))),
            "lines in order of frames, or an identity after the other, each in order of frames",
            "Sort the lines by frame.",
        )


def _frames_and_boxes(lines: Lines) -> tuple[Ints, Floats]:
    lines.check_finite(range(7))
    frames = lines.whole(0, "the frame", 0)
    corner, size = lines.values[:, 2:4], lines.values[:, 4:6]
    return frames, np.concatenate([corner, corner + size], axis=1)


def _classes(lines: Lines) -> Ints:
    if lines.values.shape[1] not in (8, 9):
        return np.zeros(len(lines), np.int64)
    # -1 stands for no class.
    return np.maximum(lines.whole(7, "the class", -1), 0)


def _rows(
    frames: Ints, ids: Ints, boxes: Floats, scores: Floats, classes: Ints
) -> Iterator[list[float | int]]:
    rest = [[-1, -1, -1]] * len(frames)
    if classes.any():
        rest = [[number, -1] for number in classes.tolist()]
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    columns = (frames.tolist(), ids.tolist(), sizes.tolist(), scores.tolist(), rest)
    for frame, identity, box, score, last in zip(*columns, strict=True):
        yield [frame, identity, *box, score, *last]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
