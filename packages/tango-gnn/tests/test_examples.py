"""The scripts of DGL and PyG train with two lines changed."""

import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["dgl_gat", "pyg_gcn"])
def test_two_lines_are_changed(name):
    before, after = (
        [line for line in (EXAMPLES / f"{name}{form}.py").read_text(encoding="utf-8").splitlines() if line]
        for form in ("_script", "_int8_script")
    )
    changes = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    added = [line for line in changes if line[0] == "+"]
    assert [line.split("convert")[0] for line in added] == ["+ from tango_gnn import ", "+ model = "]
    assert len(changes) - len(added) == 1


@pytest.mark.slow
def test_they_train_and_the_speed_up_is_printed():
    pytest.importorskip("dgl", reason="tango-gnn[dgl] is not installed")
    pytest.importorskip("torch_geometric", reason="tango-gnn[pyg] is not installed")
    command = [sys.executable, str(EXAMPLES / "speed_up_script.py"), "3000"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(re.findall(r"times as fast in int8", said)) == 2
    accuracies = [float(text) for text in re.findall(r"accuracy ([\d.]+) %", said)]
    assert len(accuracies) == 4
    # Eight communities: guessing is right once in eight.
    assert min(accuracies) > 50
    assert abs(accuracies[0] - accuracies[1]) < 5
    assert abs(accuracies[2] - accuracies[3]) < 5
