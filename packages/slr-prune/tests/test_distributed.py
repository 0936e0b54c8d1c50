"""Plain loops: the penalty's gradient in place, accumulation, autocast, and two processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from slr_prune import ADMMPruner, GradualPruner, OneShotPruner, Pruner, SLRPruner

PROCESSES, SIZE, BATCHES, EPOCHS = 2, 8, 4, 4
Snapshot = dict[str, Any]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3))


def examples(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(SIZE, 10, generator=generator, dtype=torch.float64)
    # The first half of every batch is hard and the second easy, so that the processes' losses differ.
    y = x[:, :3].argmax(1)
    y[: SIZE // 2] = torch.randint(0, 3, (SIZE // 2,), generator=generator)
    return x, y


def descend(model: nn.Module) -> None:
    """A step of SGD; torch.optim takes seconds to load in every process."""
    with torch.no_grad():
        for weight in model.parameters():
            assert weight.grad is not None
            weight -= 0.2 * weight.grad
    model.zero_grad()


def train(rank: int, processes: int, in_place: bool, process_group: Any) -> Snapshot:
    """Prune in the plain loop on this process's share of every batch."""
    model = network().double()
    pruner = SLRPruner(model, 0.7, rho=0.5, process_group=process_group)
    wrapped = model if processes == 1 else DistributedDataParallel(model)
    share = slice(rank * SIZE // processes, (rank + 1) * SIZE // processes)
    losses, accepted = [], []
    for _ in range(EPOCHS):
        total = 0.0
        for batch in range(BATCHES):
            x, y = examples(batch)
            loss = F.cross_entropy(wrapped(x[share]), y[share])
            if in_place:
                loss.backward()
                pruner.add_gradient()
            else:
                (loss + pruner.penalty()).backward()
            descend(model)
            pruner.constrain()
            total += loss.item() / BATCHES
        pruner.step(total)
        losses.append(total)
        accepted.append(pruner.accepted)
    before = {"Z": dict(pruner.Z), "multipliers": dict(pruner.multipliers)}
    pruner.finalize()
    return {**before, "masks": pruner.masks, "W": pruner.present(), "losses": losses, "accepted": accepted}


def disagree(rank: int) -> tuple[bool, bool]:
    """Give losses of which one process alone would accept the first condition and the other would not."""
    model = network().double()
    pruner = SLRPruner(model, 0.7, process_group=dist.group.WORLD)
    pruner.step(1.0)
    pruner.step(100.0 if rank else -50.0)
    return pruner.accepted


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    try:
        result = {
            "in place": train(rank, PROCESSES, True, dist.group.WORLD),
            "autograd": train(rank, PROCESSES, False, dist.group.WORLD),
            "disagree": disagree(rank),
        }
        if rank == 0:  # no group: one process may prune alone
            result["alone"] = train(0, 1, True, None)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    torch.save(result, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    subprocess.run([sys.executable, __file__, str(folder)], check=True, timeout=120)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("way", ["in place", "autograd"])
def test_processes_agree_and_equal_one_process(ranks: list[dict[str, Any]], way: str) -> None:
    one, two = (rank[way] for rank in ranks)
    whole = train(0, 1, way == "in place", None)
    assert one["losses"] != two["losses"]
    assert one["accepted"] == two["accepted"] == whole["accepted"]
    for part in ("Z", "multipliers", "masks", "W"):
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name])
            torch.testing.assert_close(tensor, whole[part][name], rtol=1e-9, atol=1e-11)


def test_losses_are_averaged_before_the_conditions(ranks: list[dict[str, Any]]) -> None:
    one, two = (rank["disagree"] for rank in ranks)
    assert one == two
    assert one[0] is False  # the mean, 25, is above 1


def test_without_a_group_a_process_is_on_its_own(ranks: list[dict[str, Any]]) -> None:
    whole = train(0, 1, True, None)
    for name, tensor in ranks[0]["alone"]["W"].items():
        assert torch.equal(tensor, whole["W"][name])


@pytest.mark.parametrize("finalized", [False, True])
@pytest.mark.parametrize(
    ("method", "settings"),
    [(SLRPruner, {}), (ADMMPruner, {}), (OneShotPruner, {}), (GradualPruner, {"steps": 5})],
)
def test_add_gradient_is_the_gradient_of_the_penalty(
    method: type[Pruner], settings: dict[str, Any], finalized: bool
) -> None:
    model = network().double()
    pruner = method(model, 0.6, **settings)
    for epoch in range(3):
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.1 * torch.randn_like(weight)
        pruner.step(1.0 - 0.1 * epoch)
    if finalized:
        pruner.finalize()
    x, y = examples(0)
    (F.cross_entropy(model(x), y) + pruner.penalty()).backward()
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    pruner.add_gradient()
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-12, atol=1e-14)
        assert weight.grad is not None
        assert weight.grad.grad_fn is None


def test_add_gradient_starts_missing_gradients_and_leaves_frozen_weights() -> None:
    model = network().double()
    pruner = SLRPruner(model, 0.6, rho=0.5)
    model[2].weight.requires_grad_(False)
    pruner.add_gradient()
    expected = 0.5 * (model[0].weight - pruner.Z["0.weight"])
    torch.testing.assert_close(model[0].weight.grad, expected.detach())
    assert model[2].weight.grad is None


def test_accumulated_autocast_batches_are_pruned_alike() -> None:
    """bfloat16 rounds, so the two runs are near; counted per batch, the penalty is four times too strong."""

    def run(accumulate: int, autocast: bool) -> tuple[nn.Sequential, SLRPruner]:
        model = network()
        pruner = SLRPruner(model, 0.7, rho=1.0)
        for _ in range(6):
            total = 0.0
            for batch in range(BATCHES):
                x, y = examples(batch)
                for part, label in zip(x.float().chunk(accumulate), y.chunk(accumulate), strict=True):
                    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                        output = model(part)
                        assert output.dtype == (torch.bfloat16 if autocast else torch.float32)
                        loss = F.cross_entropy(output.float(), label) / accumulate
                    loss.backward()
                    total += loss.item() / BATCHES
                pruner.add_gradient()
                descend(model)
                pruner.constrain()
            pruner.step(total)
        return model, pruner

    model, pruner = run(4, True)
    expected, reference = run(1, False)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0, atol=0.02)
    assert pruner.k == reference.k
    assert pruner.residual() == pytest.approx(reference.residual(), rel=0.05)
    pruner.finalize()
    assert (model[0].weight == 0).sum() == round(0.7 * 160)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    torch.multiprocessing.spawn(work, (sys.argv[1],), nprocs=PROCESSES)
