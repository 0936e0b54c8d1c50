"""A training that is killed goes on with the accountant's state and ends at the same epsilon."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import FFTLowPass, SpectralPrivacyEngine
from tenfold import CheckpointError

STEPS = 12


def train(checkpoint: Path, wait: float = 0.0) -> float:
    """Train for `STEPS` steps in all, saving after each, and return epsilon."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(40, 16), torch.randint(3, (40,)))
    model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
    engine = SpectralPrivacyEngine()
    module, optimizer, criterion, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        criterion=nn.CrossEntropyLoss(),
        data_loader=DataLoader(data, batch_size=10),
        noise_multiplier=1.0,
        max_grad_norm=0.5,
        spectrum={"0": FFTLowPass(0.5, (4, 4))},
        grad_sample_mode="ghost",
    )
    if checkpoint.exists():
        engine.load_checkpoint(path=checkpoint, module=module, optimizer=optimizer)
    while sum(steps for *_, steps in engine.accountant.history) < STEPS:
        x, y = next(iter(loader))
        optimizer.zero_grad()
        criterion(module(x), y).backward()
        optimizer.step()
        engine.save_checkpoint(path=checkpoint, module=module, optimizer=optimizer)
        sys.stdout.write("step\n")
        sys.stdout.flush()
        time.sleep(wait)
    return engine.get_epsilon(1e-5)


def test_a_killed_training_goes_on_and_spends_the_same(tmp_path: Path) -> None:
    expected = train(tmp_path / "whole.pt")
    checkpoint = tmp_path / "killed.pt"
    process = subprocess.Popen([sys.executable, __file__, str(checkpoint)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "step\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    kept = torch.load(checkpoint, weights_only=False)
    done = sum(steps for *_, steps in kept["privacy_accountant_state_dict"]["history"])
    assert 3 <= done < STEPS
    assert train(checkpoint) == pytest.approx(expected, abs=1e-9)


def test_a_checkpoint_holds_no_noise_and_is_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "one.pt"
    train(checkpoint)
    kept = torch.load(checkpoint, weights_only=False)
    assert set(kept) == {"module_state_dict", "privacy_accountant_state_dict", "optimizer_state_dict"}
    before = checkpoint.read_bytes()

    def broken(state: object, path: object, **_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", broken)
    engine = SpectralPrivacyEngine()
    with pytest.raises(Exception, match="no space left"):
        engine.save_checkpoint(path=checkpoint, module=nn.Linear(2, 2))
    assert checkpoint.read_bytes() == before
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_truncated_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = tmp_path / "cut.pt"
    train(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        SpectralPrivacyEngine().load_checkpoint(path=checkpoint, module=nn.Linear(2, 2))


def test_a_step_is_charged_before_its_update(tmp_path: Path) -> None:
    class Interrupted(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            raise KeyboardInterrupt

    model = nn.Linear(4, 2)
    engine = SpectralPrivacyEngine()
    module, optimizer, _ = engine.make_private(
        module=model,
        optimizer=Interrupted(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(torch.randn(8, 4), torch.zeros(8).long()), batch_size=4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    nn.functional.cross_entropy(module(torch.randn(3, 4)), torch.tensor([0, 1, 0])).backward()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert [steps for *_, steps in engine.accountant.history] == [1]


if __name__ == "__main__":
    train(Path(sys.argv[1]), wait=0.2)
