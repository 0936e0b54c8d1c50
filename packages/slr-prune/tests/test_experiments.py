"""The experiment on a handful of batches: its shape, its honesty about claims, its bad input."""

from pathlib import Path
from typing import Any

import pytest

from slr_prune.benchmarks import Settings as BenchSettings
from slr_prune.benchmarks import bench
from slr_prune.experiments import METHODS, Settings, run
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Record

TINY = Settings(dense_epochs=2, epochs=2, rhos=(0.01, 0.03), ramps=(0.5, 0.9), lr=0.01)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run.execute(TINY, out=tmp_path_factory.mktemp("run"))


def test_every_method_is_measured_on_both_splits(record: Record) -> None:
    for method in METHODS:
        assert 0 < record.metrics[f"{method}/test"] <= 100
        assert len(record.history[f"best/{method}/validation"]) == (1 if method == "oneshot" else 2)
    assert record.metrics["dense/test"] > 80
    assert record.dataset == "mnist-5k subset"


def test_the_candidate_is_chosen_on_the_validation_split(record: Record) -> None:
    for method, name, values in (("slr", "rho", TINY.rhos), ("gmp", "ramp", TINY.ramps)):
        last = {value: record.history[f"{method}/{name}={value:g}/validation"][-1] for value in values}
        assert last[record.metrics[f"{method}/chosen"]] == max(last.values())


def test_claims_follow_from_the_metrics(record: Record) -> None:
    speed, *margins = record.claims
    assert speed.paper == 3.0
    assert speed.holds is (speed.ours >= 3.0)
    for claim, other in zip(margins, ("admm", "gmp", "oneshot"), strict=True):
        margin = record.metrics["slr/test"] - record.metrics[f"{other}/test"]
        assert claim.ours == margin
        assert claim.holds is (margin >= 0)


def test_table_and_plots_show_every_method(record: Record, tmp_path: Path) -> None:
    text = run.tables["methods"]([record]).markdown()
    for name in ("SLR", "ADMM", "GMP", "one-shot", "dense"):
        assert f"| {name} |" in text
    pictures = run.plot([record], tmp_path)
    assert [picture.name for picture in pictures] == ["accuracy.png", "residual.png", "step-size.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_a_diverging_candidate_is_left_out(tmp_path: Path) -> None:
    settings = Settings(dense_epochs=1, epochs=2, rhos=(1e30, 0.01), ramps=(0.5, 0.9))
    record = run.execute(settings, out=tmp_path)
    assert record.metrics["slr/chosen"] == 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": (0.5,)}, "one for each of fc1, fc2, fc3"),
        ({"sparsity": (0.5, 0.5, 1.0)}, "between 0 and 1"),
        ({"model": "lenet"}, "lenet-300-100 / irregular"),
        ({"structure": "pattern"}, "one of"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings(**settings)


def test_an_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'mnist-5k'"):
        run.execute(TINY, dataset="mnist5k", out=tmp_path)


def test_the_benchmark_reports_every_ratio(tmp_path: Path) -> None:
    settings = BenchSettings(repeats=2, steps=1)
    record = bench.execute(settings, out=tmp_path)
    for model in settings.models:
        for method in ("slr", "admm", "gmp"):
            assert record.metrics[f"{model}/{method} over plain"] > 0
    assert "lenet-5" in bench.tables["overhead"]([record]).markdown()
