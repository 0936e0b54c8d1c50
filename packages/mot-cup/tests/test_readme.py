"""The README's code works as pasted."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mot_cup import BoxCovariance

README = Path(__file__).parents[1] / "README.md"


def test_the_blocks_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    (row,) = names["rows"]
    assert np.abs(row[:4] - names["boxes"][0]).max() < 2
    assert row[4:].tolist() == [1, 0.9, 0, 0]
    assert isinstance(names["frame"].covariance, BoxCovariance)
    assert capsys.readouterr().out
