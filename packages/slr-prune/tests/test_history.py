"""The history of a pruner against what its iterations were seen to do."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from slr_prune import ADMMPruner, History, Iteration, SLRPruner
from slr_prune._lagrangian import LagrangianPruner
from tenfold import DivergedError, OutputError
from tenfold.experiment import load_state, save_state

LOSSES = (1.0, 0.8, 3.0, 0.5, 2.0, 0.4)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()


def walk(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)


def run(pruner: LagrangianPruner) -> list[Iteration]:
    """Step through the losses, and write down what each step left behind."""
    generator, seen = torch.Generator().manual_seed(1), []
    for epoch, loss in enumerate(LOSSES, start=1):
        walk(pruner.model, generator)
        pruner.step(loss)
        gaps = (torch.linalg.norm(pruner.weights[name] - pruner.Z[name]).item() for name in pruner.weights)
        seen.append(Iteration(epoch, loss, pytest.approx(sum(gaps)), pruner.s, pruner.accepted))
    return seen


@pytest.mark.parametrize("on_reject", ["continue", "return"])
def test_every_iteration_is_kept(on_reject) -> None:  # type: ignore[no-untyped-def]
    pruner = SLRPruner(network(), 0.5, on_reject=on_reject)
    assert pruner.history == []
    assert run(pruner) == pruner.history
    assert {iteration.accepted[0] for iteration in pruner.history} == {True, False}


def test_admm_makes_the_second_update_alone() -> None:
    pruner = ADMMPruner(network(), 0.5, rho=0.3)
    assert run(pruner) == pruner.history
    assert {(iteration.s, *iteration.accepted) for iteration in pruner.history} == {(0.3, False, True)}


def test_a_refused_loss_and_retraining_leave_no_row() -> None:
    pruner = SLRPruner(network(), 0.5)
    pruner.step(1.0)
    with pytest.raises(DivergedError):
        pruner.step(float("nan"))
    pruner.finalize()
    pruner.step(1.0)
    assert [iteration.epoch for iteration in pruner.history] == [1]


@pytest.mark.parametrize("method", [SLRPruner, ADMMPruner])
def test_the_history_is_part_of_the_state(method: type[LagrangianPruner], tmp_path: Path) -> None:
    pruner = method(network(), 0.5)
    run(pruner)
    save_state(tmp_path / "state", pruner.state_dict())
    other = method(pruner.model, 0.5)
    other.load_state_dict(load_state(tmp_path / "state"))
    assert other.history == pruner.history
    assert (other.s, other.accepted) == (pruner.s, pruner.accepted)
    other.step(0.3)
    assert other.history[-1].epoch == len(LOSSES) + 1
    assert len(pruner.history) == len(LOSSES)


def test_a_history_goes_through_json() -> None:
    pruner = SLRPruner(network(), 0.5)
    run(pruner)
    assert History.from_dicts(json.loads(json.dumps(pruner.history.as_dicts()))) == pruner.history


def test_the_plot_is_written(tmp_path: Path) -> None:
    pruner = SLRPruner(network(), 0.5)
    run(pruner)
    path = pruner.history.plot(tmp_path / "history.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert History().plot(tmp_path / "empty.png").exists()
    with pytest.raises(OutputError):
        pruner.history.plot(path / "below-a-file.png")
