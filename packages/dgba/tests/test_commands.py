"""The commands attack and report from end to end, on a small model of the user's own."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner, Result

from dgba import report_command
from dgba.cli import app
from dgba.evaluation import Comparison
from dgba.suite import Plan
from tenfold import CheckpointError, DataError, SettingError, UnknownNameError

NETS = """
import torch
from torch import nn
from torch.utils.data import TensorDataset, Dataset
from dgba import classification, depth

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.depth, self.kind = nn.Conv2d(8, 1, 1), nn.Linear(8, 3)

    def forward(self, images):
        x = self.body(images)
        return {"depth": self.depth(x).exp(), "kind": self.kind(x.mean((2, 3)))}

def make():
    return Net()

def tasks():
    return [depth(), classification("kind", 3)]

class Rooms(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(10, 3, 8, 8, generator=generator)
        with torch.no_grad():
            outputs = Net()(self.images)
        self.depth = outputs["depth"] * (1 + 0.1 * torch.rand(10, 1, 8, 8, generator=generator))
        self.kind = outputs["kind"].argmax(1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], {"depth": self.depth[index], "kind": self.kind[index]}

def test():
    return Rooms()

def batches():
    rooms = Rooms()
    return [(rooms.images[:7], {"depth": rooms.depth[:7], "kind": rooms.kind[:7]})]

def pairs():
    return TensorDataset(torch.rand(4, 3, 8, 8), torch.rand(4))

def nothing():
    return []

def number():
    return 3

def fails():
    raise RuntimeError("no such luck")
"""
COMMON = (
    "--model",
    "usernets:make",
    "--tasks",
    "usernets:tasks",
    "--data",
    "usernets:test",
    "--threads",
    "1",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with usernets.py, and work in it."""
    (tmp_path / "usernets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "usernets", raising=False)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(steps=4, restarts=1, single_steps=3, queries=5)
    monkeypatch.setattr(report_command, "STANDARD", plan)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def done(*arguments: str) -> dict[str, Any]:
    """Run a command, insist that it succeeds, and return its figures."""
    result = call(*arguments, "--json", "figures.json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    document: dict[str, Any] = json.loads(Path("figures.json").read_text())
    return document


def test_an_attack_is_measured_drawn_and_saved(folder: Path) -> None:
    found = done("attack", *COMMON, "--eps", "16", "--batch-size", "4", "--save", "adversarial.pt")
    assert found["images"] == 10
    assert found["average damage"] == pytest.approx(sum(found["damage"].values()) / 2)
    assert found["average damage"] < 0
    assert found["clean"]["kind"]["accuracy"] == 1
    low, high = found["damage interval"]["depth"]
    assert low <= found["damage"]["depth"] <= high
    content = torch.load("adversarial.pt", weights_only=True)
    images = sys.modules["usernets"].Rooms().images
    assert content["images"].shape == images.shape
    assert 0 < (content["images"] - images).abs().max() <= 16 / 255 + 1e-6
    assert torch.equal(content["targets"]["kind"], sys.modules["usernets"].Rooms().kind)
    with Image.open("runs/dgba/attack/outputs.png") as picture:
        assert picture.width > 300


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd-restart", "square"])
def test_every_attack_and_norm_is_reached_by_name(folder: Path, attack: str) -> None:
    few = ("--attack", attack, "--steps", "2", "--images", "3")
    result = call("attack", *COMMON, *few, "--combination", "total")
    assert result.exit_code == 0, repr(result.exception)
    assert f"{attack}, total, linf, eps 8/255: metrics of 3 images" in " ".join(result.stdout.split())
    if attack == "pgd":
        assert (
            "pgd, dgba, l2, eps 0.5" in call("attack", *COMMON, *few, "--norm", "l2", "--eps", "0.5").stdout
        )


def test_one_task_is_attacked_alone(folder: Path) -> None:
    alone = done("attack", *COMMON, "--combination", "single:depth")
    both = done("attack", *COMMON)
    assert alone["relative loss change"]["depth"] > both["relative loss change"]["depth"]


def test_weights_and_batches_of_the_users_own(folder: Path) -> None:
    (folder / "other").mkdir()
    state = {f"{name}": 2 * value for name, value in _state().items()}
    torch.save({"state_dict": state}, "net.pt")
    plain = done("attack", *COMMON[:-2], "--data", "usernets:batches")
    other = done("attack", *COMMON[:-2], "--data", "usernets:batches", "--weights", "net.pt")
    assert plain["images"] == 7
    assert plain["clean"]["depth"] != other["clean"]["depth"]


def _state() -> dict[str, Tensor]:
    import importlib

    sys.path.insert(0, str(Path.cwd()))
    state: dict[str, Tensor] = importlib.import_module("usernets").Net().state_dict()
    return state


def test_a_report_says_what_was_found(folder: Path, quick: None) -> None:
    found = done("report", *COMMON, "--eps", "8")
    assert found["images"] == 10
    assert len(found["checks"]) == 4
    assert (
        found["attacked"]["worst case"]["log ratio of losses"]
        >= max(item["log ratio of losses"] for item in found["attacked"].values()) - 1e-9
    )
    result = call("report", *COMMON, "--json", "-")
    assert json.loads(result.stdout)["eps"] == pytest.approx(8 / 255)
    for text in ("worst case", "Checks of the gradients", "transfer.png"):
        assert text in result.stderr
    assert Path("runs/dgba/report/transfer.png").exists()


@pytest.mark.parametrize("command", ["attack", "report"])
def test_an_interrupted_command_goes_on(
    folder: Path, quick: None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (command, *COMMON, "--batch-size", "4")
    save = ("--save", "a.pt") if command == "attack" else ()
    whole = done(*arguments, *save)
    add = Comparison.add
    with monkeypatch.context() as patch:

        def interrupted(self: Comparison, *batch: Any) -> None:
            if len(batch[0]) < 4:
                raise KeyboardInterrupt
            add(self, *batch)

        patch.setattr(Comparison, "add", interrupted)
        result = call(*arguments)
    assert result.exit_code == 130
    assert "interrupted; go on with" in result.stderr
    other = call(*arguments, "--eps", "3", "--resume")
    assert isinstance(other.exception, CheckpointError)
    seen = []
    monkeypatch.setattr(
        Comparison, "add", lambda self, *batch: (seen.append(len(batch[0])), add(self, *batch))
    )
    assert done(*arguments, *save, "--resume") == whole
    assert seen == [2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--attack", "pdg"), UnknownNameError, "'pgd'"),
        (("--norm", "l2"), SettingError, "no eps for norm l2"),
        (("--norm", "l3", "--eps", "1"), UnknownNameError, "'l2'"),
        (("--attack", "square", "--norm", "l2", "--eps", "1"), SettingError, "'linf'"),
        (("--eps", "-1"), SettingError, "eps is -0"),
        (("--combination", "single:dept"), UnknownNameError, "'depth'"),
        (("--combination", "totals"), UnknownNameError, "'total'"),
        (("--model", "usernets:number"), SettingError, "returned a int"),
        (("--model", "usernets:fails"), SettingError, "no such luck"),
        (("--model", "usernets:maker"), UnknownNameError, "'make'"),
        (("--tasks", "usernets:number"), SettingError, "returned 3"),
        (("--tasks", "usernets:nothing"), SettingError, r"returned \[\]"),
        (("--data", "usernets:number"), SettingError, "a torch Dataset"),
        (("--data", "usernets:nothing"), DataError, "gave no images"),
        (("--data", "usernets:pairs"), SettingError, "gave a batch of list"),
        (("--weights", "nowhere.pt"), DataError, "nowhere.pt does not fit"),
        (("--weights", "usernets.py"), DataError, "usernets.py does not fit"),
        (("--weights", "wrong.pt"), DataError, "depth.weight"),
    ],
)
def test_bad_input_is_named(
    folder: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    torch.save({"depth.weight": torch.ones(3)}, "wrong.pt")
    result = call("attack", *COMMON, *arguments)
    with pytest.raises(error, match=message):
        raise result.exception or AssertionError(result.output)
    assert not Path("runs/dgba/attack/outputs.png").exists()
