"""What tracking costs, beside SORT with a filterpy filter for every object, in the same run.

CPU time of this process a frame, in rounds in each of which everything is timed in turn: whole sequences, in
one piece as readers give them and as a `Detections` a frame, and frame by frame from arrays, as an
application with a camera has them. The sequences are the eleven of MOT15 where their detections are in
``TENFOLD_DATA/tracking/sort_mot15``, else simulated ones of as many objects. Everything has its detections in
memory in the form that it takes, and makes its tracker anew for each sequence; nothing reads or writes files.

The peer is SORT in Python with one filterpy filter a track, on our compiled association. ``--set
reference=PATH`` also times the author's own sort.py, which is no part of this package, as its main program
does: a call of ``update`` with the array of each frame. It takes its assignment from lap, as its requirements
say; without lap it would try to import it at every assignment, an eighth of its time, so that is refused.

Then a crowd, a long stream with the memory that the process has after each tenth of it, and how long a fresh
process takes to its first tracks, with numba's code on disk and without.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from filterpy.kalman import KalmanFilter

from mot_cup._boxes import Floats
from mot_cup._detections import Detections, DetectionSequence
from mot_cup._filterpy import FilterpyModel
from mot_cup._kalman import FIRST, FIRST_VELOCITY, MEASUREMENT, PROCESS, PROCESS_VELOCITY
from mot_cup._noise import SORT_NOISE
from mot_cup._sort import Sort
from mot_cup._tracking_data import tracking_folder
from mot_cup.io import read_mot_detections
from tenfold import DataError, SettingError
from tenfold.experiment import Experiment, Record, Run, Table, interleaved

Frames = list[Floats]
FORMS = {
    "pieces": "whole sequences, as read",
    "whole": "whole sequences, Detections a frame",
    "online": "frame by frame",
    "filterpy": "filterpy, one filter a track",
    "reference": "the author's sort.py",
}
COLD_START = """
import time
start = time.perf_counter()
import numpy as np
from mot_cup import Detections, Sort
boxes = np.array([[0.0, 0, 10, 10, 1]])
Sort().update(boxes)
Sort().track([Detections.from_array(boxes)])
print(time.perf_counter() - start)
"""

TURN = 0.2
"""Seconds of a form's turn: the fast ones are repeated in it."""


@dataclass(frozen=True)
class Settings:
    """Settings of ``mot-cup bench``.

    Attributes
    ----------
    reference : str
        Path of abewley's sort.py, or nothing.
    frames : int
        At most so many of each sequence; 0 for all.
    simulated : bool
        Whether to leave MOT15 aside.
    crowd, crowd_frames : int
        Objects at one time, and frames of them.
    stream : int
        Frames of the long stream.
    cold : bool
        Whether to time fresh processes.
    repeats : int
        Rounds.
    """

    reference: str = ""
    frames: int = 100
    simulated: bool = False
    crowd: int = 1000
    crowd_frames: int = 50
    stream: int = 20_000
    cold: bool = True
    repeats: int = 3

    def __post_init__(self) -> None:
        if self.frames < 0 or min(self.crowd, self.crowd_frames, self.stream, self.repeats) < 1:
            raise SettingError(
                f"{self.frames} frames, a crowd of {self.crowd} in {self.crowd_frames}, a stream of "
                f"{self.stream} and {self.repeats} repeats",
                "0 or more frames, 1 or more of the others",
                "Correct them with --set.",
            )


def measure(run: Run[Settings]) -> None:
    """Time SORT and its peers, and weigh a long stream."""
    settings = run.settings
    name, sequences = sequences_of(settings)
    pieces = [in_one_piece(frames) for frames in sequences]
    listed = [[Detections.from_array(rows) for rows in frames] for frames in sequences]
    passes: dict[str, Callable[[], object]] = {
        "pieces": lambda: [Sort().track(frames) for frames in pieces],
        "whole": lambda: [Sort().track(frames) for frames in listed],
        "online": lambda: [_online(Sort(), frames) for frames in sequences],
        "filterpy": lambda: [_online(Sort(state=filterpy_sort()), frames) for frames in sequences],
    }
    if settings.reference:
        reference = load_reference(Path(settings.reference))
        passes["reference"] = lambda: [_online(reference.Sort(), frames) for frames in sequences]
    times = interleaved(passes, settings.repeats, warm_up=2, least=TURN)
    seconds = {form: taken.cpu for form, taken in times.items()}
    frames = sum(map(len, sequences))
    run.metric("sequences/frames", frames)
    run.metric("sequences/real", float(name == "MOT15"))
    run.metric("sequences/detections", sum(len(rows) for each in sequences for rows in each))
    for form, taken in seconds.items():
        run.metric(f"{form}/us", 1e6 * taken / frames)
        for peer in ("filterpy", "reference"):
            if peer in seconds and form != peer:
                run.metric(f"{form}/over {peer}", seconds[peer] / taken)

    crowd = simulated(settings.crowd, settings.crowd_frames, seed=1)
    crowded = interleaved({"crowd": lambda: _online(Sort(), crowd)}, settings.repeats, warm_up=2, least=TURN)
    run.metric("crowd/fps", settings.crowd_frames / crowded["crowd"].cpu)

    for k, megabytes in enumerate(stream_memory(settings.stream)):
        run.metric(f"stream/{k}/MB", megabytes)
    if settings.cold:
        compiled, kept = cold_start()
        run.metric("cold/compiling/s", compiled)
        run.metric("cold/from disk/s", kept)


def sequences_of(settings: Settings) -> tuple[str, list[Frames]]:
    """Return a name and sequences of frames, each rows x1, y1, x2, y2, score."""
    most = settings.frames or None
    if not settings.simulated:
        try:
            folder = tracking_folder("sort_mot15")
        except DataError:
            pass
        else:
            return "MOT15", [_read(path)[:most] for path in sorted(folder.glob("*/det/det.txt"))]
    return "simulated sequences", [simulated(8, most or 500, seed=seed) for seed in range(11)]


def _read(path: Path) -> Frames:
    detections = read_mot_detections(path)
    nothing = np.empty((0, 5))
    frames = [detections.get(frame) for frame in range(1, max(detections) + 1)]
    return [nothing if frame is None else np.column_stack([frame.boxes, frame.scores]) for frame in frames]


def in_one_piece(frames: Frames) -> DetectionSequence:
    """Return frames, numbered from 1, as a reader would; those without detections at either end are not."""
    numbers = np.repeat(np.arange(1, len(frames) + 1), [len(rows) for rows in frames])
    return DetectionSequence(numbers, Detections.from_array(np.concatenate(frames)))


def simulated(objects: int, frames: int, seed: int) -> Frames:
    """Return detections of so many objects at a time in a field as dense as MOT15's, each seen mostly.

    Objects that leave the field come in at the other side.
    """
    generator = np.random.default_rng(seed)
    side = 350 * np.sqrt(objects)
    centre = generator.uniform(0, side, (objects, 2))
    height = generator.uniform(60, 240, objects)
    size = np.stack([0.4 * height, height], axis=1)
    velocity = generator.normal(scale=3, size=(objects, 2))
    result = []
    for _ in range(frames):
        centre = (centre + velocity) % side
        seen = generator.random(objects) < 0.93
        noisy = centre[seen] + generator.normal(scale=2, size=(int(seen.sum()), 2))
        half = size[seen] / 2
        result.append(np.column_stack([noisy - half, noisy + half, generator.random(len(half))]))
    return result


def _online(tracker: Any, frames: Frames) -> list[Floats]:
    return [tracker.update(rows) for rows in frames]


def filterpy_sort() -> FilterpyModel:
    """Return SORT's filter of seven states, as a state model of a user's own."""
    table = SORT_NOISE.table()[:, :, 0]
    f, h = np.eye(7), np.eye(4, 7)
    f[:3, 4:] = np.eye(3)
    p = np.diag([*table[FIRST], *table[FIRST_VELOCITY, :3]])
    q = np.diag([*table[PROCESS], *table[PROCESS_VELOCITY, :3]])
    r = np.diag(table[MEASUREMENT])

    def make(z: Floats, _: Floats | None) -> Any:
        kf = KalmanFilter(dim_x=7, dim_z=4)
        kf.F, kf.H, kf.P, kf.Q, kf.R = f, h, p.copy(), q, r
        kf.x = np.concatenate([z, np.zeros(3)]).reshape(7, 1)
        return kf

    def keep_area(kf: Any, _: float) -> None:
        if kf.x[2, 0] + kf.x[6, 0] <= 0:
            kf.x[6] = 0.0

    return FilterpyModel(make, "xysr", keep_area)


def load_reference(path: Path) -> Any:
    """Return the module of abewley's sort.py, without what it imports only to draw.

    Raises
    ------
    DataError
        There is no such file, it has no class Sort, or lap is not installed.
    """
    if importlib.util.find_spec("lap") is None:
        raise DataError("no lap beside sort.py", "what its requirements name", "Install it: pip install lap.")
    if not path.is_file():
        raise DataError(f"no file {path}", "abewley's sort.py", "Correct the path.")
    drawing = ["matplotlib", "matplotlib.pyplot", "matplotlib.patches", "skimage", "skimage.io"]
    before = {name: sys.modules.get(name) for name in drawing}
    for name in drawing:
        sys.modules[name] = _Anything(name)
    try:
        specification = importlib.util.spec_from_file_location("reference_sort", path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    except ImportError as error:
        raise DataError(
            f"{path} does not import ({error})",
            "abewley's sort.py",
            "Install what it needs, or correct the path.",
        ) from error
    finally:
        for name, present in before.items():
            if present is None:
                del sys.modules[name]
            else:
                sys.modules[name] = present
    if not hasattr(module, "Sort"):
        raise DataError(f"{path} without a class Sort", "abewley's sort.py", "Correct the path.")
    return module


class _Anything(types.ModuleType):
    """A module that has whatever is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


def stream_memory(frames: int) -> list[float]:
    """Return the megabytes that the process holds after each tenth of a stream of so many frames."""
    process, tracker = psutil.Process(), Sort()
    part = simulated(8, 1000, seed=2)
    result = []
    for k in range(frames):
        tracker.update(part[k % len(part)])
        if (k + 1) % max(1, frames // 10) == 0:
            result.append(process.memory_info().rss / 1e6)
    return result


def cold_start() -> tuple[float, float]:
    """Return the seconds of a fresh process to its first tracks, compiling all and with the code on disk."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        first, second = (
            float(
                subprocess.run(
                    [sys.executable, "-c", COLD_START],
                    env=environment,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for _ in range(2)
        )
    return first, second


def speed_table(records: Sequence[Record]) -> Table:
    """Tabulate CPU time a frame and how many times as fast that is as the peers."""
    metrics = records[0].metrics
    peers = [peer for peer in ("filterpy", "reference") if f"{peer}/us" in metrics]

    def over(form: str, peer: str) -> str:
        if form == peer:
            return "1"
        return f"{metrics[f'{form}/over {peer}']:.3g}"

    rows = [
        [title, f"{metrics[f'{form}/us']:.3g}", f"{1e6 / metrics[f'{form}/us']:,.0f}"]
        + [over(form, peer) for peer in peers]
        for form, title in FORMS.items()
        if f"{form}/us" in metrics
    ]
    kind = "of the 11 MOT15 sequences" if metrics["sequences/real"] else "simulated"
    a_frame = metrics["sequences/detections"] / metrics["sequences/frames"]
    title = (
        f"SORT, {metrics['sequences/frames']:,.0f} frames {kind}, {a_frame:.1f} detections a frame, "
        f"one core, median of {records[0].settings['repeats']}"
    )
    names = [f"times as fast as {FORMS[peer]}" for peer in peers]
    return Table(title, ["form", "us a frame", "frames a CPU second", *names], rows)


def scale_table(records: Sequence[Record]) -> Table:
    """Tabulate a crowd, the memory of a stream and the cold start."""
    metrics, settings = records[0].metrics, records[0].settings
    held = [metrics[name] for name in sorted(metrics) if name.startswith("stream/")]
    rows = [
        [f"{settings['crowd']:,} objects at a time, frames a CPU second", f"{metrics['crowd/fps']:.0f}"],
        [f"memory after a tenth of {settings['stream']:,} frames, MB", f"{held[0]:.1f}"],
        ["memory at the end, MB", f"{held[-1]:.1f}"],
    ]
    if "cold/compiling/s" in metrics:
        rows += [
            ["fresh process to its first tracks, compiling, s", f"{metrics['cold/compiling/s']:.1f}"],
            ["the same with the compiled code on disk, s", f"{metrics['cold/from disk/s']:.1f}"],
        ]
    return Table("SORT at length", ["what", "measured"], rows)


bench = Experiment(
    package="mot-cup",
    command="bench",
    body=measure,
    quick=Settings(),
    full=Settings(frames=0, crowd_frames=200, stream=100_000, repeats=9),
    tables={"speed": speed_table, "scale": scale_table},
)
