import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tango_gnn import Policy, datasets
from tango_gnn._models import build
from tango_gnn._training import node_task
from tango_gnn.cli import app
from tango_gnn.inspect_command import errors, inspect_table
from tenfold import SettingError, UnknownNameError


def test_the_errors_are_those_of_what_each_layer_sees() -> None:
    data = datasets.digits()
    network = build("gcn-2", 64, 10, 8, 1, 0.5, Policy.off(), seed=0)
    nearest = Policy(rounding="nearest", max_error=0.02)
    first, last = errors(network, node_task(data), nearest, seed=0)
    assert [first["name"], last["name"]] == ["layers.0", "layers.1"]
    x = data.features
    for bits in range(4, 9):
        levels = 2 ** (bits - 1) - 1
        rounded = (x * levels / x.max()).round() * x.max() / levels
        expected = float((x - rounded).abs().sum() / x.abs().sum())
        assert first["input"][str(bits)] == pytest.approx(expected, rel=1e-4)
    assert first["bits"] == min((bits for bits in range(4, 9) if first["input"][str(bits)] < 0.02), default=8)
    assert 0 < last["weight"] < 0.02
    assert 0 < last["gradient"] < 0.2
    widths = [last["input"][str(bits)] for bits in range(8, 3, -1)]
    assert widths == sorted(widths)


def test_measuring_leaves_no_trace_in_the_network() -> None:
    network = build("gat", 64, 10, 8, 2, 0.5, Policy.off(), seed=0)
    first = errors(network, node_task(datasets.digits()), Policy(rounding="nearest"), seed=0)
    assert not [layer for layer in network.modules() if layer._forward_hooks]
    torch.rand(3)
    assert errors(network, node_task(datasets.digits()), Policy(rounding="nearest"), seed=0) == first


def test_the_command_writes_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "errors.json"
    options = ["inspect", "--model", "sage", "--epochs", "2", "--hidden", "8", "--json", str(path)]
    found = CliRunner().invoke(app, options)
    assert found.exit_code == 0, found.output
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["epochs"] == 2
    table = inspect_table(document)
    assert table.rows[0][1] == f"{document['layers'][0]['input']['8']:.4f}"
    assert table.rows[0][1] in found.output


def test_unknown_networks_and_impossible_widths_are_refused() -> None:
    runner = CliRunner()
    with pytest.raises(UnknownNameError, match="gcn-2"):
        runner.invoke(app, ["inspect", "--model", "gcn", "--debug"], catch_exceptions=False)
    with pytest.raises(SettingError, match="3 heads"):
        runner.invoke(app, ["inspect", "--heads", "3", "--debug"], catch_exceptions=False)
