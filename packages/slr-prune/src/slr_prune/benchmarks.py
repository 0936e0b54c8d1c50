"""What pruning costs: the time of a training step with each pruner over a plain step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from slr_prune._admm import ADMMPruner
from slr_prune._gradual import GradualPruner
from slr_prune._pruner import Pruner
from slr_prune._slr import SLRPruner
from slr_prune.models import TARGETS, build
from tenfold.experiment import Experiment, Record, Run, Table, estimate

PRUNERS = ("plain", "slr", "admm", "gmp")


@dataclass(frozen=True)
class Settings:
    """Settings of ``slr-prune bench``.

    Attributes
    ----------
    models : tuple of str
        Names of `slr_prune.models.MODELS`.
    batch_size : int
    repeats : int
        Rounds, in each of which every pruner is timed in turn.
    steps : int
        Training steps a timing.
    """

    models: tuple[str, ...] = ("lenet-300-100", "lenet-5")
    batch_size: int = 128
    repeats: int = 7
    steps: int = 20


def overhead(run: Run[Settings]) -> None:
    """Time a training step with each pruner against a plain step."""
    settings = run.settings
    generator = torch.Generator().manual_seed(run.seed)
    x = torch.randn(settings.batch_size, 1, 28, 28, generator=generator)
    y = torch.randint(10, (settings.batch_size,), generator=generator)
    for name in settings.models:
        seconds: dict[str, list[float]] = {method: [] for method in PRUNERS}
        for _ in range(settings.repeats):
            for method in PRUNERS:
                seconds[method].append(_time_steps(name, method, x, y, settings.steps, run.seed))
        plain = float(np.median(seconds["plain"]))
        run.metric(f"{name}/plain step, ms", 1000 * plain)
        for method in PRUNERS[1:]:
            run.metric(f"{name}/{method} over plain", float(np.median(seconds[method])) / plain)


def _time_steps(name: str, method: str, x: torch.Tensor, y: torch.Tensor, steps: int, seed: int) -> float:
    model = build(name, seed)
    targets = TARGETS[name, "irregular"]
    pruner: Pruner | None = None
    if method == "slr":
        pruner = SLRPruner(model, targets)
    elif method == "admm":
        pruner = ADMMPruner(model, targets)
    elif method == "gmp":
        pruner = GradualPruner(model, targets, steps=steps)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    started = 0.0
    for step in range(steps + 2):
        if step == 2:
            started = time.perf_counter()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (loss if pruner is None else loss + pruner.penalty()).backward()
        optimizer.step()
        if pruner is not None:
            pruner.constrain()
    return (time.perf_counter() - started) / steps


def overhead_table(records: Sequence[Record]) -> Table:
    """Tabulate the time of a training step relative to a plain one."""
    settings = records[0].settings
    columns = ["model", "plain step, ms", "SLR", "ADMM", "GMP"]
    rows = [
        [
            model,
            estimate([record.metrics[f"{model}/plain step, ms"] for record in records], 3),
            *(
                estimate([record.metrics[f"{model}/{method} over plain"] for record in records])
                for method in PRUNERS[1:]
            ),
        ]
        for model in settings["models"]
    ]
    title = (
        f"Time of a training step over a plain torch step, batch {settings['batch_size']}, "
        f"median of {settings['repeats']}, {records[0].hardware['threads']} threads"
    )
    return Table(title, columns, rows)


bench = Experiment(
    package="slr-prune",
    command="bench",
    body=overhead,
    quick=Settings(),
    full=Settings(repeats=25, steps=100),
    tables={"overhead": overhead_table},
)
