"""Run the reference trackers on the real sequences and write their golden files; see README.md.

Needs checkouts of the four repositories in one folder, as sort, bytetrack, ocsort and coperception_mod, and
an environment with numpy, scipy, filterpy, lap, cython_bbox and torch:

    python run_references.py CHECKOUTS DATA sort bytetrack ocsort authors_sort authors_bytetrack
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

Frames = list[np.ndarray]
HERE = Path(__file__).parent
COMMITS = {
    "abewley/sort": "2236dff5019565958b84df7d871d41cc1db58ac7",
    "ifzhang/ByteTrack": "d1bf0191adff59bc8fcfeaa0b33d3d1642552a99",
    "noahcao/OC_SORT": "8462e7e729a93ccd3bd995c0a79a890336cb3a0b",
    "susanbao/coperception_mod": "65246b4bdb2da4b7a212f3cb9ccd2febe2349a1e",
}
BYTE = {"track_thresh": 0.6, "track_buffer": 30, "match_thresh": 0.9, "mot20": False, "frame_rate": 30}
OC = {
    "det_thresh": 0.6,
    "max_age": 30,
    "min_hits": 3,
    "iou_threshold": 0.3,
    "delta_t": 3,
    "asso_func": "iou",
    "inertia": 0.2,
    "use_byte": False,
}


class RowOf:
    """Which detection of the present frame has these numbers: no two in a frame share all of them."""

    def __init__(self) -> None:
        self.rows: dict[tuple[float, ...], int] = {}

    def begin(self, keys: list[list[float]]) -> None:
        self.rows = {tuple(map(float, key)): row for row, key in enumerate(keys)}
        assert len(self.rows) == len(keys)

    def __call__(self, *key: float) -> int:
        return self.rows[tuple(map(float, key))]


def sort(root: Path, data: Path) -> None:
    pyplot, patches = module("matplotlib.pyplot"), module("matplotlib.patches")
    module("matplotlib", use=lambda *_: None, pyplot=pyplot, patches=patches)
    module("skimage", io=None)
    reference = load("reference_sort", root / "sort" / "sort.py")
    tracker = noting_column(reference, 5)

    def run(frames: Frames, settings: dict[str, Any]) -> list[list[float]]:
        tracker.count, it, out = 0, reference.Sort(**settings), []
        for number, rows in enumerate(frames, 1):
            found = it.update(np.column_stack([rows[:, :5], np.arange(len(rows))]))
            row_of = {track.id + 1: track.row for track in it.trackers}
            out += [[number, row_of[int(box[4])], box[4], *box[:4]] for box in found]
        return out

    source = describe("abewley/sort", "numpy", "filterpy", "lap")
    default = {"max_age": 1, "min_hits": 3, "iou_threshold": 0.3}
    patient = {"max_age": 5, "min_hits": 1, "iou_threshold": 0.2}
    write("sort", source, default, sequences(data), run)
    write("sort_patient", source, patient, sequences(data), run)


def bytetrack(root: Path, data: Path) -> None:
    module("cv2")
    module("yolox").__path__ = []
    module("yolox.tracker").__path__ = [str(root / "bytetrack" / "yolox" / "tracker")]
    reference = importlib.import_module("yolox.tracker.byte_tracker")
    base = importlib.import_module("yolox.tracker.basetrack").BaseTrack
    row_of = noting_strack(reference)

    def run(frames: Frames, settings: dict[str, Any]) -> list[list[float]]:
        base._count, out = 0, []
        it = reference.BYTETracker(SimpleNamespace(**settings), frame_rate=settings["frame_rate"])
        for number, rows in enumerate(frames, 1):
            begin_stracks(reference, row_of, rows)
            for track in it.update(rows[:, :5], (1, 1), (1, 1)):
                assert track.row_frame == number
                out.append([number, track.row, track.track_id, *track.tlbr])
        return out

    source = describe("ifzhang/ByteTrack", "numpy", "scipy", "lap", "cython_bbox")
    without_scores = {**BYTE, "mot20": True, "match_thresh": 0.7, "frame_rate": 5}
    write("bytetrack", source, BYTE, sequences(data), run)
    write("bytetrack_paper", source, {**BYTE, "track_thresh": 0.8}, sequences(data), run)
    write("bytetrack_mot20", source, without_scores, sequences(data), run)


def ocsort(root: Path, data: Path) -> None:
    sys.path.insert(0, str(root / "ocsort"))
    reference = importlib.import_module("trackers.ocsort_tracker.ocsort")
    row_of = RowOf()

    class Noting(reference.KalmanBoxTracker):  # type: ignore[misc, name-defined]
        count = 0

        def __init__(self, bbox: np.ndarray, delta_t: int = 3, orig: bool = False) -> None:
            super().__init__(bbox, delta_t, orig)
            self.row = row_of(*bbox)

        def update(self, bbox: np.ndarray | None) -> None:
            super().update(bbox)
            if bbox is not None:
                self.row = row_of(*bbox)

    reference.KalmanBoxTracker = Noting

    def run(frames: Frames, settings: dict[str, Any]) -> list[list[float]]:
        it, out = reference.OCSort(**settings), []
        for number, rows in enumerate(frames, 1):
            row_of.begin(rows[:, :5].tolist())
            found = it.update(rows[:, :5], (1, 1), (1, 1))
            by_id = {track.id + 1: track.row for track in it.trackers}
            out += [[number, by_id[int(box[4])], box[4], *box[:4]] for box in found]
        return out

    source = describe("noahcao/OC_SORT", "numpy", "filterpy", "lap")
    generalised = {"asso_func": "giou", "delta_t": 2, "inertia": 0.4, "max_age": 10, "min_hits": 1}
    write("ocsort", source, OC, sequences(data), run)
    write("ocsort_byte", source, {**OC, "use_byte": True, "det_thresh": 0.8}, sequences(data), run)
    write("ocsort_giou", source, {**OC, **generalised}, sequences(data), run)


def authors_sort(root: Path, data: Path) -> None:
    module("ipdb")
    reference = load("authors_sort", root / "coperception_mod/tools/track/sort/sort_uq.py")
    tracker = noting_column(reference, 6)
    # NumPy no longer puts arrays of one number into a row of numbers.
    tracker.get_center_state = lambda self: self.kf.x.ravel()
    reference.expand_scalar = reference.var_cp_dict["upperbound"]
    reference.cp_thred = reference.std_cp_dict["upperbound"]

    def run(frames: Frames, settings: dict[str, Any]) -> list[list[float]]:
        reference.output_cov, reference.nll_ass = settings["output_cov"], settings["nll_ass"]
        names = ("max_age", "min_hits", "iou_threshold", "nll_threshold")
        tracker.count, it, out = 0, reference.Sort(**{name: settings[name] for name in names}), []
        for number, rows in enumerate(frames, 1):
            rows[:, 6] = np.arange(len(rows))
            found = it.update(rows)
            row_of = {track.id + 1: track.row for track in it.trackers}
            out += [[number, row_of[int(box[4])], box[4], *box[:4]] for box in found]
        return out

    source = describe("susanbao/coperception_mod", "numpy", "filterpy", "lap", "torch")
    for name, nll in (("sort_sdkf", False), ("sort_sdkf_nllai", True)):
        settings = {"max_age": 1, "min_hits": 3, "iou_threshold": 0.3, "nll_threshold": 1000}
        settings |= {"output_cov": True, "nll_ass": nll}
        settings |= {"var_factors": reference.expand_scalar, "std_factors": reference.cp_thred}
        write(name, source, settings, sequences(data, mot15=False), run)


def authors_bytetrack(root: Path, data: Path) -> None:
    module("cv2")
    module("ipdb")
    sys.path.insert(0, str(root / "coperception_mod/tools/track/byte_tracker"))
    reference = importlib.import_module("byte_tracker")
    base = importlib.import_module("basetrack").BaseTrack
    row_of = noting_strack(reference)

    def run(frames: Frames, settings: dict[str, Any]) -> list[list[float]]:
        base._count, it, out = 0, reference.BYTETracker(SimpleNamespace(**settings)), []
        for number, rows in enumerate(frames, 1):
            begin_stracks(reference, row_of, rows)
            for track in it.update(rows):
                assert track.row_frame == number
                out.append([number, track.row, track.track_id, *track.tlbr])
        return out

    source = describe("susanbao/coperception_mod", "numpy", "scipy", "lap", "cython_bbox", "torch")
    for name, nll in (("bytetrack_sdkf", False), ("bytetrack_sdkf_nllai", True)):
        settings = {"track_thresh": 0.8, "track_buffer": 30, "match_thresh": 0.9, "mot20": False}
        settings |= {"nll_threshold": 50, "mode": "upperbound/no_rsu", "output_cov": True, "nll_ass": nll}
        settings |= {"std_factors": reference.std_cp_dict["upperbound"]}
        write(name, source, settings, sequences(data, mot15=False), run)


def sequences(data: Path, mot15: bool = True) -> Iterator[tuple[str, Frames]]:
    """Yield each sequence: of every frame from 1 on x1, y1, x2, y2, score and what else the file has."""
    mot = sorted(data.glob("sort_mot15/*/det/det.txt")) if mot15 else []
    paths = [(f"mot15/{path.parent.parent.name}", path) for path in mot]
    v2x = [path for path in sorted(data.glob("v2xsim/val_det/*/det_*.txt")) if path.stat().st_size]
    paths += [(f"v2xsim/{path.parent.name}/{path.stem}", path) for path in v2x]
    for name, path in paths:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
        table[:, 4:6] += table[:, 2:4]
        numbers = range(1, int(table[:, 0].max()) + 1)
        yield name, [table[table[:, 0] == number, 2:] for number in numbers]


def module(name: str, **attributes: Any) -> ModuleType:
    """Put an empty module in place of one that only draws, reads images or debugs."""
    result = ModuleType(name)
    result.__dict__.update(attributes)
    sys.modules[name] = result
    return result


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    result = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result


def noting_column(reference: Any, column: int) -> Any:
    """Let SORT's tracks note a column of their last detection that the tracker does not read: its row."""

    class Noting(reference.KalmanBoxTracker):  # type: ignore[misc, name-defined]
        def __init__(self, bbox: np.ndarray) -> None:
            super().__init__(bbox)
            self.row = bbox[column]

        def update(self, bbox: np.ndarray) -> None:
            super().update(bbox)
            self.row = bbox[column]

    reference.KalmanBoxTracker = Noting
    return Noting


def noting_strack(reference: Any) -> RowOf:
    """Let ByteTrack's tracks note the row of their last detection and its frame."""
    row_of = RowOf()

    class Noting(reference.STrack):  # type: ignore[misc, name-defined]
        def __init__(self, tlwh: np.ndarray, score: float) -> None:
            super().__init__(tlwh, score)
            self.row = row_of(*tlwh[:4], score)

        def activate(self, kalman_filter: Any, frame_id: int) -> None:
            super().activate(kalman_filter, frame_id)
            self.row_frame = frame_id

        def re_activate(self, new_track: Any, frame_id: int, new_id: bool = False) -> None:
            super().re_activate(new_track, frame_id, new_id)
            self.row, self.row_frame = new_track.row, frame_id

        def update(self, new_track: Any, frame_id: int) -> None:
            super().update(new_track, frame_id)
            self.row, self.row_frame = new_track.row, frame_id

    reference.STrack = Noting
    return row_of


def begin_stracks(reference: Any, row_of: RowOf, rows: np.ndarray) -> None:
    row_of.begin([[*reference.STrack.tlbr_to_tlwh(row[:4]), row[4]] for row in rows])


def describe(repository: str, *packages: str) -> dict[str, Any]:
    return {
        "repository": repository,
        "commit": COMMITS[repository],
        "python": platform.python_version(),
        "libraries": {package: version(package) for package in packages},
    }


def write(
    name: str,
    source: dict[str, Any],
    settings: dict[str, Any],
    real: Iterator[tuple[str, Frames]],
    run: Callable[[Frames, dict[str, Any]], list[list[float]]],
) -> None:
    lines = []
    for sequence, frames in real:
        out = np.array(run([rows.copy() for rows in frames], settings), dtype=float).reshape(-1, 7)
        lines.append(f"  {json.dumps(sequence)}: {json.dumps({'frames': len(frames), **summary(out)})}")
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in source.items())
    head += f' "settings": {json.dumps(settings)},\n "sequences": {{\n'
    (HERE / f"{name}.json").write_text("{\n" + head + ",\n".join(lines) + "\n }\n}\n")


def summary(out: np.ndarray) -> dict[str, Any]:
    """Return what the golden files hold of rows of frame, row, identity and corners."""
    first: dict[float, int] = {}
    ordered = out[np.lexsort((out[:, 3], out[:, 1], out[:, 0]))]
    lines = [f"{int(row[0])} {int(row[1])} {first.setdefault(row[2], len(first))}\n" for row in ordered]
    return {
        "rows": len(out),
        "identities": len(first),
        "partition": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "sums": out[:, 3:].sum(0).tolist(),
    }


if __name__ == "__main__":
    # What NumPy has removed since.
    vars(np)["float"] = float
    choices = {f.__name__: f for f in (sort, bytetrack, ocsort, authors_sort, authors_bytetrack)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("trackers", nargs="+", choices=list(choices))
    arguments = parser.parse_args()
    for chosen in arguments.trackers:
        choices[chosen](arguments.checkouts, arguments.data)
