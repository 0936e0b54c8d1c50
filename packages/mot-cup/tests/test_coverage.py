"""The experiment on simulated streams, and the figures aimed at on V2X-Sim."""

import os
from pathlib import Path

import numpy as np
import pytest

from mot_cup._coverage_data import load, simulated
from mot_cup.conformal import Stream
from mot_cup.coverage import Settings, coverage
from tenfold import DataError, SettingError, UnknownNameError
from tenfold.experiment import Record

real = pytest.mark.skipif(
    not (Path(os.environ.get("TENFOLD_DATA", "")) / "tracking" / "v2xsim").is_dir(),
    reason="TENFOLD_DATA has no tracking files",
)


def check_figures(record: Record) -> None:
    metrics = record.metrics
    for name in (*record.settings["space"], "max-score"):
        assert metrics[f"random/{name}/mean"] == pytest.approx(0.9, abs=0.01)
        assert metrics[f"random/{name}/lowest"] > 0.88
        assert metrics[f"random/{name}/highest"] < 0.92
        assert metrics[f"scene/{name}/lowest"] < metrics[f"random/{name}/lowest"]
    assert metrics["random/Bonferroni/mean"] > metrics["random/max-score/mean"]
    for name in record.settings["space"]:
        assert metrics[f"stream/split/{name}/mean gap"] > 0.02
        assert metrics[f"stream/quantile/{name}/mean gap"] < 0.015
        assert metrics[f"stream/level/{name}/mean gap"] < 0.015
        assert metrics[f"stream/control/{name}/mean gap"] < 0.005
        assert metrics[f"stream/control/{name}/beyond"] == 0
        assert metrics[f"stream/control/{name}/void"] == 0
        for method in ("level", "quantile", "control"):
            assert metrics[f"stream/{method}/{name}/interval score ratio"] < 1
            assert metrics[f"stream/{method}/{name}/void"] <= 0.02
    nll = {form: np.mean(record.history[f"nll/{form}"]) for form in ("raw", "rescaled", "constant", "paper")}
    assert nll["rescaled"] < min(nll["raw"], nll["constant"], nll["paper"])


@pytest.mark.slow
def test_simulated_streams_behave_as_the_theory_says(tmp_path: Path) -> None:
    record = coverage.execute(Settings(splits=5), out=tmp_path)
    check_figures(record)
    again = coverage.execute(Settings(splits=5), out=tmp_path / "again")
    assert again.results() == record.results()


@real
@pytest.mark.slow
def test_v2xsim_keeps_its_coverage(tmp_path: Path) -> None:
    record = coverage.execute(Settings(splits=5), dataset="v2x-sim", out=tmp_path)
    assert (record.metrics["scenes"], record.metrics["streams"]) == (10, 40)
    assert (
        record.metrics["identities/published/pairs"],
        record.metrics["identities/published/disjoint"],
    ) == (
        51_884,
        9_175,
    )
    assert "| relinked | 51,865 | 1,180 | 2.3 |" in coverage.tables["identities"]([record]).markdown()
    check_figures(record)


def test_the_tables_are_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = simulated(0, scenes=3, agents=2, frames=40)
    monkeypatch.setattr("mot_cup.coverage.load", lambda *_: small)
    record = coverage.execute(Settings(splits=2), out=tmp_path)
    metrics = record.metrics
    found, adaptive, scores, identities = (table([record]).markdown() for table in coverage.tables.values())
    assert f"| x | {100 * metrics['random/x/mean']:.1f} | " in found
    assert f"| {100 * metrics['scene/max-score/lowest']:.1f} (scene " in found
    ratio = metrics["stream/quantile/x/interval score ratio"]
    assert f"| x, adaptive, quantile | {100 * metrics['stream/quantile/x/mean gap']:.2f} | " in adaptive
    assert f" of 6 | {ratio:.3f} | " in adaptive
    gains = record.history["gain/control/x"]
    assert f"| x, control | {100 * metrics['stream/control/x/mean gap']:.2f} | " in adaptive
    assert f" {min(gains):g}" in adaptive
    assert "relinked" not in identities
    nll = [np.mean(record.history[f"nll/{form}"]) for form in ("paper", "raw")]
    assert f"| the paper's q / 3 at 0.9973 | {nll[0] - nll[1]:.2f} [" in scores
    assert "| the detector's, times one factor (likelihood) |" in scores


def test_an_interrupted_run_ends_with_the_same_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = simulated(0, scenes=3, agents=1, frames=20)
    monkeypatch.setattr("mot_cup.coverage.load", lambda *_: small)
    whole = coverage.execute(Settings(splits=3), out=tmp_path / "whole")

    def interrupt(stage: str, done: int, _: int) -> None:
        if (stage, done) == ("other scenes", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coverage.execute(Settings(splits=3), out=tmp_path / "cut", notify=interrupt)
    resumed = coverage.execute(Settings(splits=3), out=tmp_path / "cut", resume=True)
    assert resumed.results() == whole.results()


def test_simulated_claims_are_too_small_and_differ_by_scene() -> None:
    streams = simulated(1)
    assert set(streams) == {(scene, agent) for scene in range(8) for agent in range(3)}
    medians = np.array([np.median(stream.scores, axis=0) for stream in streams.values()])
    assert medians.min() > 0.3
    assert medians.max() / medians.min() > 2
    again = simulated(1)
    assert all(np.array_equal(again[key].scores, stream.scores) for key, stream in streams.items())


def test_data_sets_and_settings_that_are_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    with pytest.raises(DataError, match="no TENFOLD_DATA"):
        load("v2x-sim", "xysr", 0.3, True, 0)
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    with pytest.raises(DataError, match="no folder"):
        load("v2x-sim", "xysr", 0.3, True, 0)
    with pytest.raises(UnknownNameError, match="v2xsim"):
        load("v2xsim", "xysr", 0.3, True, 0)
    with pytest.raises(SettingError, match="1 or more"):
        Settings(splits=0)
    with pytest.raises(SettingError, match="between 0 and 1"):
        Settings(level=90)


@real
def test_streams_of_v2xsim_are_those_that_have_matches() -> None:
    streams = load("v2x-sim", "xysr", 0.5, False, 0)
    assert len(streams) == 40
    assert all(isinstance(stream, Stream) for stream in streams.values())
    assert 35_000 < sum(map(len, streams.values())) < 43_017
