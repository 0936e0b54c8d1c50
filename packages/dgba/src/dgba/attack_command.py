"""The command ``dgba attack``: one attack on a user's model, the damage task by task, images and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from dgba._apgd import APGD, APGDRestart
from dgba._attack import Attack, Targets
from dgba._auto_saga import AutoSAGA
from dgba._fgsm import FGSM, IFGSM
from dgba._mim import MIM
from dgba._pgd import PGD
from dgba._square import Square
from dgba._tasks import Task
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
from dgba.evaluation import (
    Comparison,
    Evaluation,
    damage,
    damage_interval,
    log_ratio,
    relative_loss_change,
)
from dgba.pictures import side_by_side
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Table, write_whole
from tenfold.experiment.cli import show, write_document

CLEAN, ATTACKED = "clean", "attacked"
SHOWN = 4
"""Images of the picture."""

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "ifgsm": IFGSM,
    "pgd": PGD,
    "mim": MIM,
    "apgd": APGD,
    "apgd-restart": APGDRestart,
    "auto-saga": AutoSAGA,
    "square": Square,
}


@dataclass(frozen=True)
class AttackSettings(UserModel):
    """What an attack and its figures depend on."""

    attack: str
    combination: str
    norm: str
    eps: float
    steps: int


def attack(
    model: ModelOption,
    tasks: TasksOption,
    data: DataOption,
    weights: WeightsOption = None,
    name: Annotated[str, typer.Option("--attack", help=f"One of {', '.join(ATTACKS)}.")] = "ifgsm",
    combination: Annotated[
        str, typer.Option(help="dgba, dgba:clean, total, signsum, maxmin, single:TASK, ...")
    ] = "dgba",
    norm: Annotated[str, typer.Option(help="linf, l2, l1 or l0.")] = "linf",
    eps: Annotated[float | None, typer.Option(help="In 1/255 for linf, 8 by default; else as it is.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of attacks that take several.")] = 10,
    images: ImagesOption = 256,
    batch_size: BatchSizeOption = 32,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    save: Annotated[Path | None, typer.Option(help="File for the images (torch.load).")] = None,
    out: OutOption = Path("runs/dgba/attack"),
    json: JsonOption = None,
    resume: ResumeOption = False,
    debug: DebugOption = False,
) -> None:
    """Attack a model of your own, and measure the damage of every task."""
    torch.set_num_threads(threads or torch.get_num_threads())
    if name not in ATTACKS:
        raise UnknownNameError("attack", name, ATTACKS)
    if eps is None and norm != "linf":
        raise SettingError(f"no eps for norm {norm}", "the radius of its ball", "Write --eps NUMBER.")
    radius = (8.0 if eps is None else eps) / (255 if norm == "linf" else 1)
    settings = AttackSettings(
        model, str(weights or ""), tasks, data, images, batch_size, name, combination, norm, radius, steps
    )
    network, chosen, batches = settings.load()
    crafter = Crafted(make_attack(settings, network, chosen, seed))
    comparison = Comparison(network, chosen, {CLEAN: None, ATTACKED: crafter})
    over_batches(
        settings,
        batches,
        comparison.add,
        seed=seed,
        out=out,
        resume=resume,
        comparison=comparison,
        crafted=crafter,
    )
    found = comparison.evaluations()
    console = Console(stderr=json == "-")
    show(tables(settings, found[CLEAN], found[ATTACKED]), console)
    seen, targets = batches[0]
    picture = side_by_side(
        out / "outputs.png",
        network,
        chosen,
        seen[:SHOWN],
        crafter.images[0][:SHOWN],
        {key: target[:SHOWN] for key, target in targets.items()},
        title=f"{name}, {combination}, {norm}, eps {_radius(settings)}",
    )
    console.print(f"plot: {picture}", soft_wrap=True, highlight=False)
    if save is not None:
        content = {
            "images": torch.cat(crafter.images),
            "targets": {task.name: torch.cat([batch[1][task.name] for batch in batches]) for task in chosen},
        }
        write_whole(save, lambda temporary: torch.save(content, temporary))
    write_document(
        {"settings": {**asdict(settings), "seed": seed}, **document(found[CLEAN], found[ATTACKED])}, json
    )


class Crafted:
    """An attack that keeps its images; its state dict goes into a checkpoint.

    Attributes
    ----------
    images : list of Tensor
        By batch, on the CPU.
    """

    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor, targets: Targets) -> Tensor:
        """Attack a batch."""
        adversarial = self._attack(images, targets)
        self.images.append(adversarial.cpu())
        return adversarial

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the images so far."""
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Put back what `state_dict` returned."""
        self.images = state["images"]


def make_attack(settings: AttackSettings, model: nn.Module, tasks: Sequence[Task], seed: int) -> Attack:
    """Make the attack that the settings name."""
    options: dict[str, Any] = {
        "combination": settings.combination,
        "norm": settings.norm,
        "eps": settings.eps,
        "seed": seed,
    }
    if settings.attack == "square":
        options["queries"] = settings.steps
    elif settings.attack != "fgsm":
        options["steps"] = settings.steps
    return ATTACKS[settings.attack](model, tasks, **options)


def tables(settings: AttackSettings, clean: Evaluation, attacked: Evaluation) -> list[Table]:
    """Return the tables of metrics and of damages."""
    before, after = clean.metrics(), attacked.metrics()
    metrics = [
        [task, name, f"{value:.4g}", f"{after[task][name]:.4g}"]
        for task, values in before.items()
        for name, value in values.items()
    ]
    found, intervals = damage(clean, attacked), damage_interval(clean, attacked)
    changes = relative_loss_change(clean, attacked)
    rows = []
    for task, value in {**found.tasks, "average": found.average}.items():
        low, high = intervals[task]
        change = f"{changes[task]:.0f}" if task in changes else ""
        rows.append([task, f"{value:.1f} [{low:.1f}, {high:.1f}]", change])
    title = f"{settings.attack}, {settings.combination}, {settings.norm}, eps {_radius(settings)}"
    return [
        Table(f"{title}: metrics of {len(clean)} images", ["task", "metric", "clean", "attacked"], metrics),
        Table(
            f"{title}: damage with its 95 % interval over images; "
            f"mean log ratio of losses {log_ratio(clean, attacked):.2f}",
            ["task", "damage, %", "change of the loss, %"],
            rows,
        ),
    ]


def document(clean: Evaluation, attacked: Evaluation) -> dict[str, Any]:
    """Return the figures as plain JSON values."""
    found = damage(clean, attacked)
    return {
        "images": len(clean),
        "clean": clean.metrics(),
        "attacked": attacked.metrics(),
        "damage": dict(found.tasks),
        "average damage": found.average,
        "damage interval": damage_interval(clean, attacked),
        "relative loss change": relative_loss_change(clean, attacked),
        "log ratio of losses": log_ratio(clean, attacked),
    }


def _radius(settings: AttackSettings) -> str:
    return f"{255 * settings.eps:g}/255" if settings.norm == "linf" else f"{settings.eps:g}"
