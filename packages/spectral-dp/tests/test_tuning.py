import dataclasses

import numpy as np
import pytest
import torch

from spectral_dp import _trials
from spectral_dp.tuning import AXES, Settings, tune
from tenfold import SettingError, UnknownNameError, data
from tenfold.experiment import Record

TINY = Settings(
    methods=("dp-sgd", "filter"),
    epsilon=1.0,
    examples=200,
    ratios=(0.25,),
    max_grad_norms=(1e-3, 0.1),
    batch_sizes=(50,),
    epochs=(1, 2),
    steps=(0.05, 0.2),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, list[torch.Tensor]]:
    """Return a record, and the labels of every accuracy taken, with impossible ones in the test split."""
    digits = data.load("mnist-5k")
    test = dataclasses.replace(digits.test, labels=np.full_like(digits.test.labels, 11))
    judged: list[torch.Tensor] = []
    accuracy = _trials.accuracy

    def watched(model: torch.nn.Module, examples: _trials.Examples) -> float:
        judged.append(examples.y)
        return accuracy(model, examples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name: dataclasses.replace(digits, test=test))
        patch.setattr(_trials, "accuracy", watched)
        return tune.execute(TINY, out=tmp_path_factory.mktemp("tune")), judged


def test_each_setting_is_the_best_of_its_values_by_the_mean_over_methods(
    found: tuple[Record, list[torch.Tensor]],
) -> None:
    record, _ = found
    searched = {axis: getattr(TINY, name) for axis, name in AXES.items() if len(getattr(TINY, name)) > 1}
    assert list(searched) == ["max_grad_norm", "epochs"]
    for axis, values in searched.items():
        tried = np.mean([record.history[f"{axis}/{method}"] for method in TINY.methods], axis=0)
        assert len(tried) == len(values)
        assert record.metrics[f"chosen/{axis}"] == values[int(np.argmax(tried))]


def test_no_test_split_is_read(found: tuple[Record, list[torch.Tensor]]) -> None:
    _, judged = found
    assert len(judged) == 4 * len(TINY.methods) * len(TINY.steps)
    assert not any((labels == 11).any() for labels in judged)


def test_the_table_says_how_many_seeds_chose_a_value(found: tuple[Record, list[torch.Tensor]]) -> None:
    table = tune.tables["search"]([found[0]])
    assert [row[:2] for row in table.rows] == [
        ["max_grad_norm", "0.001"],
        ["max_grad_norm", "0.1"],
        ["epochs", "1"],
        ["epochs", "2"],
    ]
    assert sum(row[-1] == "1 of 1" for row in table.rows) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"ratios": (2.0,)},
        {"steps": ()},
        {"epochs": (0,)},
        {"epsilon": 0.0},
        {"examples": -1},
        {"methods": ()},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        dataclasses.replace(Settings(), **wrong)


@pytest.mark.parametrize("wrong", [{"model": "vgg"}, {"methods": ("subspace",)}])
def test_unknown_names_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UnknownNameError):
        dataclasses.replace(Settings(), **wrong)
