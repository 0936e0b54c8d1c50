"""Two gloo processes against one, with the same batches and noise."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from opacus.distributed import DifferentiallyPrivateDistributedDataParallel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import DCTLowPass, SpectralPrivacyEngine
from tenfold import DivergedError, SettingError

SAMPLES, STEPS = 30, 4
X = torch.randn(SAMPLES, 12, generator=torch.Generator().manual_seed(0))
Y = torch.arange(SAMPLES) % 3
SPECTRUM = {"0": DCTLowPass(0.5)}


def train(rank: int, processes: int, mode: str, order: str, broken: bool) -> dict[str, Any]:
    """Take steps on this process's share of fixed batches."""
    torch.manual_seed(rank)  # the processes start from different weights, of which the first's count
    model = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    module = DifferentiallyPrivateDistributedDataParallel(model) if processes > 1 else model
    engine = SpectralPrivacyEngine(not_private=True)
    made = engine.make_private(
        module=module,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9),
        data_loader=DataLoader(TensorDataset(X, Y), batch_size=10),
        noise_multiplier=0.7,
        max_grad_norm=0.2,
        spectrum=SPECTRUM,
        order=order,
        noise_generator=torch.Generator().manual_seed(1),
        grad_sample_mode=mode,
    )
    private, optimizer = made[:2]
    criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()
    error = ""
    for step in range(STEPS):
        batch = torch.arange(step, SAMPLES - step)
        # An uneven split, and in one step nothing for the second process.
        share = batch[: len(batch) // 3] if rank else batch[len(batch) // 3 :]
        if processes == 1:
            share = batch
        elif step == 2:
            share = batch if rank == 0 else batch[:0]
        x = X[share] * (math.nan if broken and rank == processes - 1 and step == 1 else 1.0)
        optimizer.zero_grad()
        criterion(private(x), Y[share]).backward()
        try:
            optimizer.step()
        except DivergedError as raised:
            error = str(raised)
            break
    return {
        "weights": [p.detach() for p in model.parameters()],
        "history": engine.accountant.history,
        "error": error,
    }


def sample(rank: int, processes: int, rounds: int) -> list[list[int]]:
    """Draw batches of sample numbers with the engine's own loader."""
    model = DifferentiallyPrivateDistributedDataParallel(nn.Linear(1, 2))
    numbers = torch.arange(60.0).view(60, 1)
    loader = SpectralPrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(numbers, torch.zeros(60).long()), batch_size=15),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )[-1]
    return [x.flatten().int().tolist() for _ in range(rounds) for x, _ in loader]


def work(rank: int, processes: int, folder: str, function: Any, arguments: tuple[Any, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    try:
        torch.save(function(rank, processes, *arguments), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def in_two_processes(folder: Path, function: Any, *arguments: Any) -> list[Any]:
    context = torch.multiprocessing.start_processes(
        work, (2, str(folder), function, arguments), nprocs=2, join=False, start_method="fork"
    )
    assert context is not None
    try:
        deadline = time.monotonic() + 300
        while not context.join(timeout=5):
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("order", ["filter-clip-noise", "clip-noise-filter"])
def test_two_processes_equal_one(tmp_path: Path, mode: str, order: str) -> None:
    alone = train(0, 1, mode, order, False)
    assert len(alone["history"][0]) == 3
    for found in in_two_processes(tmp_path, train, mode, order, False):
        for weight, expected in zip(found["weights"], alone["weights"], strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
        assert found["history"] == alone["history"]


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_what_is_not_finite_in_one_process_stops_both_before_it_is_charged(tmp_path: Path, mode: str) -> None:
    alone = train(0, 1, mode, "filter-clip-noise", True)
    assert "NaN" in alone["error"]
    for found in in_two_processes(tmp_path, train, mode, "filter-clip-noise", True):
        assert "NaN" in found["error"]
        assert found["history"] == alone["history"]
        assert found["history"][0][2] == 1


def test_the_processes_sample_from_disjoint_parts_at_the_rate_of_the_whole(tmp_path: Path) -> None:
    first, second = in_two_processes(tmp_path, sample, 300)
    assert len(first) == len(second) == 300 * 4  # empty batches are steps, too
    assert {number for batch in first for number in batch} == set(range(0, 60, 2))
    assert {number for batch in second for number in batch} == set(range(1, 60, 2))
    for part in (first, second):
        drawn = torch.tensor([[number in batch for number in range(60)] for batch in part]).double()
        drawn = drawn[:, drawn.sum(0) > 0]
        slack = 5 * math.sqrt(0.25 * 0.75 / 1200)
        assert bool(((drawn.mean(0) - 0.25).abs() < slack).all())
        coins = torch.corrcoef(drawn.T) - torch.eye(30)
        assert float(coins.abs().max()) < 6 / math.sqrt(1200)


def test_other_distributed_models_and_loaders_are_refused(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model = nn.Linear(12, 3)
        options: dict[str, Any] = {
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
            "data_loader": DataLoader(TensorDataset(X, Y), batch_size=10),
            "noise_multiplier": 1.0,
            "max_grad_norm": 1.0,
        }
        with pytest.raises(SettingError, match="before they have noise"):
            SpectralPrivacyEngine().make_private(module=DistributedDataParallel(model), **options)
        poisson = SpectralPrivacyEngine().make_private(module=model, **options)[-1]
        other = DifferentiallyPrivateDistributedDataParallel(nn.Linear(12, 3))
        options |= {"optimizer": torch.optim.SGD(other.parameters(), lr=0.1), "data_loader": poisson}
        with pytest.raises(SettingError, match="plain loader of all samples"):
            SpectralPrivacyEngine().make_private(module=other, **options)
    finally:
        dist.destroy_process_group()


def test_noise_is_that_of_one_process(tmp_path: Path) -> None:
    drawn: list[Tensor] = in_two_processes(tmp_path, noise)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
    assert float(drawn[0].std()) == pytest.approx(3.0 * 0.5, rel=0.05)


def noise(rank: int, processes: int) -> Tensor:
    """Return the release of an empty batch, drawn from the operating system's entropy."""
    model = nn.Linear(100, 50, bias=False)
    private, optimizer, _ = SpectralPrivacyEngine().make_private(
        module=DifferentiallyPrivateDistributedDataParallel(model),
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        data_loader=DataLoader(TensorDataset(torch.zeros(20, 100), torch.zeros(20).long()), batch_size=10),
        noise_multiplier=3.0,
        max_grad_norm=0.5,
        loss_reduction="sum",
    )
    before = model.weight.detach().clone()
    private(torch.zeros(0, 100)).sum().backward()
    optimizer.step()
    return before - model.weight.detach()
