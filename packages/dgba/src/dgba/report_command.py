"""The command ``dgba report``: the standard suite on a user's model, batch by batch."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from dgba._user_model import read_batches, read_model, read_tasks
from dgba.pictures import transfer_heatmaps
from dgba.suite import STANDARD, Plan, Suite
from tenfold.experiment import Run
from tenfold.experiment.cli import INTERRUPTED, progress, show, write_document


@dataclass(frozen=True)
class ReportSettings:
    """What a report depends on."""

    model: str
    weights: str
    tasks: str
    data: str
    images: int
    batch_size: int
    eps: float
    plan: Plan


def report(
    model: Annotated[str, typer.Option(help="What builds it: mypkg.nets:make.")],
    tasks: Annotated[str, typer.Option(help="What returns its tasks: mypkg.nets:tasks.")],
    data: Annotated[str, typer.Option(help="What returns a data set, or batches: mypkg.data:test.")],
    weights: Annotated[Path | None, typer.Option(help="State dict to fill the model with.")] = None,
    eps: Annotated[float, typer.Option(help="Largest change of a pixel, in 1/255.")] = 8.0,
    images: Annotated[int, typer.Option(min=1, help="How many, the first ones.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 32,
    seed: Annotated[int, typer.Option(help="Of random starts and queries.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and pictures.")] = Path(
        "runs/dgba/report"
    ),
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Attack a model of your own with the standard suite, and check the attacks.

    There is nothing to choose but eps: figures of different models are comparable.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    settings = ReportSettings(model, str(weights or ""), tasks, data, images, batch_size, eps, STANDARD)
    batches = read_batches(data, images, batch_size)
    judged = Suite(read_model(model, weights), read_tasks(tasks), eps / 255, plan=settings.plan, seed=seed)
    if not resume:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    try:
        with progress() as notify:
            run = Run(settings, data, seed, torch.get_num_threads(), out, notify)
            for batch in run.stage("batches", len(batches), suite=judged):
                judged.add(*batches[batch])
    except KeyboardInterrupt:
        again = [*sys.argv[1:], *([] if resume else ["--resume"])]
        Console(stderr=True).print(
            f"interrupted; go on with: {shlex.join([Path(sys.argv[0]).name, *again])}", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED) from None
    found = judged.report()
    console = Console(stderr=json == "-")
    show(found.tables(), console)
    picture = transfer_heatmaps(
        out / "transfer.png", {model: found.transfer}, title=f"Damage by APGD on one task, %, eps {eps:g}/255"
    )
    console.print(f"plot: {picture}", soft_wrap=True, highlight=False)
    write_document({"settings": {**asdict(settings), "seed": seed}, **found.as_dict()}, json)
