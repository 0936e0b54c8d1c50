"""The experiment on a handful of batches: its shape, its honesty about claims, its bad input."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slr_prune import ADMMPruner, Pruner, SLRPruner
from slr_prune._schemes import METHODS, REMEDIES
from slr_prune._training import PASS, Examples, Loop, accuracy, augmented, mean_loss, train_epoch
from slr_prune.experiments import Settings, run
from slr_prune.models import INPUTS, MODELS, TARGETS, build
from tenfold import CheckpointError, SettingError, UnknownNameError
from tenfold.experiment import Record, load_state

TINY = Settings(
    examples=1500,
    dense_epochs=2,
    epochs=(1, 2),
    retrain_epochs=1,
    rhos=(0.01, 0.03),
    ramps=(0.5, 0.9),
    lr=0.01,
    remedies=("growth", "exact"),
)
TUNED = ("slr", "admm", "gmp", "slr+growth", "admm+growth", "slr+exact")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def record(out: Path) -> Record:
    return run.execute(TINY, out=out)


def test_every_method_is_measured_without_retraining_and_with_it(record: Record) -> None:
    for method in METHODS:
        assert 0 < record.metrics[f"{method}/test"] <= 100
        retrained = record.history[f"retrained/{method}/test"]
        assert len(retrained) == 2
        assert retrained[0] == record.metrics[f"{method}/test"]
        for epochs in (1,) if method == "oneshot" else TINY.epochs:
            assert len(record.history[f"best/{method}/{epochs}/validation"]) == epochs
    assert record.metrics["dense/test"] > 70
    assert record.dataset == "mnist-5k subset"


@pytest.mark.parametrize("name", TUNED)
def test_the_candidate_and_the_budget_are_chosen_on_the_validation_split(record: Record, name: str) -> None:
    kind, values = ("ramp", TINY.ramps) if name == "gmp" else ("rho", TINY.rhos)
    final = {
        (epochs, value): record.history[f"{name}/epochs={epochs},{kind}={value:g}/validation"][-1]
        for epochs in TINY.epochs
        for value in values
    }
    chosen = (record.metrics[f"{name}/epochs"], record.metrics[f"{name}/chosen"])
    assert final[chosen] == max(final.values()) == record.metrics[f"{name}/validation"]
    for epochs in TINY.epochs:
        in_budget = max(value for (length, _), value in final.items() if length == epochs)
        assert record.history[f"best/{name}/{epochs}/validation"][-1] == in_budget


@pytest.mark.parametrize("goal", ["target", "ADMM", "ADMM+growth"])
@pytest.mark.parametrize("name", [*TUNED, "oneshot"])
def test_epochs_count_up_to_the_first_one_at_the_goal(record: Record, name: str, goal: str) -> None:
    level = {
        "target": record.history["dense/validation"][-1] - 0.5,
        "ADMM": record.metrics["admm/validation"],
        "ADMM+growth": record.metrics["admm+growth/validation"],
    }[goal]
    each = 1 + PASS if name == "slr+exact" else 1
    curves = [record.history.get(f"best/{name}/{epochs}/validation", []) for epochs in TINY.epochs]
    found = record.metrics.get(f"{name}/epochs to {goal}")
    if found is None:
        assert all(value < level for curve in curves for value in curve)
        return
    first = round(found / each)
    assert found == first * each
    assert any(curve[first - 1] >= level for curve in curves if len(curve) >= first)
    assert all(value < level for curve in curves for value in curve[: first - 1])


def test_claims_follow_from_the_metrics(record: Record) -> None:
    to_admm, to_target, *margins = record.claims
    for claim, goal in ((to_admm, "ADMM"), (to_target, "target")):
        slr = record.metrics.get(f"slr/epochs to {goal}")
        admm = record.metrics.get(f"admm/epochs to {goal}", TINY.epochs[-1] + 1)
        assert claim.ours == (0.0 if slr is None else admm / slr)
        assert claim.paper == 3.0
        assert claim.holds is (claim.ours >= 3.0)
    for claim, other in zip(margins, ("admm", "gmp", "oneshot"), strict=True):
        margin = record.metrics["slr/test"] - record.metrics[f"{other}/test"]
        assert claim.ours == margin
        assert claim.holds is (margin >= 0)


def test_the_pruned_networks_are_kept_as_they_were_at_hard_prune(record: Record, out: Path) -> None:
    for method in METHODS:
        model = build(TINY.model, 0)
        model.load_state_dict(load_state(out / "pruned" / f"{method}.npz"))
        for layer, sparsity in TINY.targets().items():
            weight = model.get_submodule(layer).weight
            assert int((weight == 0).sum()) == round(sparsity * weight.numel())


def test_tables_and_plots_show_every_method(record: Record, tmp_path: Path) -> None:
    for table in ("methods", "retraining"):
        text = run.tables[table]([record]).markdown()
        for name in ("SLR", "ADMM", "GMP", "one-shot"):
            assert f"| {name} |" in text
    assert "first 1,500 training images" in text
    text = run.tables["remedies"]([record, record]).markdown()
    assert all(REMEDIES[remedy].title in text for remedy in TINY.remedies)
    assert "of 2 runs" in run.tables["epochs"]([record, record]).markdown()
    pictures = run.plot([record], tmp_path)
    assert [picture.name for picture in pictures] == [
        "accuracy-1.png",
        "accuracy-2.png",
        "paired.png",
        "residual.png",
        "step-size.png",
        "retraining.png",
    ]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_a_run_in_which_neither_reaches_the_goal_is_left_out_of_the_pairs(record: Record) -> None:
    def with_epochs(**epochs: float) -> Record:
        others = {key: value for key, value in record.metrics.items() if "epochs to target" not in key}
        reached = {f"{method}/epochs to target": value for method, value in epochs.items()}
        return replace(record, metrics={**others, **reached})

    records = [with_epochs(slr=1.0, admm=2.0), with_epochs(admm=2.0), with_epochs()]
    row = run.tables["epochs"](records).rows[1]
    never = TINY.epochs[-1] + 1
    difference, ratio, half = row[-3:]
    assert difference.startswith(f"{((2 - 1) + (2 - never)) / 2:.1f} ")
    assert ratio.startswith(f"{(2 / 1 + 2 / never) / 2:.2f} ")
    assert half == "1 of 3 runs"
    assert run.tables["epochs"]([with_epochs()]).rows[1][-3:] == ["–", "–", "0 of 1 runs"]


def test_an_interrupted_run_ends_with_the_same_record(record: Record, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "checkpoints", tmp_path / "checkpoints")
    for path in (tmp_path / "checkpoints").iterdir():
        if "retrain" in path.name or "growth" in path.name:
            path.unlink()
    again = run.execute(TINY, out=tmp_path, resume=True)
    assert again.results() == record.results()


def test_a_diverging_candidate_is_left_out(tmp_path: Path) -> None:
    settings = Settings(
        examples=500,
        dense_epochs=1,
        epochs=(2,),
        retrain_epochs=0,
        rhos=(1e30, 0.01),
        ramps=(0.5,),
        lr=0.01,
    )
    record = run.execute(settings, out=tmp_path)
    assert record.metrics["slr/chosen"] == 0.01


def test_a_dense_network_is_kept_for_other_runs(tmp_path: Path) -> None:
    brief: dict[str, Any] = {
        "dense_epochs": 1,
        "epochs": (1,),
        "retrain_epochs": 0,
        "rhos": (0.01,),
        "ramps": (0.5,),
        "examples": 500,
        "dense_folder": str(tmp_path / "dense"),
    }
    first = run.execute(Settings(**brief), out=tmp_path / "first")
    second = run.execute(Settings(**brief, sparsity=(0.9, 0.9, 0.5)), out=tmp_path / "second")
    assert second.history["dense/validation"] == first.history["dense/validation"]
    assert first.metrics["dense/test"] < 80  # of a tenth of the images
    assert second.metrics["dense/test"] == first.metrics["dense/test"]
    assert not (tmp_path / "second" / "checkpoints" / "dense.npz").exists()
    with pytest.raises(CheckpointError, match="other dense training"):
        run.execute(Settings(**{**brief, "dense_epochs": 2}), out=tmp_path / "third")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": (0.5,)}, "one for each of fc1, fc2, fc3"),
        ({"sparsity": (0.5, 0.5, 1.0)}, "between 0 and 1"),
        ({"model": "lenet"}, "lenet-300-100 / irregular"),
        ({"structure": "pattern"}, "one of"),
        ({"epochs": (0, 2)}, r"epochs is \(0, 2\)"),
        ({"epochs": (4, 2)}, "rising"),
        ({"epochs": ()}, "rising"),
        ({"iterations": 0}, "iterations is 0"),
        ({"retrain_epochs": -1}, "0 or more"),
        ({"examples": -1}, "0 takes all"),
        ({"precision": "float16"}, "float32 or bfloat16"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings(**settings)


def test_an_unknown_remedy_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="iterations"):
        Settings(remedies=("luck",))


def test_an_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'mnist-5k'"):
        run.execute(TINY, dataset="mnist5k", out=tmp_path)


def test_a_network_for_other_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="lenet-300-100 or lenet-5"):
        run.execute(Settings(model="resnet-20"), out=tmp_path)


class Spy(Pruner):
    """Note the losses that `step` is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, 0.5)
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        self.losses.append(loss)


def some_examples(count: int, shape: tuple[int, int, int] = (1, 28, 28)) -> Examples:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, *shape, generator=generator)
    return Examples(x, torch.randint(10, (count,), generator=generator))


def test_iterations_split_an_epoch_and_their_losses_average_to_it() -> None:
    model = build("lenet-300-100", 0)
    spy = Spy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    mean = train_epoch(
        model, spy, some_examples(80), optimizer, torch.Generator().manual_seed(0), Loop(10, iterations=4)
    )
    assert len(spy.losses) == 4
    assert sum(spy.losses) / 4 == pytest.approx(mean)


def test_an_exact_loss_is_that_of_the_whole_training_set_at_that_moment() -> None:
    model, examples = build("lenet-300-100", 0), some_examples(50)
    spy = Spy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    loop = Loop(10, exact=True)
    train_epoch(model, spy, examples, optimizer, torch.Generator().manual_seed(0), loop)
    assert loop.cost == PASS
    expected = nn.functional.cross_entropy(model(examples.x), examples.y).item()
    assert spy.losses == [pytest.approx(expected, rel=1e-5)]
    assert mean_loss(model, examples, batch_size=7) == pytest.approx(expected, rel=1e-5)


def test_the_loop_trains_on_the_augmented_lagrangian() -> None:
    examples = some_examples(20)
    trained, plain = build("lenet-300-100", 0), build("lenet-300-100", 0)
    for model, through_loop in ((trained, True), (plain, False)):
        pruner = ADMMPruner(model, 0.5, rho=0.5)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        if through_loop:
            train_epoch(model, pruner, examples, optimizer, torch.Generator().manual_seed(0), Loop(20))
            continue
        (batch,) = examples.batches(20, torch.Generator().manual_seed(0))
        (nn.functional.cross_entropy(model(batch[0]), batch[1]) + pruner.penalty()).backward()
        optimizer.step()
    for ours, theirs in zip(trained.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_is_near_float32_and_leaves_weights_and_multipliers_alone() -> None:
    examples = some_examples(64, (3, 32, 32))
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = build("resnet-20", 0).to(memory_format=torch.channels_last)
        pruner = SLRPruner(model, {"stage*": 0.8})
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        loop = Loop(32, precision="bfloat16" if precision == "bfloat16" else "float32")
        generator = torch.Generator().manual_seed(0)
        losses[precision] = train_epoch(model, pruner, examples, optimizer, generator, loop)
        tensors = [*model.parameters(), *pruner.Z.values(), *pruner.multipliers.values()]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_augmented_images_are_shifted_and_mirrored_originals() -> None:
    x = some_examples(40, (3, 32, 32)).x
    y = augmented(x, torch.Generator().manual_seed(0))
    assert torch.equal(y, augmented(x, torch.Generator().manual_seed(0)))
    padded = nn.functional.pad(x, [4] * 4)
    mirrored = 0
    for image, whole in zip(y, padded, strict=True):
        crops = [whole[:, top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
        straight = any(torch.equal(image, crop) for crop in crops)
        assert straight or any(torch.equal(image, crop.flip(2)) for crop in crops)
        mirrored += not straight
    assert 10 < mirrored < 30


@pytest.mark.parametrize("name", list(MODELS))
def test_a_network_takes_its_images_and_gives_ten_logits(name: str) -> None:
    model = build(name, 0).eval()
    assert model(torch.zeros(2, *INPUTS[name])).shape == (2, 10)
    assert accuracy(model, some_examples(8, INPUTS[name]), batch_size=3) in {12.5 * k for k in range(9)}


def test_the_first_convolution_and_the_classifier_of_the_large_networks_stay_dense() -> None:
    for name, layers, first in (("resnet-20", 20, "conv1"), ("vgg-16", 12, "conv1_1")):
        pruner = Pruner(build(name, 0), TARGETS[name, "irregular"])
        assert len(pruner.sparsity) == layers
        assert not {first, "fc"} & set(pruner.sparsity)


def test_the_networks_are_as_large_as_published() -> None:
    published = {"lenet-300-100": 266_610, "lenet-5": 431_080, "vgg-16": 14_724_042}
    for name, parameters in published.items():
        assert sum(weight.numel() for weight in build(name, 0).parameters()) == parameters
