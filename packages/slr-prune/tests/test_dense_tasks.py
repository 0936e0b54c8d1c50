"""The experiment on a handful of scenes: its shape, its honesty about claims, real folders, bad input."""

import dataclasses
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from slr_prune.cli import app
from slr_prune.dense_tasks import METHODS, TASKS, Settings, Split, _build, _candidates, _images, tasks
from tenfold import DataError, SettingError
from tenfold.experiment import Record, Run

TINY = Settings(
    train=24, validation=10, test=10, width=4, dense_epochs=2, epochs=2, rhos=(0.3, 1.0), ramps=(0.5, 1.0)
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return tasks.execute(TINY, out=tmp_path_factory.mktemp("tasks"))


@pytest.mark.parametrize("name", TASKS)
def test_every_method_is_measured_on_both_splits(name: str, record: Record) -> None:
    for method in METHODS:
        assert 0 <= record.metrics[f"{name}/{method}/test"] <= 100
        curve = record.history[f"{name}/best/{method}/validation"]
        assert len(curve) == (1 if method == "oneshot" else 2)
        assert len(record.history[f"{name}/best/{method}/test"]) == 1
    losses = record.history[f"{name}/dense/loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", TASKS)
def test_the_candidate_is_chosen_on_the_validation_split(name: str, record: Record) -> None:
    for method, setting, values in (
        ("slr", "rho", TINY.rhos),
        ("admm", "rho", TINY.rhos),
        ("gmp", "ramp", TINY.ramps),
    ):
        last = {
            value: record.history[f"{name}/{method}/{setting}={value:g}/validation"][-1] for value in values
        }
        assert last[record.metrics[f"{name}/{method}/chosen"]] == max(last.values())


@pytest.mark.parametrize("name", TASKS)
def test_claims_follow_from_the_metrics(name: str, record: Record) -> None:
    speed, *margins = [claim for claim in record.claims if claim.name.startswith(name)]
    target = record.history[f"{name}/dense/validation"][-1] - 2
    reached = {}
    for method in ("slr", "admm"):
        curve = record.history[f"{name}/best/{method}/validation"]
        reached[method] = next((epoch for epoch, value in enumerate(curve, 1) if value >= target), None)
        assert record.metrics.get(f"{name}/{method}/epochs to target") == reached[method]
    assert speed.paper == 2.0
    assert speed.ours == ((reached["admm"] or 3) / reached["slr"] if reached["slr"] else 0)
    assert speed.holds is (speed.ours >= 2.0)
    for claim, other in zip(margins, ("admm", "gmp", "oneshot"), strict=True):
        assert claim.ours == record.metrics[f"{name}/slr/test"] - record.metrics[f"{name}/{other}/test"]


def test_table_and_plots_show_every_method(record: Record, tmp_path: Path) -> None:
    text = tasks.tables["tasks"]([record]).markdown()
    for name in ("SLR", "ADMM", "GMP", "one-shot", "dense"):
        assert text.count(f"| {name} |") == 2
    pictures = tasks.plot([record], tmp_path)
    assert [picture.name for picture in pictures] == ["detection.png", "segmentation.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_an_interrupted_run_goes_on_to_the_same_results(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Run.log

    def interrupt(self: Run[Any], name: str, value: float) -> None:
        if name == "segmentation/admm/rho=1/residual":
            raise KeyboardInterrupt
        log(self, name, value)

    monkeypatch.setattr(Run, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tasks.execute(TINY, out=tmp_path)
    monkeypatch.undo()
    assert tasks.execute(TINY, out=tmp_path, resume=True).results() == record.results()


@pytest.mark.parametrize("name", TASKS)
def test_every_convolution_but_those_that_predict_is_pruned(name: str) -> None:
    task = TASKS[name]
    scenes = _images(TINY, 0)
    model = _build(name, TINY, Split(scenes, None), 0)
    pruner = _candidates(name, "oneshot", TINY)[""](model)
    pruner.finalize()
    for layer, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            share = (module.weight == 0).double().mean().item()
            expected = 0 if layer in task.ignored_layers else TINY.sparsity
            assert share == pytest.approx(expected, abs=0.5 / module.weight.numel() + 1e-9)


def test_it_is_a_command_and_an_entry_point() -> None:
    assert "tasks" in [command.name for command in app.registered_commands]
    (point,) = entry_points(group="tenfold.experiments", name="slr-prune.tasks")
    assert point.load() is tasks


def kitti(folder: Path, count: int) -> Path:
    for part in ("image_2", "label_2"):
        (folder / part).mkdir()
    for number in range(count):
        Image.new("RGB", (64, 32), (90, 90, 90 + number)).save(folder / "image_2" / f"{number:06}.png")
        line = "Car 0.00 0 1.85 16.00 8.00 48.00 24.00 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n"
        (folder / "label_2" / f"{number:06}.txt").write_text(line, encoding="utf-8")
    return folder


def test_it_runs_on_a_folder_of_real_images(tmp_path: Path) -> None:
    folder = kitti(tmp_path, 12)
    settings = dataclasses.replace(
        TINY,
        task="detection",
        data=str(folder),
        layout="kitti",
        train=6,
        validation=3,
        test=3,
        epochs=1,
        dense_epochs=1,
    )
    record = tasks.execute(settings, out=tmp_path / "run")
    assert {name.split("/")[0] for name in record.metrics} == {"detection"}
    assert "kitti of 32 x 32" in tasks.tables["tasks"]([record]).title
    with pytest.raises(SettingError, match="20 images of"):
        tasks.execute(dataclasses.replace(settings, train=14), out=tmp_path / "more")
    with pytest.raises(DataError, match="no folder"):
        tasks.execute(dataclasses.replace(settings, data=str(tmp_path / "gone")), out=tmp_path / "gone")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "classification"}, "detection, segmentation or both"),
        ({"data": "folder"}, "a folder and its layout, or neither"),
        ({"layout": "coco"}, "a folder and its layout, or neither"),
        ({"data": "folder", "layout": "voc"}, "one of coco, kitti, tusimple"),
        ({"data": "folder", "layout": "kitti"}, "task=detection"),
        ({"size": 40}, "multiple of 16"),
        ({"size": 16}, "multiple of 16 from 32"),
        ({"train": 0}, "train is 0"),
        ({"sparsity": 1.0}, "between 0 and 1"),
        ({"rhos": ()}, "no rhos"),
        ({"ramps": (0.5,)}, "2 rhos and 1 ramps"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings(**settings)
