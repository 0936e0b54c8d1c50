"""The README's code works as pasted."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dgba import suite

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Run every block, one after the other, and return what they define."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        few = suite.Plan(steps=2, restarts=1, single_steps=2, queries=2)
        patch.setattr(suite.standard, "__kwdefaults__", {**suite.standard.__kwdefaults__, "plan": few})
        for block in blocks:
            exec(compile(block, str(README), "exec"), found)
    return found


def test_the_first_lines_attack_a_model_of_torchvision(names: dict[str, Any]) -> None:
    delta = names["adversarial"] - names["images"]
    assert 0 < delta.abs().max() <= 8 / 255 + 1e-6
    assert set(names["attacked"].losses) == {"classes", "normals"}
    assert (names["attacked"].score() > names["clean"].score()).all()


def test_a_task_of_ones_own_has_a_loss_a_sample(names: dict[str, Any]) -> None:
    age = names["age"]
    assert age.loss(torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [-3.0]])).tolist() == [1, 2, 3]
    assert not age.measures()["error"].higher_is_better


def test_the_report_covers_every_attack(names: dict[str, Any]) -> None:
    report = names["report"]
    assert len(report.checks) == 4
    assert "APGD on classes" in report.attacked
