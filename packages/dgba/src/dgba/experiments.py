"""The paper's three questions, on rendered rooms: who is hurt by what, and what helps.

1. How secure is a multi-task model to an attack on one of its tasks? The transfer matrix: the damage of every
   task under an attack on each.
2. Can all tasks be attacked at once? SINGLE, TOTAL and SIGNSUM against DGBA, with the same steps, and DGBA
   under stronger ascents; auto-SAGA and max-min beside them.
3. Do sharing and adversarial training help? The same attacks on models whose tasks share all of the encoder,
   part of it or none; and a model trained on adversarial images, judged by the standard suite: 100 steps of
   APGD with restarts, images that were crafted on the other model, and the suite's checks of the gradients.

A model of every sharing is trained once a seed, then attacked on test images that nothing was chosen on. The
figures are the damage (see `dgba.evaluation`), by task and on average, and the mean log ratio of losses.
What follows the paper: tasks, losses, metrics, steps of eps / 10 without random start. What differs: the
images and the networks, which fit a laptop, and the judge of adversarial training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from dgba import suite
from dgba._apgd import APGD
from dgba._attack import Attack, Targets
from dgba._auto_saga import AutoSAGA
from dgba._combinations import Combination, MaxMin
from dgba._fgsm import FGSM, IFGSM
from dgba._mim import MIM
from dgba._pgd import PGD
from dgba._results import (
    ADVERSARIAL,
    AVERAGE,
    CLEAN_DGBA,
    DGBA,
    LOG_RATIO,
    MAXMIN,
    MILDEST,
    SINGLE,
    STANDARD,
    STRONGEST,
    WEIGHTED_MAXMIN,
    Found,
    adversarial_table,
    attacks_table,
    damage_cut,
    key,
    margin,
    margins_table,
    mildest_margin,
    models_table,
    off_difference,
    plot,
    strongest_margin,
    transfer_results,
)
from dgba._tasks import Task
from dgba.datasets import Scenes, scene_tasks, scenes
from dgba.evaluation import (
    Crafter,
    damage,
    damage_per_rise,
    evaluate,
    log_ratio,
    relative_loss_change,
)
from dgba.models import multi_task
from dgba.pictures import side_by_side
from dgba.training import Variant, train
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Claim, Experiment, Run

TASKS = ("segmentation", "depth", "normals", "edges", "keypoints")
SHARINGS = ("shared", "branched", "independent")
SHOWN = 4
"""Images of a picture."""
ATTACKED, JUDGED = 16, 4
"""Images of a batch that is attacked, and of one that the suite gets."""

Loaded: TypeAlias = Sequence[tuple[Tensor, Targets]]
Attacks: TypeAlias = dict[str, Callable[[float], Crafter]]
"""By name, from eps in [0, 1] to an attack."""


@dataclass(frozen=True)
class Settings:
    """Settings of ``dgba run``.

    Attributes
    ----------
    tasks : tuple of str
        Of `dgba.datasets.scene_tasks`.
    size : int
        Height and width of the images, in pixels.
    train_images, validation_images, test_images : int
        Validation images give the weights of weighted max-min, and nothing else.
    sharing : tuple of str
        How much of the encoder the tasks share: ``"shared"``, ``"branched"``, ``"independent"``.
    epochs, batch_size : int
    learning_rate : float
        At first. The paper's is 1e-3, for 20,000 iterations; in a few hundred, that leaves the networks
        worse on validation images.
    eps : tuple of float
        Perturbations at which all attacks run, in 1/255.
    curve : tuple of float
        Further ones, for DGBA alone.
    steps : int
        Of the iterated attacks.
    apgd_steps : int
        Of the attacks by APGD.
    adversarial : str
        Which sharing is trained on adversarial images as well; empty for none.
    adversarial_epochs : int
    adversarial_eps : float
        In 1/255.
    adversarial_steps : int
        Steps of the attack in training.
    variant : {"standard", "free", "fast"}
        Of adversarial training; see `dgba.training.train`.
    judged_images : int
        First test images, which the standard suite gets.
    judge_steps, judge_restarts, judge_single_steps, judge_queries : int
        The `dgba.suite.Plan` of the suite.
    """

    tasks: tuple[str, ...] = TASKS
    size: int = 64
    train_images: int = 400
    validation_images: int = 8
    test_images: int = 8
    sharing: tuple[str, ...] = ("shared", "independent")
    epochs: int = 6
    batch_size: int = 8
    learning_rate: float = 3e-3
    eps: tuple[float, ...] = (4.0,)
    curve: tuple[float, ...] = (1.0, 2.0, 8.0)
    steps: int = 10
    apgd_steps: int = 20
    adversarial: str = "shared"
    adversarial_epochs: int = 4
    adversarial_eps: float = 8.0
    adversarial_steps: int = 2
    variant: str = "standard"
    judged_images: int = 4
    judge_steps: int = 50
    judge_restarts: int = 1
    judge_single_steps: int = 10
    judge_queries: int = 100

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in TASKS:
                raise UnknownNameError("task", name, TASKS)
        for name in (*self.sharing, *([self.adversarial] if self.adversarial else [])):
            if name not in SHARINGS:
                raise UnknownNameError("sharing", name, SHARINGS)
        if self.adversarial and self.adversarial not in self.sharing:
            raise SettingError(
                f"adversarial is {self.adversarial!r}",
                f"one of {', '.join(self.sharing)}",
                "Or leave it empty.",
            )
        if not self.eps or not all(
            0 < value <= 127 for value in (*self.eps, *self.curve, self.adversarial_eps)
        ):
            raise SettingError(
                f"eps {self.eps}, {self.curve} and {self.adversarial_eps}",
                "numbers above 0 and at most 127, one at least",
                "Give them in units of 1/255: --set eps=4,8.",
            )
        if self.variant not in get_args(Variant):
            raise UnknownNameError("variant of adversarial training", self.variant, get_args(Variant))
        if len(self.tasks) < 2:
            raise SettingError(f"tasks {self.tasks}", "two at least", "Write --set tasks=depth,normals.")
        counts = ("train_images", "validation_images", "test_images", "judged_images")
        for name in (*counts, "epochs", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "1 or more", f"Raise {name}.")


class Figures(dict[str, float]):
    """Figures of a run by name, as part of its checkpoints."""

    def state_dict(self) -> dict[str, float]:
        """Return the figures."""
        return dict(self)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Put back what `state_dict` returned."""
        self.update(state)


def answer(run: Run[Settings]) -> None:
    """Attack multi-task models that share more or less, and one that was trained on adversarial images."""
    settings = run.settings
    tasks = tuple(task for task in scene_tasks() if task.name in settings.tasks)
    rooms = scenes(settings.train_images, settings.size, seed=run.seed)
    test = scenes(settings.test_images, settings.size, seed=run.seed, split="test")
    batches = list(DataLoader(test, ATTACKED))
    figures = Figures()

    models: dict[str, nn.Module] = {}
    for sharing in settings.sharing:
        models[sharing] = _trained(run, sharing, tasks, rooms)
        _attack(run, figures, sharing, models[sharing], tasks, batches)
    if settings.adversarial:
        plain, hardened = models[settings.adversarial], _hardened(run, tasks, rooms)
        models[ADVERSARIAL] = hardened
        _attack(run, figures, ADVERSARIAL, hardened, tasks, batches)
        first = Subset(test, range(min(len(test), settings.judged_images)))
        judged = list(DataLoader(first, JUDGED))
        _judge(run, figures, STANDARD, plain, {ADVERSARIAL: hardened}, tasks, judged)
        _judge(run, figures, ADVERSARIAL, hardened, {STANDARD: plain}, tasks, judged)
        before, after = (evaluate(model, tasks, batches) for model in (plain, hardened))
        changes = relative_loss_change(before, after)
        figures[key(ADVERSARIAL, "clean damage")] = damage(before, after).average
        figures[key(ADVERSARIAL, "clean loss change")] = sum(changes.values()) / len(changes)
    for name, figure in figures.items():
        run.metric(name, figure)
    for name, model in models.items():
        _draw(run, name, model, tasks, batches)
    run.claims.extend(_claims(run))


def _trained(run: Run[Settings], sharing: str, tasks: Sequence[Task], rooms: Scenes) -> nn.Module:
    """Train a model on clean images."""
    settings = run.settings
    model = multi_task(tasks, sharing=sharing, seed=run.seed)
    train(
        model,
        tasks,
        rooms,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=run.seed,
        run=run,
        stage=f"train {sharing}",
    )
    return model


def _hardened(run: Run[Settings], tasks: Sequence[Task], rooms: Scenes) -> nn.Module:
    """Train a model on clean and adversarial images."""
    settings = run.settings
    model = multi_task(tasks, sharing=settings.adversarial, seed=run.seed)
    variants: dict[str, Variant] = {name: name for name in get_args(Variant)}
    train(
        model,
        tasks,
        rooms,
        epochs=settings.adversarial_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        adversarial=lambda network: IFGSM(
            network,
            tasks,
            combination="dgba",
            eps=settings.adversarial_eps / 255,
            steps=settings.adversarial_steps,
            keep_best=False,
        ),
        variant=variants[settings.variant],
        seed=run.seed,
        run=run,
        stage=f"train {ADVERSARIAL}",
    )
    return model


def _attacks(model: nn.Module, tasks: Sequence[Task], settings: Settings, seed: int) -> Attacks:
    """Return every attack that the tables compare."""

    def made(
        kind: type[Attack], combination: str | Combination, **options: Any
    ) -> Callable[[float], Crafter]:
        return lambda eps: kind(model, tasks, combination=combination, eps=eps, seed=seed, **options)

    some, many = {"steps": settings.steps}, {"steps": settings.apgd_steps}
    maxmin = made(IFGSM, "maxmin", **some)

    def weighted_maxmin(eps: float) -> Crafter:
        images = scenes(settings.validation_images, settings.size, seed=seed, split="validation")
        batches = list(DataLoader(images, ATTACKED))
        clean, found = evaluate(model, tasks, batches), evaluate(model, tasks, batches, maxmin(eps))
        return made(IFGSM, MaxMin(damage_per_rise(clean, found)), **some)(eps)

    return {
        **{SINGLE + task.name: made(IFGSM, f"single:{task.name}", **some) for task in tasks},
        "TOTAL": made(IFGSM, "total", **some),
        "SIGNSUM": made(IFGSM, "signsum", **some),
        "AUTO-SAGA": made(AutoSAGA, "total", **some),
        DGBA: made(IFGSM, "dgba", **some),
        CLEAN_DGBA: made(IFGSM, "dgba:clean", **some),
        MAXMIN: maxmin,
        WEIGHTED_MAXMIN: weighted_maxmin,
        "FGSM-DGBA": made(FGSM, "dgba"),
        "PGD-DGBA": made(PGD, "dgba", **some),
        "MIM-DGBA": made(MIM, "dgba", **some),
        "APGD-TOTAL": made(APGD, "total", **many),
        STRONGEST: made(APGD, "dgba", **many),
    }


def _attack(
    run: Run[Settings],
    figures: Figures,
    name: str,
    model: nn.Module,
    tasks: Sequence[Task],
    batches: Loaded,
) -> None:
    """Attack a model in every way, and DGBA's way at every eps."""
    settings = run.settings
    attacks = _attacks(model, tasks, settings, run.seed)
    plan = [(attack, eps) for eps in settings.eps for attack in attacks]
    plan += [(DGBA, eps) for eps in settings.curve if eps not in settings.eps]
    clean = evaluate(model, tasks, batches)
    for task, metrics in clean.metrics().items():
        for metric, value in metrics.items():
            figures[key(name, "clean", task, metric)] = value
    for number in run.stage(f"attack {name}", len(plan), figures=figures):
        attack, eps = plan[number]
        found = evaluate(model, tasks, batches, attacks[attack](eps / 255))
        harm = damage(clean, found)
        for task, value in harm.tasks.items():
            figures[key(name, attack, eps, task)] = value
        figures[key(name, attack, eps, AVERAGE)] = harm.average
        figures[key(name, attack, eps, MILDEST)] = harm.mildest
        figures[key(name, attack, eps, LOG_RATIO)] = log_ratio(clean, found)


def _judge(
    run: Run[Settings],
    figures: Figures,
    name: str,
    model: nn.Module,
    surrogates: Mapping[str, nn.Module],
    tasks: Sequence[Task],
    batches: Loaded,
) -> None:
    """Give a model the standard suite, batch by batch."""
    settings = run.settings
    judged = suite.Suite(
        model,
        tasks,
        settings.eps[-1] / 255,
        surrogates=surrogates,
        plan=suite.Plan(
            settings.judge_steps,
            settings.judge_restarts,
            settings.judge_single_steps,
            settings.judge_queries,
        ),
        seed=run.seed,
    )
    for batch in run.stage(f"judge {name}", len(batches), suite=judged):
        judged.add(*batches[batch])
    report = judged.report()
    for attack, found in {**report.attacked, suite.WORST: report.worst}.items():
        label = "transfer" if attack.startswith("transfer") else attack
        figures[key("suite", name, label)] = damage(report.clean, found).average
    for check in report.checks:
        figures[key("checks", name, check.name)] = float(check.passed)


def _draw(
    run: Run[Settings],
    name: str,
    model: nn.Module,
    tasks: Sequence[Task],
    batches: Loaded,
) -> None:
    """Draw what DGBA does to the first images."""
    eps = run.settings.eps[-1]
    images = batches[0][0][:SHOWN]
    targets = {task: target[:SHOWN] for task, target in batches[0][1].items()}
    adversarial = _attacks(model, tasks, run.settings, run.seed)[DGBA](eps / 255)(images, targets)
    side_by_side(
        run.out / "pictures" / f"{name}.png",
        model,
        tasks,
        images,
        adversarial,
        targets,
        title=f"{name}: DGBA, {run.settings.steps} steps, eps {eps:g}/255",
    )


def _claims(run: Run[Settings]) -> list[Claim]:
    """Compare with what the paper says in words; its figures are of other data and networks."""
    settings = run.settings
    eps, first = settings.eps[0], settings.sharing[0]
    record = Found(run.metrics, vars(settings))
    compared = (
        (
            "average damage by DGBA beyond the best of SINGLE, TOTAL and SIGNSUM",
            margin,
            "; the paper says that DGBA does most damage",
        ),
        ("average damage by APGD-DGBA beyond all others", strongest_margin, ""),
        (
            "damage of the mildest task by weighted max-min beyond DGBA's",
            mildest_margin,
            "; not in the paper",
        ),
    )
    claims = [
        Claim.at_least(
            f"{name}, {model}",
            paper=0.0,
            ours=measure(record, model, eps),
            unit="points",
            note=f"eps {eps:g}/255{note}",
        )
        for model in settings.sharing
        for name, measure, note in compared
    ]
    if "independent" in settings.sharing and first != "independent":
        claims.append(
            Claim.at_least(
                f"damage of the tasks that are not attacked, {first} beyond independent",
                paper=0.0,
                ours=off_difference(record, first, "independent", eps),
                unit="points",
                note=f"eps {eps:g}/255; the paper says that attacks carry over where tasks share",
            )
        )
    if settings.adversarial:
        claims.append(
            Claim.at_least(
                "average damage cut by adversarial training, worst case of the standard suite",
                paper=0.0,
                ours=damage_cut(record, suite.WORST),
                unit="%",
                note=f"eps {settings.eps[-1]:g}/255",
            )
        )
    return claims


run = Experiment(
    package="dgba",
    command="run",
    body=answer,
    quick=Settings(),
    full=Settings(
        train_images=600,
        validation_images=16,
        test_images=24,
        sharing=SHARINGS,
        epochs=12,
        eps=(4.0, 8.0),
        curve=(1.0, 2.0, 6.0, 12.0, 16.0),
        adversarial_epochs=8,
        judged_images=16,
        judge_steps=100,
        judge_restarts=2,
        judge_single_steps=20,
        judge_queries=300,
    ),
    tables={
        "attacks": attacks_table,
        "margins": margins_table,
        "transfer": transfer_results,
        "adversarial": adversarial_table,
        "models": models_table,
    },
    plot=plot,
)
