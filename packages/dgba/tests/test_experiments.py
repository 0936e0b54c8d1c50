import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dgba import evaluation
from dgba._results import ADVERSARIAL, AVERAGE, DGBA, MILDEST, SINGLE, STANDARD, key, margin, transfer
from dgba.experiments import Settings, run
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Record, read_records

TINY = Settings(
    tasks=("segmentation", "depth"),
    size=16,
    train_images=24,
    test_images=6,
    sharing=("shared", "independent"),
    epochs=1,
    batch_size=6,
    eps=(8.0,),
    curve=(2.0,),
    steps=2,
    apgd_steps=2,
    adversarial_epochs=1,
    adversarial_steps=1,
    judged_images=3,
    judge_steps=2,
    judge_restarts=1,
    judge_single_steps=2,
    judge_queries=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return run.execute(TINY, out=folder / "seed-0")


def test_the_tables_say_what_was_measured(record: Record) -> None:
    text = {name: table([record, record]).markdown() for name, table in run.tables.items()}
    metrics = record.metrics
    assert f"{metrics[key('shared', DGBA, 8.0, AVERAGE)]:.1f} [" in text["attacks"]
    assert f"{margin(record, 'independent', 8.0):.1f} [" in text["margins"]
    assert f"{transfer(record, 'shared', 8.0).off_diagonal:.1f} [" in text["transfer"]
    assert f"{metrics[key('suite', ADVERSARIAL, 'worst case')]:.1f} [" in text["adversarial"]
    assert f"{metrics[key('shared', 'clean', 'segmentation', 'mIoU')]:.3f} [" in text["models"]


def test_figures_hang_together(record: Record) -> None:
    metrics = record.metrics
    for model in ("shared", "independent", ADVERSARIAL):
        damages = [metrics[key(model, DGBA, 8.0, task)] for task in TINY.tasks]
        assert metrics[key(model, DGBA, 8.0, AVERAGE)] == pytest.approx(sum(damages) / 2)
        assert metrics[key(model, DGBA, 8.0, MILDEST)] == max(damages)
    matrix = transfer(record, "shared", 8.0)
    assert matrix.damages[0, 1] == metrics[key("shared", SINGLE + "segmentation", 8.0, "depth")]
    assert {claim.name for claim in record.claims} >= {
        "average damage by DGBA beyond the best of SINGLE, TOTAL and SIGNSUM, shared",
        "damage of the tasks that are not attacked, shared beyond independent",
    }
    assert record.claims[0].ours == margin(record, "shared", 8.0)


def test_the_suite_judges_both_models(record: Record) -> None:
    for model in (STANDARD, ADVERSARIAL):
        checks = [value for name, value in record.metrics.items() if name.startswith(key("checks", model))]
        assert len(checks) == 4
        assert set(checks) <= {0.0, 1.0}
        assert key("suite", model, "worst case") in record.metrics


def test_pictures_are_drawn(record: Record, folder: Path) -> None:
    pictures = run.plot([record], folder / "plots")
    assert {path.name for path in pictures} == {
        "transfer-8.png", "damage.png", "losses.png", "shared.png", "independent.png", "adversarial.png",
    }  # fmt: skip
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def test_an_interrupted_run_ends_as_an_undisturbed_one(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = evaluation.compare
    left = iter(range(9))

    def interrupted(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return compare(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "compare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.execute(TINY, out=tmp_path)
    again = run.execute(TINY, out=tmp_path, resume=True)
    assert again.results() == record.results()
    assert read_records(tmp_path / "record.json")[0].results() == json.loads(json.dumps(record.results()))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tasks": ("depth", "norms")}, UnknownNameError, "'normals'"),
        ({"tasks": ("depth",)}, SettingError, "two at least"),
        ({"sharing": ("all",)}, UnknownNameError, "sharing"),
        ({"adversarial": "branched"}, SettingError, "one of shared, independent"),
        ({"variant": "quick"}, UnknownNameError, "variant"),
        ({"eps": ()}, SettingError, "one at least"),
        ({"eps": (0.0,)}, SettingError, "above 0"),
        ({"epochs": 0}, SettingError, "epochs is 0"),
    ],
)
def test_impossible_settings_are_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dataclasses.replace(TINY, **change)
