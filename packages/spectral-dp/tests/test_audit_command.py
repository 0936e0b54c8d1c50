"""The commands of the audit from end to end, on functions in a file of the user's own."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from spectral_dp.cli import app
from tenfold import SettingError, UnknownNameError

FUNCTIONS = """
import numpy as np
import torch

generator = torch.Generator().manual_seed(0)

def clipped(gradients):
    if not gradients.isfinite().all():
        raise ValueError("not finite")
    norms = gradients.double().norm(dim=1, keepdim=True)
    return (gradients * (1 / (norms + 1e-9)).clamp(max=1)).float().sum(0)

def step(gradients):
    return clipped(gradients) + torch.randn(gradients.shape[1], generator=generator)

def steps(gradients, draws):
    return clipped(gradients) + torch.randn(draws, gradients.shape[1], generator=generator)

def silent(gradients, draws):
    release = steps(gradients, draws)
    release[:, 0] = clipped(gradients)[0]
    return release

def first_two():
    return torch.eye(4)[:, :2]

def flat(gradients, draws):
    release = steps(gradients, draws)
    release[:, 2:] = 0
    return release

def train(included):
    noise = np.random.default_rng(1).normal(size=len(included))
    return included + noise

def tells(included):
    return included * 1.0
"""
STEP = ("--dimension", "4", "--max-grad-norm", "1", "--noise-multiplier", "1", "--draws", "20000")
RUN = ("--canaries", "400", "--guesses", "100", "--seed", "0")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with usermechanisms.py."""
    (tmp_path / "usermechanisms.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "usermechanisms", raising=False)
    return tmp_path


def call(command: str, function: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["audit", command, f"usermechanisms:{function}", *options])


def document(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def test_an_honest_step_passes_with_table_record_and_picture() -> None:
    options = (
        "--vectorised",
        "--clipped-sum",
        "usermechanisms:clipped",
        "--json",
        "a.json",
        "--plot",
        "a.png",
    )
    result = call("step", "steps", *STEP, *options)
    assert result.exit_code == 0, result.output
    assert "nothing contradicts the claim" in result.output
    assert "canary Nyquist" in result.output
    found = document("a.json")
    assert found["mu"] == pytest.approx(1, rel=0.03)
    assert found["findings"] == []
    assert found["clipping"]["refused"] == ["all inf", "all nan"]
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_a_step_that_gives_one_release_and_chosen_bins() -> None:
    result = call("step", "step", *STEP[:-1], "2000", "--bin", "1", "--tolerance", "0.1", "--json", "-")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [canary["name"] for canary in found["canaries"]] == ["DC", "Nyquist", "cosine 1", "sine 1"]


def test_a_direction_without_noise_is_infinite_and_leaves_with_1() -> None:
    result = call("step", "silent", *STEP, "--vectorised", "--json", "a.json", "--plot", "a.png")
    assert result.exit_code == 1
    assert "the worst direction has mu inf" in result.output
    found = document("a.json")
    assert found["mu"] is None
    assert found["epsilon"] is None
    assert Path("a.png").stat().st_size > 0


def test_a_subspace_is_taken_from_a_function() -> None:
    options = ("--vectorised", "--subspace", "usermechanisms:first_two", "--json", "a.json")
    assert call("step", "flat", *STEP, *options).exit_code == 0
    assert document("a.json")["dimension"] == 2
    assert call("step", "flat", *STEP, "--vectorised").exit_code == 1


def test_a_run_is_bounded_with_table_record_and_picture() -> None:
    options = ("--epsilon", "4.377", "--json", "a.json", "--plot", "a.png")
    result = call("one-run", "train", *RUN, *options)
    assert result.exit_code == 0, result.output
    found = document("a.json")
    assert 0 < found["epsilon"] < 4.377
    assert f"{found['epsilon']:.3f}" in result.output
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_refutes_its_claim_leaves_with_1() -> None:
    result = call("one-run", "tells", *RUN, "--epsilon", "1")
    assert result.exit_code == 1
    assert "claimed is 1" in result.output
    without = call("one-run", "tells", *RUN)
    assert without.exit_code == 0
    assert "claim" not in without.output


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("usermechanisms", SettingError),
        ("nosuchmodule:step", SettingError),
        ("usermechanisms:stepp", UnknownNameError),
    ],
)
def test_functions_that_do_not_exist_are_refused(name: str, error: type[Exception]) -> None:
    result = CliRunner().invoke(app, ["audit", "step", name, *STEP])
    assert isinstance(result.exception, error)
