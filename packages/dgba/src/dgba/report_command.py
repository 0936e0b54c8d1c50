"""The command ``dgba report``: the standard suite on a user's model, batch by batch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from dgba._user_model import (
    BatchSizeOption,
    DataOption,
    DebugOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    OutOption,
    ResumeOption,
    SeedOption,
    TasksOption,
    ThreadsOption,
    UserModel,
    WeightsOption,
    over_batches,
)
from dgba.pictures import transfer_heatmaps
from dgba.suite import STANDARD, Plan, Suite
from tenfold.experiment.cli import show, write_document


@dataclass(frozen=True)
class ReportSettings(UserModel):
    """What a report depends on."""

    eps: float
    plan: Plan


def report(
    model: ModelOption,
    tasks: TasksOption,
    data: DataOption,
    weights: WeightsOption = None,
    eps: Annotated[float, typer.Option(help="Largest change of a pixel, in 1/255.")] = 8.0,
    images: ImagesOption = 256,
    batch_size: BatchSizeOption = 32,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    out: OutOption = Path("runs/dgba/report"),
    json: JsonOption = None,
    resume: ResumeOption = False,
    debug: DebugOption = False,
) -> None:
    """Attack a model of your own with the standard suite, and check the attacks.

    There is nothing to choose but eps: figures of different models are comparable.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    settings = ReportSettings(model, str(weights or ""), tasks, data, images, batch_size, eps, STANDARD)
    network, chosen, batches = settings.load()
    judged = Suite(network, chosen, eps / 255, plan=settings.plan, seed=seed)
    over_batches(settings, batches, judged.add, seed=seed, out=out, resume=resume, suite=judged)
    found = judged.report()
    console = Console(stderr=json == "-")
    show(found.tables(), console)
    picture = transfer_heatmaps(
        out / "transfer.png", {model: found.transfer}, title=f"Damage by APGD on one task, %, eps {eps:g}/255"
    )
    console.print(f"plot: {picture}", soft_wrap=True, highlight=False)
    write_document({"settings": {**asdict(settings), "seed": seed}, **found.as_dict()}, json)
