"""The README's code works as pasted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


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


def test_two_lines_turn_a_script_for_opacus_into_ours(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    script = (README.parent / "examples" / "opacus_script.py").read_text(encoding="utf-8")
    (difference,) = re.findall(r"```diff\n(.*?)```", TEXT, re.DOTALL)
    lines = difference.splitlines()
    assert [line[0] for line in lines] == ["-", "+", "-", "+"]
    ours = script
    for old, new in (lines[:2], lines[2:]):
        assert ours.count(old[1:] + "\n") == 1
        ours = ours.replace(old[1:], new[1:])
    reports = []
    for text, engine in ((script, "PrivacyEngine"), (ours, "SpectralPrivacyEngine")):
        names: dict[str, Any] = {}
        exec(compile(text, "script", "exec"), names)
        assert type(names["engine"]).__name__ == engine
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]
    assert "epoch 1: epsilon 3." in reports[1]
    assert len(names["optimizer"].projections) == 2


def test_the_figures_of_the_audit_are_those_of_its_record() -> None:
    record = json.loads((README.parent / "results" / "audit" / "one-run.json").read_text(encoding="utf-8"))
    bound, claim = record["epsilon"], record["claimed_epsilon"]
    assert f"{record['correct']} of {record['guesses']} guesses right" in TEXT
    assert f"at least {bound:.2f}, {bound / claim:.2f} of the claim" in TEXT
