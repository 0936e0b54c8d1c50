"""The README's code works as pasted."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_lines_of_code_train_within_the_budget() -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[0], str(README), "exec"), names)
    assert names["engine"].get_epsilon(1e-5) == pytest.approx(2.0, abs=0.02)
    change = names["model"].get_submodule("1").weight.detach()
    assert bool(torch.isfinite(change).all())


def test_the_filters_are_accepted() -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS[1:]:
        exec(compile(block, str(README), "exec"), names)
    assert names["projection"].rank == 16
