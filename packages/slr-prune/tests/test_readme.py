"""The README's code works as pasted."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from slr_prune import load_compacted

README = Path(__file__).parents[1] / "README.md"


def run_block(number: int) -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(blocks[number], str(README), "exec"), names)
    return names


def test_the_first_lines_of_code_prune_a_model() -> None:
    names = run_block(0)
    weights = names["model"][0].weight
    assert int((weights == 0).sum()) == round(0.9 * weights.numel())


def test_channels_are_cut_out_and_the_file_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_block(1)
    before, after = map(int, capsys.readouterr().out.split(" -> "))
    assert after < before / 3
    again = load_compacted(tmp_path / "small.pt", names["model"])
    torch.testing.assert_close(again.eval()(names["x"]), names["small"].eval()(names["x"]))
