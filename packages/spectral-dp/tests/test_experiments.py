import dataclasses

import pytest
import torch
from torch import nn

from spectral_dp import PublicSubspace
from spectral_dp._methods import CONTROLS, METHODS, Examples, Kept, pretrain, spectrum
from spectral_dp._results import best_control
from spectral_dp.experiments import Settings, run
from spectral_dp.models import MODELS, build
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Record

TINY = Settings(
    methods=("dp-sgd", "low-passed", "pooled", "filter", "paper"),
    epsilons=(1.0, 8.0),
    epochs=1,
    batch_size=500,
    lrs=(0.5, 1e-6),
    examples=2000,
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run.execute(TINY, dataset="mnist-5k", out=tmp_path_factory.mktemp("run"))


def test_every_method_gets_the_same_candidates_and_the_better_one(record: Record) -> None:
    for method in TINY.methods:
        for epsilon in ("1", "8"):
            name = f"{method}/{epsilon}"
            validation = record.history[f"{name}/validation"]
            assert len(validation) == 2
            assert record.metrics[f"{name}/validation"] == max(validation)
            assert record.metrics[f"{name}/lr"] == TINY.lrs[validation.index(max(validation))]
            assert record.metrics[f"{name}/test"] > 5


def test_the_test_split_is_kept_of_the_chosen_rate_alone(record: Record) -> None:
    assert not [name for name in record.history if "test" in name]


def test_the_budgets_are_spent_and_not_overspent(record: Record) -> None:
    for method in TINY.methods:
        assert 0.9 < record.metrics[f"{method}/1/epsilon"] <= 1.01
        assert 7.5 < record.metrics[f"{method}/8/epsilon"] <= 8.01


def test_tables_and_claims_are_of_the_records_figures(record: Record) -> None:
    metrics = record.metrics
    table = run.tables["accuracy"]([record]).markdown()
    for method in TINY.methods:
        assert f"| {METHODS[method]} | {metrics[f'{method}/1/test']:.1f} |" in table
    control = best_control([record], 1.0)
    assert metrics[f"{control}/1/validation"] == max(
        metrics[f"{method}/1/validation"] for method in TINY.methods if method in CONTROLS
    )
    gain = metrics["filter/1/test"] - metrics[f"{control}/1/test"]
    assert (
        f"| filter | the best control | {gain:.1f} ({control}) |" in run.tables["gain"]([record]).markdown()
    )
    assert [claim.ours for claim in record.claims] == [
        metrics[f"{method}/1/test"] - metrics["dp-sgd/1/test"] for method in ("filter", "paper")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ratio": 0.0},
        {"lrs": ()},
        {"lrs": (-1.0,)},
        {"epochs": 0},
        {"epsilons": (0.0,)},
        {"epsilons": ()},
        {"delta": 1.0},
        {"rank": 0},
        {"examples": -1},
        {"methods": ("filter",)},
        {"methods": ("dp-sgd",)},
        {"methods": ("dp-sgd", "last-layer")},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        dataclasses.replace(Settings(), **wrong)


@pytest.mark.parametrize("wrong", [{"model": "vgg"}, {"methods": ("dp-sgd", "magic")}])
def test_unknown_names_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UnknownNameError):
        dataclasses.replace(Settings(), **wrong)


def public_set() -> Examples:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 10
    return Examples(torch.randn(400, 1, 28, 28, generator=generator) + y.view(-1, 1, 1, 1) / 3, y)


@pytest.mark.parametrize("name", MODELS)
def test_a_subspace_is_that_of_what_a_layer_sees_of_public_images(name: str) -> None:
    model, public = build(name, (1, 28, 28), 0), public_set()
    chosen = spectrum("subspace", model, public, Kept(0.25, 0.6, 8))
    bases = {layer: basis for layer, basis in chosen.items() if isinstance(basis, PublicSubspace)}
    assert bases
    for layer, basis in bases.items():
        assert basis.provenance == "public"
        assert basis.rank == 8
        assert basis.size == model.get_submodule(layer).weight[0].numel()
    seen: list[torch.Tensor] = []
    layer, basis = list(bases.items())[-1]
    model.get_submodule(layer).register_forward_pre_hook(lambda _, x: seen.append(x[0].flatten(0, -2)))
    with torch.no_grad():
        model(public.x)
    kept = basis.coefficients(seen[0]).square().sum()
    assert kept >= torch.linalg.svdvals(seen[0])[:8].square().sum() * 0.9999


def test_a_filter_without_images_or_kernels_is_refused() -> None:
    with pytest.raises(SettingError, match="neither images nor kernels"):
        spectrum("filter", build("transformer", (1, 28, 28), 0), None, Kept(0.25, 0.6))


def test_pretraining_learns_and_leaves_a_head_of_zeros() -> None:
    model, public = build("mlp", (1, 28, 28), 0), public_set()
    before = model[1].weight.detach().clone()
    pretrain(model, public, 3, seed=0)
    assert isinstance(model[1], nn.Linear)
    assert (model[1].weight - before).norm() > 0.5
    assert not model[-1].weight.any()


@pytest.mark.parametrize("model", ["lenet-5", "resnet", "transformer"])
def test_the_other_models_train(model: str, tmp_path: object) -> None:
    settings = dataclasses.replace(
        TINY,
        model=model,
        methods=("dp-sgd", "pooled"),
        epsilons=(8.0,),
        lrs=(0.5,),
        examples=300,
        batch_size=100,
    )
    found = run.execute(settings, dataset="mnist-5k", out=tmp_path)
    assert found.metrics["pooled/8/test"] > 5
