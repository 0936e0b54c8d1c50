import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tango_gnn._results import ARM_TITLES
from tango_gnn.experiments import ARMS, Settings, policy, run
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Record

TINY = Settings(models=("gcn-2", "gat"), arms=("fp32", "int8", "nearest"), hidden=8, heads=2, epochs=3)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run.execute(TINY, dataset="digits", out=tmp_path_factory.mktemp("run"))


def test_every_arm_is_trained_for_every_network(record: Record) -> None:
    for model in TINY.models:
        for arm in TINY.arms:
            assert len(record.history[f"{model}/{arm}/loss"]) == 3
            assert 0 < record.metrics[f"{model}/{arm}/test"] < 100
            assert record.metrics[f"{model}/{arm}/kept bytes"] > 0
            assert f"{model}/{arm}/ms an epoch" not in record.metrics
        assert record.metrics[f"{model}/fp32/operations in int8"] == 0
        assert record.metrics[f"{model}/int8/operations in int8"] > 0
    losses = [record.history[f"gcn-2/{arm}/loss"] for arm in TINY.arms]
    assert losses[0] != losses[1] != losses[2]


def test_a_repetition_gives_the_same_and_another_seed_does_not(record: Record, tmp_path: Path) -> None:
    again = run.execute(TINY, dataset="digits", out=tmp_path / "again")
    assert again.results() == record.results()
    other = run.execute(TINY, dataset="digits", seed=1, out=tmp_path / "other")
    assert other.history != record.history


def test_an_arm_that_is_interrupted_goes_on_with_the_same_result(record: Record, tmp_path: Path) -> None:
    def notify(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("gat", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.execute(TINY, dataset="digits", out=tmp_path, notify=notify)
    resumed = run.execute(TINY, dataset="digits", out=tmp_path, resume=True)
    assert resumed.results() == record.results()


def test_tables_and_claims_are_of_the_records_figures(record: Record) -> None:
    metrics = record.metrics
    difference = metrics["gcn-2/fp32/test"] - metrics["gcn-2/int8/test"]
    row = f"| {metrics['gcn-2/fp32/test']:.2f} | {metrics['gcn-2/int8/test']:.2f} | {difference:+.2f} |"
    assert row in run.tables["accuracy"]([record]).markdown()
    other = metrics["gat/nearest/test"] - metrics["gat/int8/test"]
    assert f"| {other:+.2f} |" in run.tables["ablation"]([record]).markdown()
    kept = metrics["gat/int8/kept bytes"] / 2**20
    assert f"| {ARM_TITLES['int8']} | {kept:.2f} |" in run.tables["cost"]([record]).markdown()
    assert record.claims[0].ours == difference
    assert record.claims[0].holds == (difference <= 0.5)


def test_several_seeds_get_an_interval_of_their_differences(record: Record, tmp_path: Path) -> None:
    records = [
        run.execute(dataclasses.replace(TINY, models=("gcn-2",)), seed=seed, out=tmp_path / str(seed))
        for seed in range(3)
    ]
    differences = [item.metrics["gcn-2/fp32/test"] - item.metrics["gcn-2/int8/test"] for item in records]
    text = run.tables["accuracy"](records).markdown()
    assert f"{sum(differences) / 3:+.2f} [" in text
    assert "3 seeds, paired" in text


def test_links_are_scored_and_epochs_timed_where_asked(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, task="links", models=("sage",), arms=("fp32", "int8"), timed=True)
    record = run.execute(settings, dataset="digits", out=tmp_path)
    assert record.metrics["sage/int8/test"] > 60
    assert record.metrics["sage/int8/ms an epoch"] > 0
    assert "epoch, ms" in run.tables["cost"]([record]).markdown()
    assert "links" in run.tables["accuracy"]([record]).markdown()
    paths = run.plot([record], tmp_path)
    assert [path.name for path in paths] == ["sage.png"]
    assert paths[0].stat().st_size > 1000


def test_every_rule_has_an_arm_that_switches_it_off() -> None:
    assert set(ARMS) == set(ARM_TITLES)
    changed = {name for change in ARMS.values() for name in change}
    rules = {field.name for field in dataclasses.fields(policy("int8", 0)) if field.name.startswith("keep_")}
    assert rules | {"rounding", "reuse", "bits"} == changed
    assert not policy("fp32", 0).quantizes


@pytest.mark.parametrize(
    "wrong",
    [
        {"arms": ("fp32",)},
        {"models": ()},
        {"epochs": 0},
        {"hidden": 10, "heads": 4},
        {"dropout": 1.0},
        {"lr": 0.0},
        {"weight_decay": -1.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        dataclasses.replace(Settings(), **wrong)


@pytest.mark.parametrize(
    "wrong", [{"task": "graphs"}, {"models": ("gin",)}, {"arms": ("fp32", "int8", "fp16")}]
)
def test_unknown_names_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError):
        dataclasses.replace(Settings(), **wrong)
