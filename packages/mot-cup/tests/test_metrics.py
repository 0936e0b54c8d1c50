"""HOTA, CLEAR and identity metrics against TrackEval, and by hand."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from trackeval.datasets import Kitti2DBox, MotChallenge2DBox
from trackeval.metrics import CLEAR, HOTA
from trackeval.metrics import Identity as TrackEvalIdentity

from mot_cup import Detections, Tracks
from mot_cup._matching import column_sums, match, match_positive, overlaps, row_sums
from mot_cup.identities import relink
from mot_cup.io import KITTI_TYPES, KittiObjects, read_mot_tracks, read_v2xsim
from mot_cup.metrics import Scores, average, combine, evaluate, kitti, mot_challenge
from tenfold import DataError, SettingError, UnknownNameError

DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "tracking"
real = pytest.mark.skipif(not (DATA / "v2xsim").is_dir(), reason="TENFOLD_DATA has no tracking files")

QUIET = {"PRINT_CONFIG": False}
ORACLES = (HOTA(), CLEAR(QUIET), TrackEvalIdentity(QUIET))
fuzz = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))


def oracle_data(truth: Tracks, tracks: Tracks, frames: int) -> dict[str, Any]:
    """Lay two sources out as TrackEval's metrics take them, with its own overlaps."""
    data: dict[str, Any] = {"num_timesteps": frames, "seq": "sequence"}
    boxes = {}
    for name, source in (("gt", truth), ("tracker", tracks)):
        unique, ids = np.unique(source.ids, return_inverse=True)
        rows = [np.flatnonzero(source.frames == frame + 1) for frame in range(frames)]
        data[f"{name}_ids"] = [ids[some] for some in rows]
        data[f"num_{name}_ids"], data[f"num_{name}_dets"] = len(unique), len(ids)
        boxes[name] = [source.boxes[some] for some in rows]
    data["similarity_scores"] = [
        MotChallenge2DBox._calculate_box_ious(a, b, box_format="x0y0x1y1")
        for a, b in zip(boxes["gt"], boxes["tracker"], strict=True)
    ]
    return data


def oracle(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [metric.eval_sequence(data) for metric in ORACLES]


def compare(scores: Scores, expected: list[dict[str, Any]]) -> None:
    """Compare every field, HOTA's at every alpha."""
    hota, *others = expected
    curves = scores.hota.curves() | {
        "HOTA_TP": scores.hota.tp,
        "HOTA_FN": scores.hota.fn,
        "HOTA_FP": scores.hota.fp,
    }
    for name, curve in curves.items():
        np.testing.assert_allclose(curve, hota[name], rtol=0, atol=1e-9, err_msg=name)
    figures = scores.figures()
    means = {name: np.mean(values) for name, values in hota.items() if not name.startswith("HOTA_")}
    for fields in (means, *others):
        for name, value in fields.items():
            assert figures[name] == pytest.approx(value, rel=0, abs=1e-9), name


@st.composite
def sources(draw: st.DrawFn, frames: int = 6, identities: int = 5) -> Tracks:
    """Draw boxes on a coarse grid, where ties are many, in some of the frames, in any order."""
    step = draw(st.sampled_from([1.0, 2.0, 0.37]))
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(1, frames),
                st.integers(0, identities - 1),
                *(st.integers(0, 3) for _ in range(2)),
                *(st.integers(0, 4) for _ in range(2)),
            ),
            max_size=frames * identities,
            unique_by=lambda row: row[:2],
        )
    )
    values = np.array(rows, dtype=float).reshape(-1, 6)
    values = values[np.argsort(values[:, 0], kind="stable")]
    boxes = step * np.concatenate([values[:, 2:4], values[:, 2:4] + values[:, 4:6]], axis=1)
    return Tracks(values[:, 0], values[:, 1], boxes)


def noisy(generator: np.random.Generator, frames: int, objects: int) -> tuple[Tracks, Tracks]:
    """Return moving objects and tracks that miss, add, jitter and switch."""
    frame, identity = (grid.ravel() for grid in np.mgrid[1 : frames + 1, 0:objects])
    start, speed = generator.uniform(0, 50, (objects, 2)), generator.normal(0, 1, (objects, 2))
    corner = start[identity] + frame[:, None] * speed[identity]
    boxes = np.concatenate([corner, corner + generator.uniform(4, 9, (objects, 2))[identity]], axis=1)
    there = generator.random(len(frame)) < 0.9
    truth = Tracks(frame[there], identity[there], boxes[there])
    found = generator.random(len(frame)) < 0.8
    switched = np.where(frame > generator.integers(1, frames, objects)[identity], objects, 0)
    noise = generator.normal(0, 0.7, (found.sum(), 2))
    tracks = Tracks(
        frame[found], (identity + switched)[found], boxes[found] + np.concatenate([noise, noise], axis=1)
    )
    return truth, tracks


@fuzz
@given(sources(), sources(), st.integers(6, 9))
def test_every_figure_of_a_sequence_is_trackevals(truth: Tracks, tracks: Tracks, frames: int) -> None:
    compare(evaluate(truth, tracks, frames=frames), oracle(oracle_data(truth, tracks, frames)))


@pytest.mark.parametrize("objects", [1, 3, 12, 40])
def test_every_figure_of_moving_objects_is_trackevals(objects: int) -> None:
    for seed in range(3):
        truth, tracks = noisy(np.random.default_rng(seed), frames=30, objects=objects)
        compare(evaluate(truth, tracks, frames=30), oracle(oracle_data(truth, tracks, 30)))


@settings(fuzz, max_examples=100)
@given(st.lists(st.tuples(sources(), sources()), min_size=1, max_size=3))
def test_a_combination_is_trackevals(pairs: list[tuple[Tracks, Tracks]]) -> None:
    scores = [evaluate(truth, tracks, frames=6) for truth, tracks in pairs]
    parts = [oracle(oracle_data(truth, tracks, 6)) for truth, tracks in pairs]
    combined = combine(scores)
    if not any(len(truth) for truth, _ in pairs):
        assert [combined[name] for name in ("MOTA", "MODA", "sMOTA", "MLR")] == [0, 0, 0, 1]
        return
    expected = [
        metric.combine_sequences({str(number): part[index] for number, part in enumerate(parts)})
        for index, metric in enumerate(ORACLES)
    ]
    compare(combined, expected)
    means = average(scores)
    assert means["MOTA"] == pytest.approx(np.mean([part[1]["MOTA"] for part in parts]), abs=1e-9)
    assert means["HOTA"] == pytest.approx(np.mean([part[0]["HOTA"].mean() for part in parts]), abs=1e-9)


def test_similarities_may_be_any() -> None:
    truth, tracks = noisy(np.random.default_rng(5), frames=12, objects=6)
    data = oracle_data(truth, tracks, 12)
    generator = np.random.default_rng(6)
    data["similarity_scores"] = [generator.random(values.shape) for values in data["similarity_scores"]]
    given = {frame + 1: values for frame, values in enumerate(data["similarity_scores"])}
    compare(evaluate(truth, tracks, similarities=given, frames=12), oracle(data))
    with pytest.raises(SettingError, match="no similarities of frame 12"):
        evaluate(truth, tracks, similarities={frame: given[frame] for frame in range(1, 12)})
    with pytest.raises(DataError, match="in frame 1; expected shape"):
        evaluate(truth, tracks, similarities=given | {1: given[1].T[:-1]})
    with pytest.raises(DataError, match="numbers from 0 to 1"):
        evaluate(truth, tracks, similarities=given | {3: given[3] + 1})


def test_by_hand() -> None:
    """Two objects over four frames; the second is lost in frame 3 and comes back under another identity."""
    left, right = [0.0, 0, 10, 10], [100.0, 0, 110, 10]
    truth = Tracks(np.repeat([1, 2, 3, 4], 2), np.tile([7, 8], 4), np.array([left, right] * 4))
    tracks = Tracks(
        np.array([1, 1, 2, 2, 3, 4, 4]),
        np.array([1, 2, 1, 2, 1, 1, 3]),
        np.array([left, right, left, right, left, left, [100.0, 0, 110, 6]]),
    )
    scores = evaluate(truth, tracks)
    figures = scores.figures()
    assert (figures["CLR_TP"], figures["CLR_FN"], figures["CLR_FP"]) == (7, 1, 0)
    assert (figures["IDSW"], figures["Frag"], figures["MT"], figures["PT"], figures["ML"]) == (1, 1, 1, 1, 0)
    assert figures["MOTA"] == pytest.approx(1 - 2 / 8)
    assert figures["MOTP"] == pytest.approx((6 + 0.6) / 7)
    assert figures["IDTP"] == 6
    assert figures["IDF1"] == pytest.approx(6 / (6 + 0.5 + 1))
    # Up to alpha .6 the last box counts: A(c) is 1, 2/4 for two boxes and 1/4 for one; above it does not.
    association = (4 * 1 + 2 * 2 / 4 + 1 / 4) / 7
    assert scores.hota.curves()["HOTA"][0] == pytest.approx(np.sqrt(7 / 8 * association))
    assert scores.hota.curves()["AssA"][-1] == pytest.approx((4 + 2 * 2 / 4) / 6)


def test_identities_and_order_in_a_frame_have_no_effect_without_ties() -> None:
    truth, tracks = noisy(np.random.default_rng(1), frames=20, objects=8)
    generator = np.random.default_rng(2)
    names = generator.permutation(1000)[: tracks.ids.max() + 1]
    order = np.lexsort((generator.random(len(tracks)), tracks.frames))
    renamed = Tracks(tracks.frames[order], names[tracks.ids[order]], tracks.boxes[order])
    assert evaluate(truth, renamed).figures() == pytest.approx(evaluate(truth, tracks).figures())


def test_truth_is_perfect() -> None:
    truth, _ = noisy(np.random.default_rng(1), frames=20, objects=8)
    figures = evaluate(truth, truth).figures()
    for name in ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "sMOTA", "IDF1"):
        assert figures[name] == pytest.approx(1), name


small = st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1 / 3])


@fuzz
@given(st.integers(0, 9).flatmap(lambda m: st.lists(st.lists(small, min_size=m, max_size=m), max_size=9)))
def test_ties_fall_as_scipys(rows: list[list[float]]) -> None:
    values = np.array(rows, dtype=float).reshape(len(rows), -1 if rows else 0)
    expected = np.full(len(values), -1)
    row, column = linear_sum_assignment(values, maximize=True)
    expected[row] = column
    assert match(values).tolist() == expected.tolist()
    positive = [
        column if column >= 0 and values[row, column] > 0 else -1 for row, column in enumerate(expected)
    ]
    assert match_positive(values).tolist() == positive


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 7), (9, 8), (17, 129), (300, 3), (40, 300)])
def test_sums_are_numpys_to_the_last_bit(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(shape)
    assert (row_sums(values) == values.sum(1)).all()
    assert (column_sums(values) == values.sum(0)).all()


def test_overlaps_of_boxes_without_area_are_none() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 1, 3], [2, 2, 0, 0]])
    assert overlaps(boxes, boxes).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert overlaps(boxes[:1], boxes[:1] + np.array([1.0, 0, 1, 0])).tolist() == [[1 / 3]]


def test_settings_out_of_range() -> None:
    truth, tracks = noisy(np.random.default_rng(1), frames=5, objects=2)
    with pytest.raises(SettingError, match="threshold 0"):
        evaluate(truth, tracks, threshold=0)
    with pytest.raises(SettingError, match="4 frames and boxes over 5"):
        evaluate(truth, tracks, frames=4)
    with pytest.raises(SettingError, match="no scores"):
        combine([])
    with pytest.raises(SettingError, match="no scores"):
        average([])


def challenge(truth: Tracks, tracks: Tracks, frames: int, benchmark: str) -> dict[str, Any]:
    """Return what TrackEval leaves of truth and tracks."""
    dataset = MotChallenge2DBox.__new__(MotChallenge2DBox)
    dataset.benchmark, dataset.do_preproc = benchmark, True
    names = [
        *(
            "pedestrian",
            "person_on_vehicle",
            "car",
            "bicycle",
            "motorbike",
            "non_mot_vehicle",
            "static_person",
        ),
        *("distractor", "occluder", "occluder_on_ground", "occluder_full", "reflection", "crowd"),
    ]
    dataset.class_name_to_class_id = {name: number for number, name in enumerate(names, start=1)}
    dataset.valid_class_numbers = list(range(1, 14))
    data = oracle_data(truth, tracks, frames)
    raw = {"num_timesteps": frames, "seq": "sequence", "similarity_scores": data["similarity_scores"]}
    for name, source in (("gt", truth), ("tracker", tracks)):
        rows = [np.flatnonzero(source.frames == frame + 1) for frame in range(frames)]
        raw[f"{name}_ids"] = [source.ids[some] for some in rows]
        raw[f"{name}_dets"] = [source.boxes[some] for some in rows]
        raw[f"{name}_classes"] = [source.classes[some] for some in rows]
        raw["gt_extras" if name == "gt" else "tracker_confidences"] = [
            {"zero_marked": source.scores[some].astype(int)} if name == "gt" else source.scores[some]
            for some in rows
        ]
    return dict(dataset.get_preprocessed_seq_data(raw, "pedestrian"))


@settings(fuzz, max_examples=150)
@given(sources(), sources(), st.integers(0, 2**32 - 1), st.sampled_from(["MOT15", "MOT16", "MOT17", "MOT20"]))
def test_what_motchallenge_leaves_out(truth: Tracks, tracks: Tracks, seed: int, benchmark: Any) -> None:
    generator = np.random.default_rng(seed)
    classes = generator.choice([1, 1, 1, 2, 3, 6, 7, 8, 12, 13], len(truth))
    truth = Tracks(truth.frames, truth.ids, truth.boxes, generator.choice([0, 1, 1], len(truth)), classes)
    kept = mot_challenge(truth, tracks, benchmark)
    compare(evaluate(*kept, frames=6), oracle(challenge(truth, tracks, 6, benchmark)))


def test_a_track_on_a_distractor_is_neither_right_nor_wrong() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    one = np.ones(3, np.int64)
    truth = Tracks(one, np.arange(3), boxes, np.array([1.0, 0, 0]), np.array([1, 1, 8]))
    tracks = Tracks(one, np.arange(3), boxes)
    left, kept = mot_challenge(truth, tracks)
    assert left.ids.tolist() == [0]
    assert kept.ids.tolist() == [0, 1]
    with pytest.raises(UnknownNameError, match="MOT17"):
        mot_challenge(truth, tracks, "MOT71")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="class 0 in the truth"):
        mot_challenge(tracks, tracks)
    with pytest.raises(DataError, match="tracks of class 8"):
        mot_challenge(truth, truth)


def kittis(labels: KittiObjects, tracks: Tracks, frames: int, kind: str) -> dict[str, Any]:
    """Return what TrackEval leaves of KITTI's truth and tracks."""
    dataset = Kitti2DBox.__new__(Kitti2DBox)
    dataset.max_occlusion, dataset.max_truncation, dataset.min_height = 2, 0, 25
    dataset.class_name_to_class_id = {
        name.lower(): number for number, name in enumerate(KITTI_TYPES) if name != "DontCare"
    }
    truth, regions = labels.of(), labels.of("DontCare")
    data = oracle_data(truth.tracks(), tracks, frames)
    raw = {"num_timesteps": frames, "seq": "sequence", "similarity_scores": data["similarity_scores"]}
    for name, source in (("gt", truth), ("tracker", tracks)):
        rows = [np.flatnonzero(source.frames == frame + 1) for frame in range(frames)]
        raw[f"{name}_ids"] = [source.ids[some] for some in rows]
        raw[f"{name}_dets"] = [source.boxes[some] for some in rows]
        raw[f"{name}_classes"] = [source.classes[some] for some in rows]
    rows = [np.flatnonzero(truth.frames == frame + 1) for frame in range(frames)]
    raw["gt_extras"] = [
        {"occlusion": truth.occluded[some], "truncation": truth.truncated[some]} for some in rows
    ]
    raw["tracker_confidences"] = [tracks.scores[tracks.frames == frame + 1] for frame in range(frames)]
    raw["gt_crowd_ignore_regions"] = [regions.boxes[regions.frames == frame + 1] for frame in range(frames)]
    return dict(dataset.get_preprocessed_seq_data(raw, kind.lower()))


@settings(fuzz, max_examples=150)
@given(sources(), sources(), st.integers(0, 2**32 - 1), st.sampled_from(["Car", "Pedestrian"]))
def test_what_kitti_leaves_out(truth: Tracks, tracks: Tracks, seed: int, kind: Any) -> None:
    generator = np.random.default_rng(seed)
    n = len(truth)
    classes = generator.choice([0, 0, 1, 2, 2, 4, 6], n)
    labels = replace(
        KittiObjects.from_tracks(Tracks(truth.frames, truth.ids, 10 * truth.boxes, classes=classes)),
        truncated=generator.choice([0.0, 0, 1], n),
        occluded=generator.choice([0.0, 2, 3], n),
    )
    tracks = Tracks(
        tracks.frames, tracks.ids, 10 * tracks.boxes, classes=generator.choice([1, 2, 2], len(tracks))
    )
    kept = kitti(labels, tracks, kind)
    compare(evaluate(*kept, frames=6), oracle(kittis(labels, tracks, 6, kind)))


def test_a_track_where_nothing_is_labelled_is_neither_right_nor_wrong() -> None:
    boxes = np.array(
        [[0.0, 0, 50, 50], [100, 0, 150, 50], [200, 0, 250, 50], [300, 0, 320, 20], [400, 0, 450, 50]]
    )
    truth = Tracks(np.zeros(3), np.arange(3), boxes[:3], classes=np.array([2, 0, 4]))
    tracks = Tracks(np.zeros(5), np.arange(5), boxes)
    left, kept = kitti(KittiObjects.from_tracks(truth), tracks)
    assert left.ids.tolist() == [0]
    assert kept.ids.tolist() == [0, 4]
    with pytest.raises(UnknownNameError, match="one of Car, Pedestrian"):
        kitti(KittiObjects.from_tracks(truth), tracks, "Van")  # type: ignore[arg-type]


def linked(detections: dict[int, Detections]) -> Tracks:
    """Return the tracks of a plain tracker."""
    found = list(detections.values())
    boxes = np.concatenate([item.boxes for item in found])
    return relink(
        Tracks(np.repeat(list(detections), [len(item) for item in found]), np.arange(len(boxes)), boxes)
    )


def compare_together(pairs: list[tuple[Tracks, Tracks, int]]) -> Scores:
    scores = [evaluate(truth, tracks, frames=frames) for truth, tracks, frames in pairs]
    parts = [oracle(oracle_data(*pair)) for pair in pairs]
    for item, part in zip(scores, parts, strict=True):
        compare(item, part)
    named = [{str(number): part[index] for number, part in enumerate(parts)} for index in range(3)]
    combined = combine(scores)
    compare(combined, [metric.combine_sequences(part) for metric, part in zip(ORACLES, named, strict=True)])
    return combined


@real
def test_figures_of_tud_are_trackevals() -> None:
    pairs = []
    for name, frames in (("TUD-Campus", 71), ("TUD-Stadtmitte", 179)):
        folder = DATA / "motmetrics_tud" / name
        truth, tracks = mot_challenge(
            read_mot_tracks(folder / "gt.txt"), read_mot_tracks(folder / "test.txt"), "MOT15"
        )
        pairs.append((truth, tracks, frames))
    # As motmetrics documents it.
    assert evaluate(*pairs[0][:2])["MOTA"] == pytest.approx(0.526, abs=0.001)
    assert compare_together(pairs)["HOTA"] > 0.3


@real
@pytest.mark.parametrize("mended", [False, True])
def test_figures_of_v2xsim_are_trackevals(mended: bool) -> None:
    pairs = [
        (relink(item.truth) if mended else item.truth, linked(item.detections), item.info.length)
        for item in read_v2xsim(DATA / "v2xsim")
    ]
    assert len(pairs) == 40
    combined = compare_together(pairs)
    assert (combined["AssA"] > 0.6) is mended


@pytest.mark.slow
def test_ten_times_as_fast_as_trackeval() -> None:
    """Print the CPU time of a frame of 20 objects (`pytest -s`); TrackEval is given the overlaps."""
    pairs = [(*noisy(np.random.default_rng(seed), frames=300, objects=20), 300) for seed in range(5)]
    data = [oracle_data(*pair) for pair in pairs]
    ours, theirs = [], []
    for _ in range(7):
        start = time.process_time()
        for truth, tracks, frames in pairs:
            evaluate(truth, tracks, frames=frames)
        middle = time.process_time()
        for item in data:
            oracle(item)
        ours.append(middle - start)
        theirs.append(time.process_time() - middle)
    each, other = np.median(ours) / 1500, np.median(theirs) / 1500
    sys.stdout.write(f"{1e6 * each:.1f} us a frame, TrackEval {1e6 * other:.1f}: {other / each:.1f} times\n")
    assert other > 10 * each
