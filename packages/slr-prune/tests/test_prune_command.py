"""The command prune from end to end, on a small model of the user's own."""

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from slr_prune import _user_run, cost, load, remove_channels
from slr_prune._user_model import build_model, load_weights
from slr_prune.cli import app
from tenfold import CheckpointError, DataError, MissingExtraError, OutputError, SettingError, UnknownNameError

NETS = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, channels=1):
        super().__init__(
            nn.Conv2d(channels, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10),
        )

def make():
    return Net()

def colour():
    return Net(3)

def fails():
    raise RuntimeError("no such luck")

def nothing():
    return 3
"""
COMMON = ("--model", "usernets:make", "--example", "1,1,28,28", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with usernets.py and the weights of its two networks, and work in it."""
    (tmp_path / "usernets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "usernets", raising=False)
    for name in ("make", "colour"):
        torch.manual_seed(0)
        torch.save(build_model(f"usernets:{name}", None)[0].state_dict(), tmp_path / f"{name}.pt")
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["prune", *arguments])


def done(*arguments: str) -> dict[str, Any]:
    """Run the command, insist that it succeeds, and return its record."""
    record = Path("record.json")
    record.unlink(missing_ok=True)
    result = call(*arguments, "--json", str(record))
    assert result.exit_code == 0, result.output + repr(result.exception)
    document: dict[str, Any] = json.loads(record.read_text())
    return document


def model_of(name: str = "make") -> nn.Module:
    model, _ = build_model(f"usernets:{name}", None)
    load_weights(model, Path(f"{name}.pt"))
    return model.eval()


def test_one_shot_without_data_writes_every_form(folder: Path) -> None:
    record = done(
        "make.pt",
        "-o",
        "out/small.pt",
        *COMMON,
        "--sparsity",
        "0.5",
        "--onnx",
        "s.onnx",
        "--program",
        "s.pt2",
    )
    x = torch.randn(5, 1, 28, 28)
    program = torch.export.load("s.pt2").module()
    dense, pruned = record["dense"], record["pruned"]
    assert pruned["macs"] < 0.6 * dense["macs"]
    assert pruned["parameters"] == sum(parameter.numel() for parameter in program.parameters())
    assert pruned["file_bytes"] == Path("out/small.pt").stat().st_size < dense["file_bytes"]
    assert "accuracy" not in dense
    assert record["sparsity"] == {"0": 0.5, "3": 0.5}
    assert Path("s.onnx").stat().st_size > 0
    # The program computes what the model does with its smallest channels at zero.
    masked = model_of()
    _user_run.OneShotPruner(masked, 0.5, structure="filter", example_inputs=x).finalize()
    assert torch.allclose(program(x), masked(x), atol=1e-5)
    assert torch.equal(load("out/small.pt", remove_channels(masked, x))(x), remove_channels(masked, x)(x))
    assert sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__") == [
        "out"
    ]


def test_training_on_a_named_set_beats_chance_and_keeps_the_masks(folder: Path) -> None:
    record = done(
        "make.pt", "-o", "a.pt", *COMMON, "--sparsity", "0.5", "--data", "mnist-5k",
        "--method", "gmp", "--epochs", "2", "--retrain-epochs", "1", "--lr", "0.1",
    )  # fmt: skip
    assert record["dense"]["accuracy"] < 30
    assert record["pruned"]["accuracy"] > 60
    assert [len(record["history"][f"{stage}/loss"]) for stage in ("prune", "retrain")] == [2, 1]
    assert record["pruned"]["macs"] < 0.6 * record["dense"]["macs"]
    assert not Path("a.pt.run").exists()


@pytest.mark.parametrize("method", ["slr", "admm"])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    folder: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(folder / "images", count=10)
    arguments = (
        "colour.pt", "--model", "usernets:colour", "--example", "1,3,28,28", "--threads", "1",
        "--sparsity", "0.5", "--structure", "irregular", "--data", "images", "--method", method,
        "--epochs", "3", "--retrain-epochs", "2", "--batch-size", "8",
    )  # fmt: skip
    whole = done(*arguments, "-o", "a.pt")
    for resume in ([], ["--resume"]):
        with monkeypatch.context() as patch:
            patch.setattr(_user_run, "_train_epoch", interrupted(_user_run._train_epoch))
            result = call(*arguments, "-o", "b.pt", *resume)
        assert result.exit_code == 130
        assert "interrupted; go on with" in result.stderr
        assert Path("b.pt.run").exists()
        assert not Path("b.pt").exists()
    other = call(*arguments, "-o", "b.pt", "--resume", "--lr", "0.5")
    assert isinstance(other.exception, CheckpointError)
    again = done(*arguments, "-o", "b.pt", "--resume")
    one, two = (torch.load(name, weights_only=True)["tensors"] for name in ("a.pt", "b.pt"))
    assert again["history"] == whole["history"]
    assert flat(one) == flat(two)


def interrupted(train: Callable[..., float]) -> Callable[..., float]:
    """Return training of an epoch that is interrupted in its third one."""
    epochs = itertools.count(1)

    def epoch(*arguments: Any) -> float:
        if next(epochs) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    return epoch


def flat(tensors: dict[str, Any]) -> dict[str, list[Any]]:
    found = {}
    for name, tensor in tensors.items():
        parts = tensor if isinstance(tensor, dict) else {"": tensor}
        for part, value in parts.items():
            found[f"{name}{part}"] = value.tolist() if isinstance(value, Tensor) else list(value)
    return found


def images(folder: Path, count: int, classes: int = 3) -> None:
    """Write images of one bright colour a class, of several sizes."""
    draw = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = draw.integers(0, 120, (30 + number, 40, 3), dtype=np.uint8)
            pixels[..., label] = 255
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number:02}.png")


def test_a_folder_of_images_is_learnt(folder: Path) -> None:
    for part, count in (("train", 12), ("val", 4)):
        images(folder / "images" / part, count)
    record = done(
        "colour.pt", "-o", "a.pt", "--model", "usernets:colour", "--example", "1,3,28,28", "--threads", "1",
        "--layer", "0=0.25", "--layer", "3=0.5", "--data", "images", "--epochs", "8", "--batch-size", "8",
    )  # fmt: skip
    assert record["settings"]["method"] == "slr"
    assert record["pruned"]["accuracy"] > 90 > record["dense"]["accuracy"]
    assert record["sparsity"] == {"0": 0.25, "3": 0.5}


def test_a_latency_is_turned_into_a_sparsity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    macs = lambda model, x, threads: float(cost(model, x).macs)  # noqa: E731
    monkeypatch.setattr(_user_run, "latency", macs)
    record = done("make.pt", "-o", "a.pt", *COMMON, "--speedup", "3")
    assert record["dense"]["macs"] >= 3 * record["pruned"]["macs"]
    assert 0.4 < record["found_sparsity"] < 0.9
    assert set(record["sparsity"].values()) == {record["found_sparsity"]}
    same = done("make.pt", "-o", "b.pt", *COMMON, "--latency", str(record["dense"]["macs"] / 3))
    assert same["sparsity"] == record["sparsity"]
    with pytest.raises(SettingError, match="dense model meets already"):
        raise call("make.pt", "-o", "c.pt", *COMMON, "--speedup", "0.9").exception  # type: ignore[misc]


@pytest.mark.parametrize("targets", ["erk", "global", "sensitivity"])
def test_targets_share_a_sparsity_out(folder: Path, targets: str) -> None:
    images(folder / "images", count=10)
    record = done(
        "colour.pt", "-o", "a.pt", "--model", "usernets:colour", "--example", "1,3,28,28", "--threads", "1",
        "--sparsity", "0.6", "--targets", targets, "--structure", "irregular", "--data", "images",
        "--method", "oneshot",
    )  # fmt: skip
    weights = {"0": 600, "3": 1152, "8": 640}
    removed = sum(weights[name] * value for name, value in record["sparsity"].items())
    assert removed == pytest.approx(0.6 * sum(weights.values()), rel=0.01)
    kept = record["dense"]["nonzero"] - record["pruned"]["nonzero"]
    assert kept == pytest.approx(removed, abs=3)


def test_a_program_is_pruned_and_measured(folder: Path) -> None:
    x = torch.randn(4, 1, 28, 28)
    torch.export.save(torch.export.export(model_of(), (x,)), "net.pt2")
    record = done(
        "net.pt2", "-o", "a.pt", "--program", "a.pt2", "--sparsity", "0.5", "--data", "mnist-5k",
        "--method", "oneshot", "--threads", "1",
    )  # fmt: skip
    dense = done(
        "make.pt", "-o", "b.pt", *COMMON, "--sparsity", "0.5", "--data", "mnist-5k", "--method", "oneshot"
    )
    assert record["pruned"]["accuracy"] == dense["pruned"]["accuracy"]
    assert record["dense"]["accuracy"] == dense["dense"]["accuracy"]
    assert torch.export.load("a.pt2").module()(x).shape == (4, 10)


def test_the_table_shows_both_models(folder: Path) -> None:
    result = call("make.pt", "-o", "a.pt", *COMMON, "--sparsity", "0.5")
    for text in ("oneshot, filter; times of 1 threads", "nonzero parameters", "MACs", "bytes of the file"):
        assert text in result.stdout
    result = call("make.pt", "-o", "b.pt", *COMMON, "--sparsity", "0.5", "--json", "-")
    assert json.loads(result.stdout)["settings"]["sparsity"] == 0.5
    assert "MACs" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), SettingError, "neither a sparsity nor a latency"),
        (("--sparsity", "1.5"), SettingError, "between 0 and 1"),
        (("--sparsity", "0.5", "--speedup", "2"), SettingError, "one of them"),
        (("--sparsity", "0.5", "--method", "slr"), SettingError, "--data FOLDER"),
        (("--sparsity", "0.5", "--retrain-epochs", "1"), SettingError, "--data FOLDER"),
        (("--sparsity", "0.5", "--method", "sir"), UnknownNameError, "'slr'"),
        (("--sparsity", "0.5", "--targets", "erg"), UnknownNameError, "'erk'"),
        (("--sparsity", "0.5", "--targets", "erk"), SettingError, "coupled layers"),
        (("--sparsity", "0.5", "--structure", "filters"), UnknownNameError, "'filter'"),
        (("--speedup", "2", "--structure", "irregular"), SettingError, "remove channels"),
        (("--sparsity", "0.5", "--targets", "sensitivity", "--structure", "2:4"), SettingError, "--data"),
        (("--sparsity", "0.5", "--ignore", "fc"), UnknownNameError, "layer"),
        (("--layer", "0"), SettingError, "PATTERN=FRACTION"),
        (("--layer", "0=much"), SettingError, "PATTERN=FRACTION"),
        (("--layer", "7=0.5"), UnknownNameError, "layer"),
        (("--sparsity", "0.5", "--example", "1,1,28,x"), SettingError, "whole numbers from 1 on"),
        (("--sparsity", "0.5", "--example", "0,1,28,28"), SettingError, "whole numbers from 1 on"),
        (("--sparsity", "0.5", "--example", "1,3,28,28"), SettingError, "does not run on example_inputs"),
        (("--sparsity", "0.5", "--lr", "0"), SettingError, "lr is 0"),
        (("--sparsity", "0.5", "--epochs", "0"), SettingError, "epochs is 0"),
        (("--sparsity", "0.5", "--data", "mnist5k"), UnknownNameError, "'mnist-5k'"),
        (("--sparsity", "0.5", "--data", "digits"), SettingError, r"shape \(1, 8, 8\)"),
        (("--sparsity", "0.5", "--data", "empty"), DataError, "holds no images by class"),
        (("--sparsity", "0.5", "--data", "many"), SettingError, "images of 11 classes"),
        (("--sparsity", "0.5", "--data", "broken"), DataError, "png cannot be read"),
        (("--sparsity", "0.5", "--data", "many", "--mean", "0.5,0.5"), SettingError, "one number a channel"),
        (("--sparsity", "0.5", "--model", "usernets:makes"), UnknownNameError, "'make'"),
        (("--sparsity", "0.5", "--model", "usersnets:make"), SettingError, "cannot be imported"),
        (("--sparsity", "0.5", "--model", "usernets:fails"), SettingError, "no such luck"),
        (("--sparsity", "0.5", "--model", "usernets:nothing"), SettingError, "returned a int"),
        (("--sparsity", "0.5", "--model", "resnet81"), UnknownNameError, "'resnet18'"),
        (("--sparsity", "0.5", "--model", "resnet18"), DataError, "lacks 'conv1.weight'"),
        (("--sparsity", "0.5", "--model", "lenet-5"), DataError, "lacks 'conv1.weight'"),
        (("--sparsity", "0.5", "--model", ""), SettingError, "without --model"),
        (("--sparsity", "0.5", "--classes", "10"), SettingError, "its own number of outputs"),
        (("--sparsity", "0.5", "--onnx", "a.pt"), SettingError, "one file for several outputs"),
        (("--sparsity", "0.5", "--onnx", "make.pt"), OutputError, "make.pt exists"),
        (("--sparsity", "0.5", "--program", "make.pt/a.pt2"), OutputError, "cannot write"),
    ],
)  # fmt: skip
def test_bad_input_leaves_nothing_behind(
    folder: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    (folder / "empty").mkdir()
    images(folder / "many", count=5, classes=1)
    for number in range(1, 11):
        shutil.copytree(folder / "many" / "class0", folder / "many" / f"class{number}")
    shutil.copytree(folder / "many" / "class0", folder / "broken" / "class0")
    (folder / "broken" / "class0" / "03.png").write_bytes(b"no image")
    (folder / "broken" / "class0" / "04.png").write_bytes(b"no image")
    before = {path for path in folder.rglob("*") if "__pycache__" not in str(path)}
    result = call("make.pt", "-o", "a.pt", *COMMON, *arguments)
    with pytest.raises(error, match=message):
        raise result.exception or AssertionError(result.output)
    assert {path for path in folder.rglob("*") if "__pycache__" not in str(path)} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"extra": torch.ones(1)}, "has 'extra', which the model has not"),
        (lambda state: {k: v for k, v in state.items() if k != "3.bias"}, r"lacks '3\.bias'"),
        (lambda state: state | {"8.weight": torch.ones(3, 64)}, r"'8\.weight' .* shape \(3, 64\)"),
        (lambda state: [1, 2], "holds a list"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    torch.save(change(dict(model_of().state_dict())), "other.pt")
    with pytest.raises(DataError, match=message):
        load_weights(build_model("usernets:make", None)[0], Path("other.pt"))


def test_missing_and_truncated_files_are_refused(folder: Path) -> None:
    Path("half.pt").write_bytes(Path("make.pt").read_bytes()[:2000])
    Path("half.pt2").write_bytes(b"PK")
    for name, message in (
        ("none.pt", "No such file"),
        ("half.pt", "half.pt cannot be read"),
        ("half.pt2", "program"),
    ):
        options = COMMON[4:] if name.endswith("pt2") else COMMON
        result = call(name, "-o", "a.pt", *options, "--sparsity", "0.5")
        with pytest.raises(DataError, match=message):
            raise result.exception or AssertionError(result.output)
    assert not Path("a.pt").exists()


def test_nested_state_dicts_are_taken(folder: Path) -> None:
    torch.save({"state_dict": model_of().state_dict(), "epoch": 3}, "nested.pt")
    model, _ = build_model("usernets:make", None)
    load_weights(model, Path("nested.pt"))
    assert torch.equal(model.get_parameter("0.weight"), model_of().get_parameter("0.weight"))


def test_an_existing_file_is_replaced_only_by_force(folder: Path) -> None:
    Path("a.pt").write_text("mine")
    arguments = ("make.pt", "-o", "a.pt", *COMMON, "--sparsity", "0.5")
    assert isinstance(call(*arguments).exception, OutputError)
    assert Path("a.pt").read_text() == "mine"
    assert call(*arguments, "--force").exit_code == 0
    assert Path("a.pt").stat().st_size > 1000


def test_a_failing_export_leaves_no_other_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise MissingExtraError("onnx is not installed", "onnx", "Install it.")

    monkeypatch.setattr("slr_prune.prune_command.export_onnx", refuse)
    result = call("make.pt", "-o", "a.pt", *COMMON, "--sparsity", "0.5", "--onnx", "a.onnx")
    assert isinstance(result.exception, MissingExtraError)
    assert not [path for path in folder.iterdir() if path.name.startswith((".", "a."))]


def test_programs_do_not_train(folder: Path) -> None:
    torch.export.save(torch.export.export(model_of(), (torch.randn(2, 1, 28, 28),)), "net.pt2")
    result = call("net.pt2", "-o", "a.pt", "--sparsity", "0.5", "--data", "mnist-5k", "--method", "slr")
    with pytest.raises(SettingError, match="no training mode"):
        raise result.exception or AssertionError(result.output)


def test_torchvision_models_are_built_by_name() -> None:
    model, shape = build_model("resnet18", 7)
    assert shape == (3, 224, 224)
    assert model.get_parameter("fc.weight").shape == (7, 512)
    model, shape = build_model("lenet-5", None)
    assert shape == (1, 28, 28)
