"""The README's code works as pasted."""

import re
from pathlib import Path
from typing import Any

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_the_first_lines_of_code_denoise_a_vector() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    error, noise = (np.sum((names[name] - names["signal"]) ** 2) for name in ("estimate", "noisy"))
    assert error < noise / 2
