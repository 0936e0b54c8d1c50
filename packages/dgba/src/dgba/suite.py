"""A standard suite of attacks: how robust a multi-task model is, task by task, with no parameter but eps.

After AutoAttack (Croce and Hein, ICML 2020), which is this for one classifier: strong attacks of different
kinds with fixed settings, and the worst of them for every image. For all tasks at once there are APGD on the
sum of log losses, with restarts, and APGD on the worst task (max-min); for every task APGD on it alone,
which gives the transfer matrix; and without gradients the Square attack and, where other models are given,
the images that were crafted on these.

An attack that fails proves nothing if the gradients that it climbs are no guide. After Athalye et al.,
"Obfuscated gradients give a false sense of security" (ICML 2018), a report says whether

- a small step along the sign of the gradient raises the objective on nearly every image, and leaves it
  unchanged on none;
- more steps do more harm;
- at eps = 1/2, where a grey image is within reach of every image, the attack does at least the harm of that;
- attacks without this model's gradients do no more harm than those with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from dgba._apgd import APGD, APGDRestart
from dgba._fgsm import FGSM, IFGSM
from dgba._square import Square
from dgba._tasks import Task
from dgba.evaluation import (
    Batches,
    Comparison,
    Crafter,
    Evaluation,
    TransferMatrix,
    damage,
    damage_interval,
    log_ratio,
    relative_loss_change,
    transfer_of,
    worst_case,
)
from tenfold import SettingError
from tenfold.experiment import Table

CLEAN, WHITE_BOX, BLACK_BOX, WORST = "clean", "APGD-DGBA", "Square", "worst case"
_GREY, _UNBOUNDED, _SMALL = "grey image", "DGBA at eps 1/2", "a hundredth of eps along the gradient"
_RISES = 0.95
"""Share of images on which a small step must raise the objective."""


@dataclass(frozen=True)
class Plan:
    """How much work the attacks get; the default is the standard.

    Attributes
    ----------
    steps, restarts : int
        Of APGD on all tasks.
    single_steps : int
        Of APGD on one task, and on the worst task.
    queries : int
        Of the Square attack.
    """

    steps: int = 100
    restarts: int = 3
    single_steps: int = 50
    queries: int = 1000


STANDARD = Plan()


@dataclass(frozen=True)
class Check:
    """One thing that would be otherwise if the gradients were masked.

    Attributes
    ----------
    name : str
    passed : bool
    finding : str
        What was measured.
    """

    name: str
    passed: bool
    finding: str


@dataclass(frozen=True, eq=False)
class Report:
    """What the suite found.

    Attributes
    ----------
    eps : float
    clean : Evaluation
    attacked : dict of str to Evaluation
        By attack.
    transfer : TransferMatrix
        Of APGD on one task.
    worst : Evaluation
        Of every image under the attack that raises the sum of its log losses most.
    checks : tuple of Check
    """

    eps: float
    clean: Evaluation
    attacked: Mapping[str, Evaluation]
    transfer: TransferMatrix
    worst: Evaluation
    checks: tuple[Check, ...]

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks for masked gradients."""
        return all(check.passed for check in self.checks)

    def tables(self) -> list[Table]:
        """Return the tables of metrics, damages, transfer and checks."""
        return [self._metrics(), self._damages(), transfer_table(self.transfer), self._checks()]

    def as_dict(self) -> dict[str, Any]:
        """Return the findings as plain JSON values."""
        every = {**self.attacked, WORST: self.worst}
        return {
            "eps": self.eps,
            "images": len(self.clean),
            "trusted": self.trusted,
            "checks": [vars(check) for check in self.checks],
            "clean": _plain(self.clean),
            "attacked": {
                name: {
                    **_plain(item),
                    "damage": dict(damage(self.clean, item).tasks),
                    "average damage": damage(self.clean, item).average,
                    "damage interval": damage_interval(self.clean, item),
                    "relative loss change": relative_loss_change(self.clean, item),
                    "log ratio of losses": log_ratio(self.clean, item),
                }
                for name, item in every.items()
            },
            "transfer": self.transfer.damages.tolist(),
        }

    def _metrics(self) -> Table:
        before, after = self.clean.metrics(), self.worst.metrics()
        rows = [
            [task, name, f"{value:.4g}", f"{after[task][name]:.4g}"]
            for task, metrics in before.items()
            for name, value in metrics.items()
        ]
        title = f"{len(self.clean)} images, clean and in the worst case within {eps_text(self.eps)}"
        return Table(title, ["task", "metric", "clean", "worst case"], rows)

    def _damages(self) -> Table:
        rows = []
        for name, item in {**self.attacked, WORST: self.worst}.items():
            found, intervals = damage(self.clean, item), damage_interval(self.clean, item)
            low, high = intervals["average"]
            rows.append(
                [
                    name,
                    *(f"{value:.1f}" for value in found.tasks.values()),
                    f"{found.average:.1f} [{low:.1f}, {high:.1f}]",
                    f"{log_ratio(self.clean, item):.2f}",
                ]
            )
        columns = ["attack", *(task.name for task in self.clean.tasks), "average", "log ratio of losses"]
        return Table("Damage, %, with the 95 % interval over images of the average", columns, rows)

    def _checks(self) -> Table:
        rows = [[check.name, "yes" if check.passed else "NO", check.finding] for check in self.checks]
        verdict = "nothing speaks for masked gradients" if self.trusted else "GRADIENTS MAY BE MASKED"
        return Table(f"Checks of the gradients: {verdict}", ["check", "passed", "finding"], rows)


def standard(
    model: nn.Module,
    tasks: Sequence[Task],
    loader: Batches,
    eps: float,
    *,
    surrogates: Mapping[str, nn.Module] | None = None,
    plan: Plan = STANDARD,
    seed: int = 0,
) -> Report:
    """Attack a model with the standard suite, and check the attacks.

    Parameters
    ----------
    model : Module
        Takes images in [0, 1] and returns outputs by task name.
    tasks : sequence of Task
    loader : iterable of (images, targets)
    eps : float
        Largest change of a channel of a pixel, above 0 and at most 1/2.
    surrogates : mapping of str to Module, optional
        Other models of the same tasks, on which images are crafted that are then shown to `model`.
    plan : Plan
        For less work than the standard; figures are then not comparable.
    seed : int
        Of random starts and queries.

    Returns
    -------
    Report

    Raises
    ------
    SettingError
        `eps` is out of range.
    """
    comparison = Suite(model, tasks, eps, surrogates=surrogates, plan=plan, seed=seed)
    for images, targets in loader:
        comparison.add(images, targets)
    return comparison.report()


class Suite(Comparison):
    """The suite batch by batch; parameters as for `standard`."""

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[Task],
        eps: float,
        *,
        surrogates: Mapping[str, nn.Module] | None = None,
        plan: Plan = STANDARD,
        seed: int = 0,
    ) -> None:
        if not 0 < eps <= 0.5:
            raise SettingError(
                f"eps is {eps}", "above 0 and at most 1/2", "Give it for pixels in [0, 1]: 8/255."
            )
        self.eps = eps
        self._ladder = [f"DGBA, {steps} step{'s' * (steps > 1)}" for steps in (1, 10)]
        self._single = {task.name: f"APGD on {task.name}" for task in tasks}
        self._transferred = [f"transfer from {name}" for name in surrogates or {}]

        def all_tasks(target: nn.Module) -> Crafter:
            return APGDRestart(
                target,
                tasks,
                combination="dgba",
                eps=eps,
                steps=plan.steps,
                restarts=plan.restarts,
                seed=seed,
            )

        attacks: dict[str, Crafter | None] = {CLEAN: None, WHITE_BOX: all_tasks(model)}
        if len(tasks) > 1:
            attacks["APGD max-min"] = APGD(
                model, tasks, combination="maxmin", eps=eps, steps=plan.single_steps, seed=seed
            )
        for task, name in self._single.items():
            attacks[name] = APGD(
                model, tasks, combination=f"single:{task}", eps=eps, steps=plan.single_steps, seed=seed
            )
        attacks[BLACK_BOX] = Square(model, tasks, eps=eps, queries=plan.queries, seed=seed)
        for name, (_, surrogate) in zip(self._transferred, (surrogates or {}).items(), strict=True):
            attacks[name] = all_tasks(surrogate)
        self._names = [name for name in attacks if name != CLEAN]
        probes: dict[str, Crafter] = {
            self._ladder[0]: FGSM(model, tasks, combination="dgba", eps=eps),
            self._ladder[1]: IFGSM(model, tasks, combination="dgba", eps=eps, steps=10),
            _SMALL: FGSM(model, tasks, combination="dgba", eps=eps / 100),
            _UNBOUNDED: APGD(model, tasks, combination="dgba", eps=0.5, steps=20, seed=seed),
            _GREY: lambda images, targets: torch.full_like(images, 0.5),
        }
        super().__init__(model, tasks, {**attacks, **probes})

    def report(self) -> Report:
        """Return what the batches so far gave."""
        found = self.evaluations()
        clean = found[CLEAN]
        return Report(
            self.eps,
            clean,
            {name: found[name] for name in self._names},
            transfer_of(clean, {task: found[name] for task, name in self._single.items()}),
            worst_case([found[name] for name in self._names]),
            self._checks(found),
        )

    def _checks(self, found: Mapping[str, Evaluation]) -> tuple[Check, ...]:
        clean = found[CLEAN]
        harm = {name: log_ratio(clean, item) for name, item in found.items()}
        change = found[_SMALL].score() - clean.score()
        rises, still = (float(part.double().mean()) for part in (change > 0, change == 0))
        steps = [*self._ladder, WHITE_BOX]
        blind = [BLACK_BOX, *self._transferred]
        strongest = max(blind, key=lambda name: harm[name])
        beaten = int((found[strongest].score() > found[WHITE_BOX].score()).sum())
        return (
            Check(
                "a small step along the gradient raises the objective",
                rises >= _RISES and still == 0,
                f"raises it on {rises:.0%} of the images, leaves it unchanged on {still:.0%}",
            ),
            Check(
                "more steps do more harm",
                all(harm[one] <= harm[more] for one, more in pairwise(steps)),
                "log ratio of losses " + ", ".join(f"{harm[name]:.3f} by {name}" for name in steps),
            ),
            Check(
                "at eps 1/2 no less harm than a grey image",
                harm[_UNBOUNDED] >= harm[_GREY],
                f"log ratio of losses {harm[_UNBOUNDED]:.3f}, of a grey image {harm[_GREY]:.3f}",
            ),
            Check(
                "attacks without gradients do no more harm",
                harm[strongest] <= harm[WHITE_BOX],
                f"log ratio of losses {harm[strongest]:.3f} by {strongest}, {harm[WHITE_BOX]:.3f} by "
                f"{WHITE_BOX}, which it beats on {beaten} of {len(clean)} images",
            ),
        )


def transfer_table(transfer: TransferMatrix) -> Table:
    """Tabulate a transfer matrix."""
    rows = [
        [name, *(f"{value:.1f}" for value in row)]
        for name, row in zip(transfer.tasks, transfer.damages, strict=True)
    ]
    return Table("Damage of every task, %, under an attack on one", ["attacked", *transfer.tasks], rows)


def eps_text(eps: float) -> str:
    """Write eps in units of 1/255."""
    return f"eps {255 * eps:g}/255"


def _plain(item: Evaluation) -> dict[str, Any]:
    return {"metrics": item.metrics(), "losses": item.mean_losses()}
