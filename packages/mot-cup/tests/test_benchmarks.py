from pathlib import Path

import numpy as np
import pytest

from mot_cup import Detections, Sort
from mot_cup.benchmarks import (
    FORMS,
    Settings,
    bench,
    filterpy_sort,
    in_one_piece,
    load_reference,
    simulated,
    stream_memory,
)
from tenfold import DataError, SettingError

REFERENCE = """
import matplotlib
matplotlib.use("TkAgg")
import matplotlib.pyplot as plt
from skimage import io
import numpy as np

class Sort:
    def update(self, detections):
        return np.zeros((len(detections), 5))
"""


def test_the_peer_finds_the_same_tracks() -> None:
    frames = simulated(6, 40, seed=0)
    ours, peer = Sort(), Sort(state=filterpy_sort())
    for rows in frames:
        found, expected = ours.update(rows), peer.update(rows)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        assert len(found)


def test_frames_in_one_piece_have_the_same_tracks() -> None:
    frames = [*simulated(6, 30, seed=1), np.empty((0, 5)), *simulated(6, 5, seed=2)]
    pieces, listed = in_one_piece(frames), [Detections.from_array(rows) for rows in frames]
    found, expected = Sort().track(pieces), Sort().track(listed)
    assert len(found)
    for name in ("frames", "ids", "boxes", "scores", "classes", "rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_reference_without_what_it_needs_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sort.py").write_text(REFERENCE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install lap"):
        load_reference(tmp_path / "sort.py")


def test_the_tables_are_of_one_run(tmp_path: Path) -> None:
    reference = tmp_path / "sort.py"
    reference.write_text(REFERENCE)
    settings = Settings(
        reference=str(reference),
        frames=20,
        simulated=True,
        crowd=50,
        crowd_frames=5,
        stream=100,
        cold=False,
        repeats=1,
    )
    record = bench.execute(settings, out=tmp_path / "run")
    table = bench.tables["speed"]([record]).markdown()
    for form, title in FORMS.items():
        assert f"| {title} | {record.metrics[f'{form}/us']:.3g} |" in table
    assert record.metrics["whole/over filterpy"] == pytest.approx(
        record.metrics["filterpy/us"] / record.metrics["whole/us"]
    )
    assert record.metrics["online/over filterpy"] > 3
    assert "50 objects at a time" in bench.tables["scale"]([record]).markdown()


def test_memory_does_not_grow_with_the_stream() -> None:
    held = stream_memory(5000)
    assert len(held) == 10
    assert held[-1] - held[1] < 2


def test_what_is_not_the_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        load_reference(tmp_path / "sort.py")
    (tmp_path / "sort.py").write_text("Tracker = None\n")
    with pytest.raises(DataError, match="without a class Sort"):
        load_reference(tmp_path / "sort.py")
    (tmp_path / "sort.py").write_text("import not_there_at_all\n")
    with pytest.raises(DataError, match="does not import"):
        load_reference(tmp_path / "sort.py")


def test_impossible_settings_are_refused() -> None:
    for settings in ({"frames": -1}, {"crowd": 0}, {"stream": 0}, {"repeats": 0}):
        with pytest.raises(SettingError, match="1 or more"):
            Settings(**settings)
