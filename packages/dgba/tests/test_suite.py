import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgba import Task, damage, segmentation
from dgba.suite import BLACK_BOX, STANDARD, WHITE_BOX, Check, Plan, Report, Suite, standard
from tenfold import SettingError

EPS = 4 / 255
QUICK = Plan(steps=12, restarts=2, single_steps=6, queries=30)
RISES, STEPS, GREY, BLIND = range(4)


def absolute(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs().flatten(1).mean(1)


class Net(nn.Module):
    """Two tasks of a convolution each; `mask` comes before it."""

    def __init__(self, mask: nn.Module | None = None, seed: int = 0) -> None:
        super().__init__()
        self.mask = mask or nn.Identity()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
            self.near, self.kind = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.body(self.mask(images))
        return {"near": self.near(x), "kind": self.kind(x)}


class Rounded(nn.Module):
    """Steps that are flat, as of a model that quantises its input."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * 8).round() / 8 + 0 * images


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


class Reversed(nn.Module):
    """Gradients that point the wrong way."""

    def forward(self, images: Tensor) -> Tensor:
        reversed_: Tensor = _Reversed.apply(images)
        return reversed_


TASKS = (Task("near", absolute), segmentation("kind", 3))


def batch(count: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 8, 8, generator=generator)
    with torch.no_grad():
        outputs = Net()(images)
    noise = 0.05 * torch.randn(outputs["near"].shape, generator=generator)
    return images, {"near": outputs["near"] + noise, "kind": outputs["kind"].argmax(1)}


def judged(model: nn.Module, **options: Any) -> Report:
    return standard(model, TASKS, [batch()], EPS, plan=QUICK, **options)


@pytest.fixture(scope="module")
def report() -> Report:
    return judged(Net(), surrogates={"twin": Net(seed=1)})


def test_an_honest_model_passes_every_check(report: Report) -> None:
    assert report.trusted, report.checks
    assert len(report.checks) == 4


def test_the_worst_case_is_no_milder_than_any_attack_on_any_image(report: Report) -> None:
    assert set(report.attacked) == {
        WHITE_BOX, "APGD max-min", "APGD on near", "APGD on kind", BLACK_BOX, "transfer from twin",
    }  # fmt: skip
    for found in report.attacked.values():
        assert (report.worst.score() >= found.score()).all()
    assert damage(report.clean, report.attacked[WHITE_BOX]).average < -1


def test_an_attack_on_one_task_is_the_strongest_on_it(report: Report) -> None:
    for column in range(2):
        losses = [report.attacked[f"APGD on {task.name}"].mean_losses() for task in TASKS]
        name = TASKS[column].name
        assert losses[column][name] == max(item[name] for item in losses)


@pytest.mark.parametrize(("mask", "failed"), [(Rounded(), RISES), (Reversed(), RISES), (Reversed(), BLIND)])
def test_masked_gradients_are_told(mask: nn.Module, failed: int) -> None:
    found = judged(Net(mask))
    assert not found.trusted
    assert not found.checks[failed].passed, found.checks
    assert "MAY BE MASKED" in found.tables()[-1].title


def test_the_tables_and_the_document_say_what_was_found(report: Report) -> None:
    text = "\n".join(table.markdown() for table in report.tables())
    for part in (
        "worst case within eps 4/255",
        "transfer from twin",
        "nothing speaks for masked gradients",
        "mIoU",
    ):
        assert part in text
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert document["trusted"] is True
    average = document["attacked"][WHITE_BOX]["average damage"]
    assert average == pytest.approx(damage(report.clean, report.attacked[WHITE_BOX]).average)
    assert f"{average:.1f}" in text


def test_batches_and_interruptions_make_no_difference(report: Report) -> None:
    images, targets = batch()
    parts = [
        (images[part], {name: target[part] for name, target in targets.items()})
        for part in (slice(0, 1), slice(1, 4))
    ]
    first, second = (Suite(Net(), TASKS, EPS, plan=QUICK, surrogates={"twin": Net(seed=1)}) for _ in range(2))
    first.add(*parts[0])
    second.load_state_dict(first.state_dict())
    second.add(*parts[1])
    torch.testing.assert_close(second.report().worst.losses, report.worst.losses)


def test_one_task_is_enough() -> None:
    found = standard(Net(), TASKS[:1], [batch()], EPS, plan=QUICK)
    assert found.transfer.damages.shape == (1, 1)
    assert "APGD max-min" not in found.attacked
    assert all(isinstance(check, Check) for check in found.checks)


@pytest.mark.parametrize("eps", [0.0, 0.6, float("nan")])
def test_an_impossible_eps_is_refused(eps: float) -> None:
    with pytest.raises(SettingError, match="eps is"):
        standard(Net(), TASKS, [batch()], eps)


def test_the_standard_has_no_more_to_choose_than_eps() -> None:
    assert Plan() == STANDARD
