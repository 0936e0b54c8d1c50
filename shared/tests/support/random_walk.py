"""A small resumable experiment, importable by worker processes."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tenfold.experiment import Claim, Experiment, Record, Run, Table
from tenfold.experiment.cli import command_line


@dataclass(frozen=True)
class Settings:
    steps: int = 6
    lr: float = 0.1
    sizes: tuple[int, ...] = (4, 3)
    noisy: bool = True
    diverge_at: int = -1
    die_at: int = -1


class Walker:
    def __init__(self) -> None:
        self.x = torch.zeros(8)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"x": self.x}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.x = state["x"]


def walk(run: Run[Settings]) -> None:
    """Walk at random in two stages."""
    for stage in ("first", "second"):
        walker = Walker()
        torch_generator = torch.Generator().manual_seed(run.seed)
        numpy_generator = np.random.default_rng(run.seed)
        for step in run.stage(
            stage, run.settings.steps, walker=walker, torch=torch_generator, numpy=numpy_generator
        ):
            if stage == "second" and step == run.settings.die_at and not (run.out / "died").exists():
                (run.out / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            walker.x = walker.x + run.settings.lr * torch.randn(8, generator=torch_generator)
            walker.x = walker.x + float(numpy_generator.normal())
            run.log(f"{stage}/norm", walker.x.norm() if step != run.settings.diverge_at else float("nan"))
        run.log("stages", 1)
    run.metric("norm", run.history["second/norm"][-1])
    run.claim(Claim.at_least("norm", paper=0.0, ours=run.metrics["norm"]))


def norms(records: Sequence[Record]) -> Table:
    return Table("norms", ["seed", "norm"], [[str(r.seed), f"{r.metrics['norm']:.3f}"] for r in records])


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    from tenfold.experiment import plots

    curves = {"walk": [record.history["first/norm"] for record in records]}
    return [plots.lines(folder / "norm.png", curves, title="t", x="step", y="norm", level=("zero", 0.0))]


experiment = Experiment(
    package="tenfold",
    command="run",
    body=walk,
    quick=Settings(),
    full=Settings(steps=12),
    datasets=("digits", "mnist-5k"),
    tables={"norms": norms},
    plot=plot,
    program="random-walk",
)

if __name__ == "__main__":
    command_line(experiment, help="Walk.")()
