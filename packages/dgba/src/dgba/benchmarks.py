"""What an attack costs: DGBA beside TOTAL and one backward pass a task, and torchattacks on one task.

All forms of a comparison take turns in every round, so that a disturbance of the machine meets them alike;
figures are medians over the rounds, of CPU time and of wall time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dgba._apgd import APGD
from dgba._combinations import Combination, GradientBalance, gradients_of
from dgba._fgsm import FGSM, IFGSM
from dgba._mim import MIM
from dgba._pgd import PGD
from dgba._tasks import classification
from dgba.datasets import scene_tasks, scenes
from dgba.models import multi_task
from tenfold import SettingError
from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate, interleaved

TOTAL, ONE_PASS, PASSES = "TOTAL", "DGBA", "DGBA, one pass a task"
CLASSES = 10
EPS = 8 / 255


@dataclass(frozen=True)
class Settings:
    """Settings of ``dgba bench``.

    Attributes
    ----------
    encoders : tuple of str
        Of the models of five tasks that share all of it.
    size, images : int
        Height and width, and number, of the images.
    steps : int
        Of every attack that iterates.
    repeats : int
        Rounds, after one that is not counted.
    """

    encoders: tuple[str, ...] = ("small",)
    size: int = 64
    images: int = 16
    steps: int = 5
    repeats: int = 9

    def __post_init__(self) -> None:
        if min(self.size, self.images, self.steps, self.repeats) < 1 or not self.encoders:
            raise SettingError(f"{self}", "one of each at least", "Correct them with --set.")


class OnePassATask(GradientBalance):
    """DGBA as published: a backward pass a task, the gradients divided by the losses and summed."""

    def gradient(self, losses: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """See `Combination.gradient`."""
        values = torch.stack(list(losses.values()))
        weights = 1 / (values.detach() + self.floor)
        gradients = gradients_of(self.sign * values, x)
        return (weights[:, :, None, None, None] * gradients).sum(0)


def measure(run: Run[Settings]) -> None:
    """Time DGBA against TOTAL and the published form, and one task's attacks against torchattacks."""
    for encoder in run.settings.encoders:
        combine(run, encoder)
    if importlib.util.find_spec("torchattacks") is not None:
        single_task(run)
    first = run.settings.encoders[0]
    run.claim(
        Claim.at_least(
            "CPU time of one backward pass a task over that of DGBA",
            paper=1.0,
            ours=run.metrics[f"{first}/{PASSES}/over DGBA"],
            unit="x",
            note=f"{first} encoder, all shared, five tasks; the authors' code makes one pass a task",
        )
    )


def combine(run: Run[Settings], encoder: str) -> None:
    """Time an iteration's forms on a model of five tasks that share the encoder."""
    settings = run.settings
    tasks = scene_tasks()
    model = multi_task(tasks, encoder=encoder, sharing="shared", seed=run.seed)
    rooms = scenes(settings.images, settings.size, seed=run.seed)
    combinations: dict[str, str | Combination] = {TOTAL: "total", ONE_PASS: "dgba", PASSES: OnePassATask()}
    attacks = {
        name: partial(
            IFGSM(model, tasks, combination=combination, eps=EPS, steps=settings.steps),
            rooms.images,
            rooms.targets,
        )
        for name, combination in combinations.items()
    }
    times = interleaved(attacks, settings.repeats)
    for name, taken in times.items():
        run.metric(f"{encoder}/{name}/CPU ms", 1000 * taken.cpu)
        run.metric(f"{encoder}/{name}/wall ms", 1000 * taken.wall)
        run.metric(f"{encoder}/{name}/over TOTAL", taken.cpu / times[TOTAL].cpu)
        run.metric(f"{encoder}/{name}/over DGBA", taken.cpu / times[ONE_PASS].cpu)


def single_task(run: Run[Settings]) -> None:
    """Time the attacks of one classification task against those of torchattacks."""
    import torchattacks

    settings = run.settings
    torch.manual_seed(run.seed)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(512, CLASSES),
    ).eval()
    tasks = [classification("class", CLASSES)]
    images = scenes(settings.images, settings.size, seed=run.seed).images
    with torch.no_grad():
        # torchattacks leaves images alone that are wrong as they are.
        labels = model(images).argmax(1)
    steps: dict[str, Any] = {"steps": settings.steps}
    last: dict[str, Any] = {"keep_best": False}
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {}
    for name, theirs, kind, options, own in (
        ("FGSM", torchattacks.FGSM, FGSM, {}, {}),
        ("PGD", torchattacks.PGD, PGD, steps, last),
        ("MIM", torchattacks.MIFGSM, MIM, steps, last),
        ("APGD", torchattacks.APGD, APGD, steps, {}),
    ):
        ours = kind(model, tasks, combination="single", eps=EPS, **options, **own)
        other = theirs(model, eps=EPS, **options)
        pairs[name] = (partial(ours, images, {"class": labels}), partial(other, images, labels))
    for name, (mine, its) in pairs.items():
        times = interleaved({"dgba": mine, "torchattacks": its}, settings.repeats)
        for form, taken in times.items():
            run.metric(f"one task/{name}/{form}, CPU ms", 1000 * taken.cpu)
            run.metric(f"one task/{name}/{form}, wall ms", 1000 * taken.wall)
        run.metric(f"one task/{name}/over torchattacks", times["dgba"].cpu / times["torchattacks"].cpu)


def combinations_table(records: Sequence[Record]) -> Table:
    """Tabulate the time of an attack by TOTAL, by DGBA and by one backward pass a task."""
    settings = records[0].settings
    rows = [
        [
            f"{encoder}, {name}",
            _over(records, f"{encoder}/{name}/CPU ms", 1),
            _over(records, f"{encoder}/{name}/wall ms", 1),
            _over(records, f"{encoder}/{name}/over TOTAL"),
            _over(records, f"{encoder}/{name}/over DGBA"),
        ]
        for encoder in settings["encoders"]
        for name in (TOTAL, ONE_PASS, PASSES)
    ]
    title = f"Five tasks on a shared encoder, {_what(records)}"
    return Table(title, ["encoder, attack", "CPU ms", "wall ms", "CPU over TOTAL", "CPU over DGBA"], rows)


def torchattacks_table(records: Sequence[Record]) -> Table:
    """Tabulate the time of attacks on one task beside that of torchattacks."""
    names = [
        name.split("/")[1]
        for name in records[0].metrics
        if name.startswith("one task/") and name.endswith("/over torchattacks")
    ]
    rows = [
        [
            name,
            _over(records, f"one task/{name}/dgba, CPU ms", 1),
            _over(records, f"one task/{name}/torchattacks, CPU ms", 1),
            _over(records, f"one task/{name}/over torchattacks"),
        ]
        for name in names
    ]
    title = f"One classification task, {_what(records)}"
    return Table(title, ["attack", "dgba, CPU ms", "torchattacks, CPU ms", "dgba over torchattacks"], rows)


def _what(records: Sequence[Record]) -> str:
    settings, threads = records[0].settings, records[0].hardware["threads"]
    return (
        f"{settings['images']} images of {settings['size']} x {settings['size']}, {settings['steps']} steps, "
        f"median of {settings['repeats']}, {threads} thread{'s' * (threads > 1)}"
    )


def _over(records: Sequence[Record], metric: str, digits: int = 2) -> str:
    return estimate([record.metrics[metric] for record in records], digits)


bench = Experiment(
    package="dgba",
    command="bench",
    body=measure,
    quick=Settings(),
    full=Settings(encoders=("small", "mobilenet_v2"), repeats=25),
    tables={"combinations": combinations_table, "torchattacks": torchattacks_table},
)
