"""The paper's filter on its own files gives the authors' figures, counted by TrackEval too."""

from pathlib import Path

import numpy as np
import pytest
from golden_runs import DATA
from trackeval.metrics import CLEAR, HOTA

from mot_cup import PAPER_FACTORS, PaperCompat, Sort, Stage, Tracks, io, metrics

needs_v2xsim = pytest.mark.skipif(
    not (DATA / "v2xsim" / "val_det").is_dir(), reason="V2X-Sim's files are not in TENFOLD_DATA/tracking"
)
UPPER_BOUND = PaperCompat(PAPER_FACTORS["upper bound"])
EXPECTED = {
    "default SORT": (Sort(), 41.41, 56.57, 86.58),
    "their filter": (Sort(uncertainty=UPPER_BOUND), 42.15, 57.23, 87.80),
    "their filter and association": (
        Sort(uncertainty=UPPER_BOUND, stages=[Stage("iou", 0.3), Stage("nll", 1000)]),
        43.19,
        59.16,
        87.62,
    ),
}


def runs(tracker: Sort, folder: Path) -> dict[int, list[tuple[Tracks, Tracks]]]:
    """Return truth and tracks of every sequence, by agent; the authors' frames begin at 1."""
    result: dict[int, list[tuple[Tracks, Tracks]]] = {}
    for sequence in io.read_v2xsim(folder):
        frames = dict(sequence.detections)
        frames.setdefault(1, next(iter(frames.values()))[:0])
        result.setdefault(sequence.agent, []).append((sequence.truth, tracker.track(frames)))
    return result


def by_trackeval(pairs: list[tuple[Tracks, Tracks]]) -> tuple[float, float, float]:
    """Return HOTA, MOTA and MOTP of one agent's sequences together, by TrackEval."""
    hota, clear = HOTA(), CLEAR({"THRESHOLD": 0.5, "PRINT_CONFIG": False})
    counted: dict[str, dict[str, object]] = {"hota": {}, "clear": {}}
    for k, (truth, tracks) in enumerate(pairs):
        data = raw(truth, tracks)
        counted["hota"][str(k)] = hota.eval_sequence(data)
        counted["clear"][str(k)] = clear.eval_sequence(data)
    total, both = hota.combine_sequences(counted["hota"]), clear.combine_sequences(counted["clear"])
    return float(np.mean(total["HOTA"])), float(both["MOTA"]), float(both["MOTP"])


def raw(truth: Tracks, tracks: Tracks) -> dict[str, object]:
    """Return a sequence as TrackEval's metrics take it."""
    frames = range(1, int(max(truth.frames[-1], tracks.frames[-1])) + 1)
    data: dict[str, object] = {"num_timesteps": len(frames)}
    for name, boxes in (("gt", truth), ("tracker", tracks)):
        _, ids = np.unique(boxes.ids, return_inverse=True)
        data[f"{name}_ids"] = [ids[boxes.frames == frame] for frame in frames]
        data[f"num_{name}_ids"] = int(ids.max()) + 1
        data[f"num_{name}_dets"] = len(boxes)
    data["similarity_scores"] = [
        overlaps(truth.boxes[truth.frames == frame], tracks.boxes[tracks.frames == frame]) for frame in frames
    ]
    return data


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area, other = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    return np.asarray(shared / (area[:, None] + other - shared))


@needs_v2xsim
@pytest.mark.parametrize("name", EXPECTED)
def test_figures_are_those_of_the_authors(name: str) -> None:
    tracker, *expected = EXPECTED[name]
    agents = runs(tracker, DATA / "v2xsim")
    assert sum(map(len, agents.values())) == 40
    scores = [metrics.combine(metrics.evaluate(*pair) for pair in pairs) for pairs in agents.values()]
    found = metrics.average(scores)
    assert [100 * found[key] for key in ("HOTA", "MOTA", "MOTP")] == pytest.approx(expected, abs=0.01)
    theirs = np.mean([by_trackeval(pairs) for pairs in agents.values()], axis=0)
    assert 100 * theirs == pytest.approx(expected, abs=0.01)
