"""The README's code works as pasted."""

import re
from pathlib import Path
from typing import Any

import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_first_lines_of_code_prune_a_model() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(blocks[0], str(README), "exec"), names)
    weights = names["model"][0].weight
    assert int((weights == 0).sum()) == round(0.9 * weights.numel())
