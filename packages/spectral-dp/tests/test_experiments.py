import dataclasses

import pytest

from spectral_dp.experiments import METHODS, Settings, run
from tenfold import SettingError
from tenfold.experiment import Record

TINY = Settings(epochs=1, batch_size=500, lrs=(0.5, 1e-6))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run.execute(TINY, dataset="mnist-5k", out=tmp_path_factory.mktemp("run"))


def test_every_method_gets_the_same_candidates_and_the_better_one(record: Record) -> None:
    for method in METHODS:
        validation = record.history[f"{method}/validation"]
        assert len(validation) == 2
        assert record.metrics[f"{method}/validation"] == max(validation)
        assert record.metrics[f"{method}/lr"] == 0.5
        assert record.metrics[f"{method}/test"] > 20


def test_the_test_split_is_kept_of_the_chosen_rate_alone(record: Record) -> None:
    assert not [name for name in record.history if "test" in name]


def test_the_budget_is_spent_and_not_overspent(record: Record) -> None:
    for method in METHODS:
        assert 0.9 < record.metrics[f"{method}/epsilon"] <= 1.01


def test_gains_are_over_dp_sgd_and_over_the_better_control(record: Record) -> None:
    metrics = record.metrics
    assert metrics["gain over DP-SGD"] == metrics["filter/test"] - metrics["dp-sgd/test"]
    controls = [metrics["filter/test"] - metrics[f"{name}/test"] for name in ("low-passed", "pooled")]
    assert metrics["gain over the better control"] in controls
    table = run.tables["accuracy"]([record]).markdown()
    for method, name in METHODS.items():
        assert f"| {name} | {metrics[f'{method}/test']:.1f} |" in table


@pytest.mark.parametrize(
    "wrong",
    [{"ratio": 0.0}, {"lrs": ()}, {"lrs": (-1.0,)}, {"epochs": 0}, {"epsilon": 0.0}, {"delta": 1.0}],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        dataclasses.replace(Settings(), **wrong)
