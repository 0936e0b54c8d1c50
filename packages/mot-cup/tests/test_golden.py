"""Our trackers against what the references find on the real sequences (`golden/README.md`)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from golden_runs import assert_same, detections_of, golden, needs_sequences, rows_of, summary

from mot_cup import (
    BYTETRACK_PAPER_FACTORS,
    BoxCovariance,
    ByteTrack,
    Detections,
    OCSort,
    PaperCompat,
    Sort,
    Stage,
    Tracks,
)

Tracker = ByteTrack | OCSort | Sort


def byte_track(settings: dict[str, Any]) -> ByteTrack:
    return ByteTrack(
        track_thresh=settings["track_thresh"],
        match_thresh=settings["match_thresh"],
        track_buffer=settings["track_buffer"],
        frame_rate=settings["frame_rate"],
        fuse_score=not settings["mot20"],
    )


def oc_sort(settings: dict[str, Any]) -> OCSort:
    return OCSort(recovery=settings.pop("asso_func"), **settings)


def paper_byte_track(settings: dict[str, Any]) -> ByteTrack:
    return ByteTrack(
        track_thresh=settings["track_thresh"],
        match_thresh=settings["match_thresh"],
        track_buffer=settings["track_buffer"],
        uncertainty=PaperCompat(BYTETRACK_PAPER_FACTORS["upper bound"], each=1),
        leftover=Stage("nll", settings["nll_threshold"]) if settings["nll_ass"] else None,
    )


def paper_sort(settings: dict[str, Any]) -> Sort:
    stages = [Stage("iou", settings["iou_threshold"])]
    if settings["nll_ass"]:
        stages.append(Stage("nll", settings["nll_threshold"]))
    return Sort(
        max_age=settings["max_age"],
        min_hits=settings["min_hits"],
        stages=stages,
        uncertainty=PaperCompat(tuple(settings["var_factors"]), each=1),
    )


@needs_sequences
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sort", lambda settings: Sort(**settings)),
        ("sort_patient", lambda settings: Sort(**settings)),
        ("bytetrack", byte_track),
        ("bytetrack_paper", byte_track),
        ("bytetrack_mot20", byte_track),
        ("ocsort", oc_sort),
        ("ocsort_byte", oc_sort),
        ("ocsort_giou", oc_sort),
    ],
)
def test_tracks_are_those_of_the_reference(name: str, make: Callable[[dict[str, Any]], Tracker]) -> None:
    document = golden(name)
    tracker = make(document["settings"])
    for sequence, expected in document["sequences"].items():
        assert len(rows_of(sequence)) == expected["frames"]
        assert_same(tracker.track(detections_of(sequence)), expected)


@needs_sequences
@pytest.mark.parametrize(
    ("name", "make", "space"),
    [
        ("sort_sdkf", paper_sort, "xysr"),
        ("sort_sdkf_nllai", paper_sort, "xysr"),
        ("bytetrack_sdkf", paper_byte_track, "xyah"),
        ("bytetrack_sdkf_nllai", paper_byte_track, "xyah"),
    ],
)
def test_tracks_are_those_of_the_authors(
    name: str, make: Callable[[dict[str, Any]], Tracker], space: Any
) -> None:
    document = golden(name)
    tracker = make(document["settings"])
    for sequence, expected in document["sequences"].items():
        frames = [
            Detections(
                rows[:, :4],
                rows[:, 4],
                covariance=BoxCovariance.diagonal(np.exp(rows[:, 8:12]), space, "px"),
            )
            for rows in rows_of(sequence)
        ]
        assert_same(tracker.track(frames), expected)


def test_the_summary_of_tracks_knows_identities_rows_and_boxes() -> None:
    frames, boxes = np.array([1, 1, 2, 2]), np.tile([0.0, 0.0, 1.0, 2.0], (4, 1))
    rows = np.array([0, 1, 0, 1])
    tracks = Tracks(frames, np.array([5, 9, 5, 9]), boxes, rows=rows)
    renamed = Tracks(frames, np.array([2, 1, 2, 1]), boxes, rows=rows)
    swapped = Tracks(frames, np.array([5, 9, 9, 5]), boxes, rows=rows)
    assert summary(tracks) == summary(renamed)
    assert summary(tracks)["partition"] != summary(swapped)["partition"]
    expected = summary(tracks)
    assert_same(renamed, expected)
    with pytest.raises(AssertionError, match="partition"):
        assert_same(swapped, expected)
    expected["sums"][2] += 1e-7
    with pytest.raises(AssertionError, match="Not equal"):
        assert_same(tracks, expected)
